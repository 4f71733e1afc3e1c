"""MLPerf LoadGen, SingleStream, against model servers over HTTP.

    python -m loadgen_client --url http://10.244.1.5:8080 --model resnet50 --queries 1024

Each target is measured after the one before it and gives one line of JSON on standard output; progress is on
standard error. The exit status is 0 only when every run is VALID by LoadGen's own judgement and no query
failed.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlperf_loadgen as loadgen
import numpy as np
from inference_client import Connection, InferenceError, Request, make_request, random_arrays

_SAMPLES = 8  # different inputs; more would only cost memory, the work does not depend on values
_SEED = 0
_PROGRESS_INTERVAL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured: latencies in nanoseconds in the order of queries, and LoadGen's summary."""

    latencies_nanoseconds: tuple[int, ...]
    failures: tuple[str, ...]
    valid: bool
    loadgen_p90_nanoseconds: int | None
    seconds: float


def nearest_rank(sorted_values: Sequence[int], percent: float) -> int:
    """The smallest value that at least ``percent`` per cent of all values do not exceed."""
    return sorted_values[max(0, math.ceil(percent / 100 * len(sorted_values)) - 1)]


class _Driver:
    """Answers LoadGen's queries, one at a time, through one connection."""

    def __init__(self, connection: Connection, requests: Sequence[Request], queries: int) -> None:
        self._connection = connection
        self._requests = requests
        self._queries = queries
        self._shown = time.monotonic()
        self.latencies_nanoseconds: list[int] = []
        self.failures: list[str] = []

    def issue(self, samples: Sequence[Any]) -> None:
        """Called by LoadGen; an exception here would end the process without a word, so none leaves."""
        for sample in samples:
            if not self.failures:  # once failed the run is worth nothing: end it fast
                self._query(sample.index)
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])
        self._progress()

    def _query(self, index: int) -> None:
        began = time.perf_counter_ns()
        try:
            self._connection.infer(self._requests[index])
        except InferenceError as error:
            self.failures.append(str(error))
            return
        self.latencies_nanoseconds.append(time.perf_counter_ns() - began)

    def _progress(self) -> None:
        now, done = time.monotonic(), len(self.latencies_nanoseconds)
        if now - self._shown >= _PROGRESS_INTERVAL_SECONDS and done:
            self._shown = now
            p90 = nearest_rank(sorted(self.latencies_nanoseconds), 90) / 1e6
            where = f"{self._connection.model} at {self._connection.url}"
            _say(f"{where}: {done} of {self._queries}, P90 {p90:.1f} ms")


def run(connection: Connection, requests: Sequence[Request], queries: int) -> Run:
    """Have LoadGen send ``queries`` queries, each after the answer to the one before."""
    driver = _Driver(connection, requests, queries)
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = queries
    settings.min_duration_ms = 0
    with tempfile.TemporaryDirectory(prefix="loadgen-") as directory:
        output = loadgen.LogOutputSettings()
        output.outdir = directory
        output.copy_summary_to_stdout = False
        log = loadgen.LogSettings()
        log.log_output = output
        log.enable_trace = False
        sut = loadgen.ConstructSUT(driver.issue, lambda: None)
        library = loadgen.ConstructQSL(
            len(requests), len(requests), lambda _samples: None, lambda _samples: None
        )
        began = time.monotonic()
        try:
            loadgen.StartTestWithLogSettings(sut, library, settings, log)
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(sut)
        seconds = time.monotonic() - began
        summary = (Path(directory) / "mlperf_log_summary.txt").read_text()
    p90 = re.search(r"^90(?:\.0+)? ?(?:%|th) ?(?:percentile )?latency \(ns\)\s*:\s*(\d+)", summary, re.M)
    valid = re.search(r"^Result is\s*:\s*VALID\s*$", summary, re.M) is not None
    return Run(
        tuple(driver.latencies_nanoseconds),
        tuple(driver.failures),
        valid and not driver.failures,
        int(p90[1]) if p90 else None,
        seconds,
    )


def report(connection: Connection, measured: Run) -> dict[str, Any]:
    """The line printed for a target; percentiles by nearest rank over all queries, None without any."""
    ordered = sorted(measured.latencies_nanoseconds)
    percentiles = {
        f"p{percent}Milliseconds": round(nearest_rank(ordered, percent) / 1e6, 3) if ordered else None
        for percent in (50, 90, 99)
    }
    loadgen_p90 = measured.loadgen_p90_nanoseconds
    return {
        "url": connection.url,
        "model": connection.model,
        "scenario": "SingleStream",
        "queries": len(ordered),
        "valid": measured.valid,
        **percentiles,
        "meanMilliseconds": round(sum(ordered) / len(ordered) / 1e6, 3) if ordered else None,
        "loadgenP90Milliseconds": round(loadgen_p90 / 1e6, 3) if loadgen_p90 is not None else None,
        "seconds": round(measured.seconds, 3),
        "failures": list(measured.failures),
    }


def measure(arguments: argparse.Namespace, url: str) -> tuple[dict[str, Any], Run]:
    """Wait for a target, warm it up, and run. Raises InferenceError when it cannot be reached."""
    with Connection(url, arguments.model, arguments.timeout_seconds) as connection:
        connection.wait_until_ready(arguments.wait_seconds)
        random = np.random.default_rng(_SEED)
        kinds = connection.inputs()
        requests = [
            make_request(random_arrays(kinds, arguments.batch_size, arguments.free_size, random))
            for _ in range(_SAMPLES)
        ]
        _say(f"{connection.model} at {connection.url}: {arguments.warm_up} warm-up queries")
        for number in range(arguments.warm_up):
            connection.infer(requests[number % len(requests)])
        measured = run(connection, requests, arguments.queries)
        return report(connection, measured), measured


def main(words: Sequence[str] | None = None) -> int:
    """Measure each target and return the exit status."""
    arguments = _parser().parse_args(words)
    all_valid = True
    for url in arguments.url:
        try:
            line, measured = measure(arguments, url)
        except (InferenceError, ValueError) as error:
            _say(f"loadgen_client: {error}")
            all_valid = False
            continue
        print(json.dumps(line), flush=True)
        all_valid = all_valid and measured.valid
        if arguments.latencies is not None:
            with arguments.latencies.open("a") as file:
                for latency in measured.latencies_nanoseconds:
                    file.write(f"{line['url']}\t{line['model']}\t{latency}\n")
    return 0 if all_valid else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="loadgen_client", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--url", nargs="+", required=True, metavar="URL", help="http://HOST:PORT or HOST:PORT"
    )
    parser.add_argument("--model", required=True, help="name the model is served under")
    parser.add_argument("--queries", type=_count, default=1024, help="a target (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=16, help="queries before (default: %(default)s)")
    parser.add_argument("--batch-size", type=_count, default=1, help="items a query (default: %(default)s)")
    parser.add_argument(
        "--free-size", type=_count, default=128, help="size of free axes but the first (default: %(default)s)"
    )
    parser.add_argument("--timeout-seconds", type=float, default=120.0, help="for one query")
    parser.add_argument("--wait-seconds", type=float, default=120.0, help="until a target must be ready")
    parser.add_argument("--latencies", type=Path, help="append URL, model and nanoseconds of each query here")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be above 0, not {value}")
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
