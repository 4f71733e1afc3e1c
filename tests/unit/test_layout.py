"""The source root is called operator/, like a module of the standard library: neither may hide the other."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_standard_librarys_operator_is_found_beside_tailwise() -> None:
    program = "import operator, tailwise; print(operator.itemgetter(0)('ok'), operator.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    answer, path = run.stdout.split()
    assert answer == "o"
    assert not Path(path).is_relative_to(ROOT / "operator")


def test_the_source_root_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
