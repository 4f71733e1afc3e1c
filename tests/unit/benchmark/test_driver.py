"""The clients' program with the real LoadGen, at servers that speak the protocol and take a set time."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tailwise.benchmark.answers import parse
from tailwise.benchmark.change import parse_answers
from tailwise.benchmark.manifests import DRIVER

EXAMPLES = Path(__file__).parents[3] / "examples" / "serving"
pytest.importorskip("mlperf_loadgen", reason="LoadGen has wheels for x86-64 alone")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, seconds: float, fails: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seconds, self.fails, self.answered = seconds, fails, 0


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
        self._answer(json.dumps({"inputs": [tensor]}).encode(), 200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        time.sleep(server.seconds)
        server.answered += 1
        self._answer(b"{}", 500 if server.fails else 200)

    def _answer(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def _served(**seconds: float) -> Iterator[dict[str, _Server]]:
    servers = {name: _Server(each, name == "broken") for name, each in seconds.items()}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield servers
    finally:
        for server in servers.values():
            server.shutdown()
            server.server_close()


def _ask(
    tmp_path: Path, servers: dict[str, _Server], kind: str, queries: int = 64
) -> subprocess.CompletedProcess[str]:
    plan = {
        "kind": kind,
        "queries": queries,
        "warmUpQueries": 1,
        "samplesPerQuery": 3,
        "queriesPerSecond": 50.0,
        "targets": [
            {"pod": name, "url": f"http://127.0.0.1:{server.server_port}", "model": "m"}
            for name, server in servers.items()
        ],
    }
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES), "TMPDIR": str(tmp_path)}
    return subprocess.run(
        [sys.executable, str(DRIVER), str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
        cwd=tmp_path,
    )


def test_every_pod_is_asked_until_the_slowest_is_measured(tmp_path: Path) -> None:
    with _served(fast=0.0, slow=0.05) as servers:
        done = _ask(tmp_path, servers, "SingleStream")
        answered = {name: server.answered for name, server in servers.items()}
    assert done.returncode == 0, done.stderr
    found = parse(done.stdout)
    assert {name: len(each.latencies_milliseconds) for name, each in found.items()} == {
        "fast": 64,
        "slow": 64,
    }
    assert all(each.valid for each in found.values())
    assert min(found["slow"].latencies_milliseconds) >= 50
    # The fast one had its own queries long before, and went on being asked.
    assert answered["fast"] > 64 + 8
    assert found["fast"].end < found["slow"].end


def test_a_query_of_several_samples_counts_once_and_takes_as_long_as_all_of_them(tmp_path: Path) -> None:
    with _served(pod=0.004) as servers:
        done = _ask(tmp_path, servers, "MultiStream")
    assert done.returncode == 0, done.stderr
    measured = parse(done.stdout)["pod"]
    assert len(measured.latencies_milliseconds) == 64
    assert min(measured.latencies_milliseconds) >= 12


def test_queries_that_arrive_at_random_are_all_answered_and_timed_from_their_arrival(tmp_path: Path) -> None:
    with _served(pod=0.005) as servers:
        done = _ask(tmp_path, servers, "Server")
    assert done.returncode == 0, done.stderr
    measured = parse(done.stdout)["pod"]
    assert len(measured.latencies_milliseconds) == 64
    assert min(measured.latencies_milliseconds) >= 5


def test_a_pod_that_has_moved_is_asked_at_its_new_address(tmp_path: Path) -> None:
    with _served(old=0.02, new=0.02) as servers:
        urls = {name: f"http://127.0.0.1:{server.server_port}" for name, server in servers.items()}
        targets = tmp_path / "targets.json"
        plan = {
            "seconds": 8,
            "targetsFile": str(targets),
            "targets": [{"pod": "w-0", "url": urls["old"], "model": "m"}],
        }
        file = tmp_path / "plan.json"
        file.write_text(json.dumps(plan))
        environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
        with subprocess.Popen(
            [sys.executable, str(DRIVER), str(file)], stdout=subprocess.PIPE, text=True, env=environment
        ) as clients:
            deadline = time.monotonic() + 120
            while not servers["old"].answered and clients.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            targets.write_text(json.dumps([{"pod": "w-0", "url": urls["new"], "model": "m"}]))
            output, _ = clients.communicate(timeout=120)
        answered = {name: server.answered for name, server in servers.items()}
    assert clients.returncode == 0
    assert answered["old"] > 0
    assert answered["new"] > 0
    found = parse_answers(output)["w-0"]
    assert 0 < len(found) <= sum(answered.values())
    assert all(took >= 20 for _, took in found)


def test_a_pod_that_fails_is_named_with_its_reason_and_the_others_are_measured(tmp_path: Path) -> None:
    with _served(whole=0.001, broken=0.001) as servers:
        done = _ask(tmp_path, servers, "SingleStream")
    assert done.returncode == 1
    found = parse(done.stdout)
    assert len(found["whole"].latencies_milliseconds) == 64
    assert found["broken"].error is not None
    assert "HTTP 500" in found["broken"].error
