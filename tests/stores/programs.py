"""Where the stores' programs come from: PyPI, npm and Go modules, kept outside the tree by version."""

import hashlib
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.locks import Progress, exclusive, say
from tests.cluster.paths import cache_directory, remove_tree

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# The newest that runs on Node 18 and 20 too.
_AZURITE = "azurite@3.35.0"


class MissingProgramError(RuntimeError):
    """A store's program cannot be had; the message says what was tried."""


def python(progress: Progress = say) -> Path:
    """Python of an environment with the stand-ins that come from PyPI, made once."""
    key = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    directory = cache_directory() / "environments" / f"stores-{key}"
    command = directory / "bin" / "python"

    def install() -> None:
        venv.create(directory, with_pip=_uv() is None)
        uv = _uv()
        pip = (
            [uv, "pip", "install", "--python", str(command)] if uv else [str(command), "-m", "pip", "install"]
        )
        _run([*pip, "--quiet", "--requirement", str(_REQUIREMENTS)])

    _once(directory, "the stores' packages", install, progress)
    return command


def azurite(progress: Progress = say) -> Sequence[str]:
    """The command of Azurite's blob service, without its options."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise MissingProgramError("Azurite needs Node.js 18 or newer with npm on PATH")
    directory = cache_directory() / "environments" / _AZURITE.replace("@", "-")

    def install() -> None:
        directory.mkdir(parents=True)
        _run([npm, "install", "--prefix", str(directory), "--omit=dev", "--no-audit", "--no-fund", _AZURITE])

    _once(directory, "Azurite", install, progress)
    return [node, str(directory / "node_modules/azurite/dist/src/blob/main.js")]


def _once(directory: Path, what: str, install: object, progress: Progress) -> None:
    assert callable(install)
    complete = directory / ".complete"
    with exclusive(directory.with_suffix(".lock"), what, progress):
        if complete.exists():
            return
        progress(f"{what}: installing (half a minute to two minutes)")
        began = time.monotonic()
        remove_tree(directory)
        install()
        complete.touch()
        progress(f"{what}: installed in {time.monotonic() - began:.0f} s")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingProgramError(
            f"{' '.join(command[:4])} ... failed:\n{(done.stderr or done.stdout)[-2000:]}"
        )


def _uv() -> str | None:
    ours = sorted(cache_directory().glob("uv-*/bin/uv"))  # where the Makefile puts it
    return shutil.which("uv") or (str(ours[-1]) if ours else None)
