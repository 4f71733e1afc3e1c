"""Asking a daemon whether it is ready: over HTTPS or HTTP, also behind a command prefix, or by its client."""

import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.pki import KeyPair

_TIMEOUT_SECONDS = 3.0
_CLIENT_TIMEOUT_SECONDS = 10.0


def answers(
    url: str, *, authority: Path | None = None, pair: KeyPair | None = None, prefix: Sequence[str] = ()
) -> Callable[[], str | None]:
    """Return a probe for `processes.wait_until_ready`: None once `url` answers 200, else what it said.

    `authority` is the CA file of an https URL (None: not verified), `pair` a client certificate. With a
    `prefix` (such as nsenter --net=…) the question is asked by a process started behind it.
    """
    if not prefix:
        return lambda: ask(url, authority, pair)
    files = [
        str(path) for path in (authority or "", pair.certificate if pair else "", pair.key if pair else "")
    ]
    command = [*prefix, sys.executable, str(Path(__file__).resolve()), url, *files]
    # By path and not by -m: a prefix may change the working directory.
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def probe() -> str | None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else (done.stdout or done.stderr).strip()[-200:]

    return probe


def succeeds(
    command: Sequence[str], *, timeout_seconds: float = _CLIENT_TIMEOUT_SECONDS
) -> Callable[[], str | None]:
    """Return a probe for `processes.wait_until_ready`: None once the client `command` ends with 0.

    One that does not end in time is no answer: clients wait themselves for a socket that is not there yet.
    """

    def probe() -> str | None:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=timeout_seconds
            )
        except subprocess.TimeoutExpired:
            return f"{command[0]}: no answer in {timeout_seconds:g} s"
        return None if done.returncode == 0 else f"{command[0]}: {done.stderr.strip()[-200:]}"

    return probe


def ask(url: str, authority: Path | None = None, pair: KeyPair | None = None) -> str | None:
    """Ask once: None for a 200, else the answer or the error in words."""
    context = None
    if url.startswith("https:"):
        context = ssl.create_default_context(cafile=authority)
        if authority is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
    # No proxy of the environment's: it would be asked for a cluster that only this machine knows.
    handlers = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))  # type: ignore[arg-type]
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=_TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        lines = error.read().decode(errors="replace").splitlines()
        failing = [line for line in lines if line.startswith("[-]")]
        return f"{url} answers {error.code}: {'; '.join(failing or lines)[:160]}"
    except (OSError, ValueError) as error:
        return f"{url}: {getattr(error, 'reason', error)}"


if __name__ == "__main__":
    _url, _authority, _certificate, _key = sys.argv[1:]
    _pair = KeyPair(Path(_certificate), Path(_key)) if _certificate else None
    _missing = ask(_url, Path(_authority) if _authority else None, _pair)
    print(_missing or "")
    sys.exit(_missing is not None)
