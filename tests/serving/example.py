"""The example server as a test runs it: its modules, its environment of packages, its process."""

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.locks import Progress, exclusive
from tests.cluster.paths import cache_directory, remove_tree
from tests.cluster.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVING = EXAMPLES / "serving"
_LONGEST_START_SECONDS = 120.0
_LONGEST_END_SECONDS = 60.0


def module(name: str) -> Any:
    """Load a module of the example, which is a program beside the package and not a part of it."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SERVING / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def python(progress: Progress) -> Path:
    """Python of an environment with exactly requirements.txt, made once for each content of that file."""
    requirements = SERVING / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    directory = cache_directory() / "environments" / f"serving-{key}"
    command = directory / "bin" / "python"
    complete = directory / ".complete"
    with exclusive(directory.with_suffix(".lock"), "the example server's packages", progress):
        if not complete.exists():
            progress("the example server's packages: installing (half a minute to two minutes)")
            began = time.monotonic()
            remove_tree(directory)
            done = subprocess.run(_install(directory), capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{requirements} cannot be installed:\n{done.stderr[-2000:]}"
            complete.touch()
            progress(f"the example server's packages: installed in {time.monotonic() - began:.0f} s")
    return command


def _install(directory: Path) -> Sequence[str]:
    """The command that fills an environment: uv's where uv is at hand, for it is many times faster."""
    venv.create(directory, with_pip=_uv() is None)
    command, requirements = str(directory / "bin" / "python"), str(SERVING / "requirements.txt")
    uv = _uv()
    installer = [uv, "pip", "install", "--python", command] if uv else [command, "-m", "pip", "install"]
    return [*installer, "--quiet", "--require-hashes", "--requirement", requirements]


def _uv() -> str | None:
    ours = sorted(cache_directory().glob("uv-*/bin/uv"))  # where the Makefile puts it
    return shutil.which("uv") or (str(ours[-1]) if ours else None)


@dataclass(frozen=True, slots=True)
class Server:
    """A model server that is ready."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def get(self, path: str) -> str:
        """Body of the answer to a GET."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:  # noqa: S310
            text: str = answer.read().decode()
        return text


@contextmanager
def running(python_command: Path, log: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """Start the server with these settings; it is ready inside the block and ended after it."""
    port = free_port("127.0.0.1", set())
    environment = {
        **_environment(python_command),
        "PORT": str(port),
        **settings,
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [python_command, "-m", "model_server"], env=environment, stdout=file, stderr=file, cwd=log.parent
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_LONGEST_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment(python_command: Path) -> dict[str, str]:
    # Bytecode is kept beside the environment: compiling anew costs each start several CPU seconds.
    bytecode = python_command.parents[1] / "bytecode"
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(SERVING), "PYTHONPYCACHEPREFIX": str(bytecode)}


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + _LONGEST_START_SECONDS
    while True:
        assert server.process.poll() is None, f"the server ended:\n{server.log.read_text()}"
        assert time.monotonic() < deadline, f"not ready:\n{server.log.read_text()}"
        try:
            server.get("/v2/health/ready")
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return


def run_client(python_command: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the LoadGen client to its end."""
    return subprocess.run(
        [python_command, "-m", "loadgen_client", *words],
        env=_environment(python_command),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
