"""A minute of coverage-guided fuzzing; `make fuzz` goes on for ten."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_SECONDS = int(os.environ.get("TAILWISE_FUZZ_SECONDS", "60"))
_ROOT = Path(__file__).parents[2]
_NOT_FUZZED = 3


def test_no_file_that_the_fuzzer_makes_breaks_the_reader(
    tmp_path: Path, progress: Callable[[str], None]
) -> None:
    progress(f"fuzzing the reader of models for {_SECONDS} s (TAILWISE_FUZZ_SECONDS)")
    command = [sys.executable, "-m", "tests.fuzz", str(_SECONDS), "--corpus", str(tmp_path / "corpus")]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == _NOT_FUZZED:
        progress(done.stderr.strip())
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    executed = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    assert executed is not None
    progress(f"fuzzing the reader of models: {executed.group(1)} files, none broke it")
