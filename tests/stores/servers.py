"""Stores as processes on loopback, each for the length of a block; their files live in a directory given."""

import base64
import hmac
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.cluster.binaries import program
from tests.cluster.ports import free_port
from tests.stores import programs

_LONGEST_START_SECONDS = 60.0
# Azurite's own account, which its documentation publishes.
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def s3(directory: Path) -> Iterator[str]:
    """Moto's server of S3."""
    port = free_port("127.0.0.1", set())
    command = [str(programs.python()), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running("moto", command, port, directory):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def gcs(directory: Path) -> Iterator[str]:
    """fake-gcs-server."""
    port = free_port("127.0.0.1", set())
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(program("fake-gcs-server")), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
        *("-backend", "memory", "-external-url", url, "-public-host", f"127.0.0.1:{port}"),
    ]
    with _running("fake-gcs-server", command, port, directory):
        yield url


@contextmanager
def azure(directory: Path) -> Iterator[str]:
    """Azurite's blob service; the URL ends in its account, as Azurite's URLs do."""
    port = free_port("127.0.0.1", set())
    command = [
        *(*programs.azurite(), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--location", str(directory / "azurite"), "--skipApiVersionCheck", "--disableTelemetry"),
    ]
    with _running("azurite", command, port, directory):
        yield f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"


def make_container(url: str, name: str) -> None:
    """Create a container; signed by hand (Shared Key), for the library that reads makes none."""
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = f"x-ms-date:{now}\nx-ms-version:2021-08-06"
    text = f"PUT{chr(10) * 12}{headers}\n/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{name}\nrestype:container"
    digest = hmac.digest(base64.b64decode(AZURITE_KEY), text.encode(), "sha256")
    request = urllib.request.Request(f"{url}/{name}?restype=container", method="PUT")  # noqa: S310
    request.add_header("x-ms-date", now)
    request.add_header("x-ms-version", "2021-08-06")
    request.add_header("Authorization", f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(digest).decode()}")
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


@contextmanager
def registry(directory: Path, *, password_file: Path | None = None) -> Iterator[str]:
    """Distribution's registry; gives HOST:PORT. With a htpasswd file it asks for a password."""
    port = free_port("127.0.0.1", set())
    configuration: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if password_file is not None:
        configuration["auth"] = {"htpasswd": {"realm": "test", "path": str(password_file)}}
    file = directory / f"registry-{port}.json"  # JSON is YAML
    file.write_text(json.dumps(configuration))
    with _running("registry", [str(program("registry")), "serve", str(file)], port, directory):
        yield f"127.0.0.1:{port}"


@contextmanager
def _running(name: str, command: Sequence[str], port: int, directory: Path) -> Iterator[None]:
    log = directory / f"{name}-{port}.log"
    environment: Mapping[str, str] = {**os.environ, "OTEL_TRACES_EXPORTER": "none", "HOME": str(directory)}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=directory, env=environment)
    try:
        _wait(name, process, port, log)
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(name: str, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + _LONGEST_START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"{name} ended:\n{log.read_text(errors='replace')[-2000:]}"
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"{name} does not listen:\n{log.read_text(errors='replace')[-2000:]}")
