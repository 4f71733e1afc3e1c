"""Which release of Tailwise this is, as it tells others: API servers, model stores, Prometheus, a shell."""

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("tailwise")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


RELEASE = _installed()
USER_AGENT = f"tailwise/{RELEASE}"
