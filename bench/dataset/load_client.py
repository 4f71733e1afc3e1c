"""Runs in a pod of the serving image: MLPerf LoadGen on demand, each query's latency as the answer.

POST / with {"url", "model", "queries", "seconds", "most_seconds", "requests_per_second", "warm_up"} runs
SingleStream, or Server (Poisson arrivals) where a rate is given, and answers {"latencies", "seconds",
"scenario", "failures"}: milliseconds in the order of completion. One run at a time.
"""

from __future__ import annotations

import json
import queue
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import mlperf_loadgen as loadgen
import numpy as np
from inference_client import (  # type: ignore[import-not-found]  # of the serving image
    Connection,
    InferenceError,
    Request,
    make_request,
    random_arrays,
)

PORT = 8090
_WORKERS = 16
_SAMPLES = 4
_TIMEOUT_SECONDS = 60.0


class Requests:
    """The requests of each model, made once."""

    def __init__(self) -> None:
        self._made: dict[str, list[Request]] = {}

    def of(self, connection: Connection) -> list[Request]:
        """Random inputs as the model's own metadata ask for them."""
        if connection.model not in self._made:
            kinds = connection.inputs()
            random = np.random.default_rng(0)
            self._made[connection.model] = [
                make_request(random_arrays(kinds, 1, 128, random)) for _ in range(_SAMPLES)
            ]
        return self._made[connection.model]


class Driver:
    """Answers LoadGen's queries: one at a time in its own thread, or many at once by workers."""

    def __init__(self, url: str, model: str, requests: list[Request], workers: int) -> None:
        self._requests = requests
        self.latencies: list[float] = []
        self.failures: list[str] = []
        self._queue: queue.SimpleQueue[tuple[int, int, int] | None] = queue.SimpleQueue()
        self._connections = [Connection(url, model, _TIMEOUT_SECONDS) for _ in range(max(1, workers))]
        # The connection used last is used next: one that rests begins slowly, as TCP has it.
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()
        for connection in self._connections:
            self._idle.put(connection)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def issue(self, samples: list[Any]) -> None:
        """Called by LoadGen; no exception leaves, for it would end the process without a word."""
        arrived = time.perf_counter_ns()
        for sample in samples:
            if self._threads:
                self._queue.put((sample.id, sample.index, arrived))
            else:
                self._query(self._connections[0], sample.id, sample.index, arrived)

    def close(self) -> None:
        """End the workers and their connections."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection.__exit__(None, None, None)

    def _work(self) -> None:
        while (query := self._queue.get()) is not None:
            connection = self._idle.get()
            self._query(connection, *query)
            self._idle.put(connection)

    def _query(self, connection: Connection, identity: int, index: int, arrived: int) -> None:
        if len(self.failures) < 3:  # once failed the run is worth nothing: end it fast
            try:
                connection.infer(self._requests[index])
            except InferenceError as error:
                self.failures.append(str(error))
            else:
                self.latencies.append((time.perf_counter_ns() - arrived) / 1e6)
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(identity, 0, 0)])


def run(plan: dict[str, Any], known: Requests) -> dict[str, Any]:
    """One run of LoadGen against one server."""
    rate = plan.get("requests_per_second")
    with Connection(plan["url"], plan["model"], _TIMEOUT_SECONDS) as connection:
        connection.wait_until_ready(_TIMEOUT_SECONDS)
        requests = known.of(connection)
        for number in range(plan["warm_up"]):
            connection.infer(requests[number % len(requests)])
    settings = loadgen.TestSettings()
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.schedule_rng_seed = plan["seed"]
    if rate:
        settings.scenario = loadgen.TestScenario.Server
        settings.server_target_qps = rate
        settings.server_target_latency_ns = 10**10
        settings.server_coalesce_queries = False
        settings.min_query_count = settings.max_query_count = plan["queries"]
        settings.min_duration_ms = 0
    else:
        settings.scenario = loadgen.TestScenario.SingleStream
        settings.min_query_count = plan["queries"]
        settings.min_duration_ms = round(1000 * plan["seconds"])
    settings.max_duration_ms = round(1000 * plan["most_seconds"])
    driver = Driver(plan["url"], plan["model"], requests, _WORKERS if rate else 0)
    with tempfile.TemporaryDirectory(prefix="loadgen-") as directory:
        output = loadgen.LogOutputSettings()
        output.outdir = directory
        output.copy_summary_to_stdout = False
        log = loadgen.LogSettings()
        log.log_output = output
        log.enable_trace = False
        sut = loadgen.ConstructSUT(driver.issue, lambda: None)
        library = loadgen.ConstructQSL(len(requests), len(requests), lambda _: None, lambda _: None)
        began_at, began = time.time(), time.monotonic()
        try:
            loadgen.StartTestWithLogSettings(sut, library, settings, log)
        finally:
            seconds = time.monotonic() - began
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(sut)
            driver.close()
    return {
        "scenario": "Server" if rate else "SingleStream",
        "latencies": [round(each, 4) for each in driver.latencies],
        "failures": driver.failures,
        "began": began_at,
        "seconds": seconds,
    }


class Handler(BaseHTTPRequestHandler):
    """POST runs a plan, GET says that it listens."""

    requests = Requests()

    def do_GET(self) -> None:
        """Ready."""
        self._answer(200, {})

    def do_POST(self) -> None:
        """Run LoadGen and answer when it has ended."""
        plan = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            self._answer(200, run(plan, self.requests))
        except (InferenceError, ValueError, KeyError) as error:
            self._answer(500, {"error": repr(error)})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
        """Say nothing."""

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    HTTPServer(("", PORT), Handler).serve_forever()
