"""Coverage-guided fuzzing of the reader: python -m tests.fuzz [SECONDS] [--corpus DIRECTORY].

Atheris (libFuzzer) watches which lines of the reader a file reaches and goes on from those that reach new
ones. It starts from real graphs and the hostile files. What is found is kept in the corpus, so the next run
goes on from there; a file that breaks the rule is written beside it and named.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from tests.cluster.paths import cache_directory
from tests.fuzz import hostile
from tests.models import rehydrate

_SEEDS = ("decoder_convtranspose", "mlp_512_2048", "squeezenet1_1")
_MOST_BYTES = 64 * 1024
_MEMORY_MEBIBYTES = 3072
_ONE_FILE_SECONDS = 30


def main() -> int:
    """Fuzz for so many seconds; returns libFuzzer's exit code, 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("seconds", type=int, nargs="?", default=600)
    parser.add_argument("--corpus", type=Path, default=cache_directory() / "fuzz" / "models")
    options = parser.parse_args()
    try:
        import atheris  # noqa: PLC0415 - tells what to do where it is missing
    except ImportError:
        print(
            "NOT FUZZED: atheris has no build for this Python or machine (Linux on x86-64, Python below "
            "3.14); the property tests of tests/fuzz ran all the same",
            file=sys.stderr,
        )
        return 3
    with atheris.instrument_imports(include=["tailwise.models", "tailwise.api.profile"]):
        from tests.fuzz import target  # noqa: PLC0415 - instrumented as it is imported

    seen: set[str] = set()

    def one(content: bytes) -> None:
        target.inspected(content)
        for place in target.UNEXPECTED - seen:
            print(f"unexpected, yet answered: {place}", file=sys.stderr, flush=True)
            seen.add(place)

    options.corpus.mkdir(parents=True, exist_ok=True)
    _plant(options.corpus)
    found = options.corpus.parent / "found-"
    arguments = [
        sys.argv[0],
        str(options.corpus),
        f"-max_total_time={options.seconds}",
        f"-max_len={_MOST_BYTES}",
        f"-rss_limit_mb={_MEMORY_MEBIBYTES}",
        f"-timeout={_ONE_FILE_SECONDS}",
        f"-artifact_prefix={found}",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, one)
    atheris.Fuzz()
    return 0


def _plant(corpus: Path) -> None:
    """Put the seeds there, each under its digest."""
    contents = [rehydrate.skeleton(name).SerializeToString() for name in _SEEDS]
    contents += [made() for made in hostile.FILES.values()]
    for content in contents:
        if len(content) <= _MOST_BYTES:
            (corpus / hashlib.sha256(content).hexdigest()).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
