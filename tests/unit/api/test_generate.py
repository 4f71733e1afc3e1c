"""Generated files are made from the models, the same each time, and checked."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tailwise.cli import generate
from tailwise.cli.main import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository with the generated files alone."""
    for path in generate.files():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def test_the_stored_files_are_up_to_date() -> None:
    assert main(["generate", "--check"]) == 0


def test_two_processes_make_the_same_bytes() -> None:
    program = (
        "import hashlib; from tailwise.cli.generate import files; "
        "print(hashlib.sha256(repr(files()).encode()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "operator")},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_drift_is_shown_as_a_difference_and_ends_with_1(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crd = copy / "crds" / "tailwise.dev_inferenceworkloads.yaml"
    crd.write_text(crd.read_text().replace("maximum: 3600000", "maximum: 1"))
    assert main(["generate", "--check", "--root", str(copy)]) == 1
    shown = capsys.readouterr().out
    assert "maximum: 3600000" in shown
    assert "make generate" in shown


def test_generate_mends_what_drifted(copy: Path) -> None:
    crd = copy / "crds" / "tailwise.dev_inferenceworkloads.yaml"
    made = crd.read_text()
    crd.unlink()
    assert main(["generate", "--root", str(copy)]) == 0
    assert crd.read_text() == made


def test_a_directory_that_is_no_repository_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--root", str(tmp_path)]) == 2
    assert "--root" in capsys.readouterr().err
