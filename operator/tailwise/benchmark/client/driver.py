"""MLPerf LoadGen at many pods at once, all of them under load until the last is measured.

    python driver.py PLAN.json

One process a pod. All warm up, begin together, and go on asking after their own measured queries until every
other has its own, so that each latency was served beside all neighbours. Standard output gets lines of JSON
for each pod: first {"pod", "begin", "end", "valid"}, then {"pod", "latenciesMicroseconds": [...]} in parts.
Exit status 0 when each pod was measured. A plan with `seconds` is another thing: see `follow`.
"""

from __future__ import annotations

import importlib
import json
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_SAMPLES = 4
_PART = 200  # latencies a line: container logs cut long lines
_POLL_SECONDS = 0.2
_WORKERS = 4  # of the Server scenario: queries in flight that a pod may have
_KEPT_LINES = 5


def main(plan_file: Path) -> int:
    """Start one process a target, let all begin together, print what they measured."""
    plan = json.loads(plan_file.read_text())
    if plan.get("seconds"):
        return follow(plan)
    targets = plan["targets"]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        children = [
            subprocess.Popen(
                [sys.executable, __file__, str(plan_file), str(directory), str(number)],
                stderr=(directory / f"error-{number}").open("w"),
            )
            for number in range(len(targets))
        ]
        try:
            _wait(directory, children, "ready", len(targets))
            (directory / "go").touch()
            _wait(directory, children, "result", len(targets))
        finally:
            (directory / "stop").touch()
            for child in children:
                try:
                    child.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    child.kill()
        measured = 0
        for number, target in enumerate(targets):
            file = directory / f"result-{number}"
            if file.exists():
                measured += 1
                _print(json.loads(file.read_text()))
            else:
                said = (directory / f"error-{number}").read_text().strip().splitlines()[-_KEPT_LINES:]
                print(json.dumps({"pod": target["pod"], "error": " / ".join(said)[-800:]}), flush=True)
    return 0 if measured == len(targets) else 1


def _wait(directory: Path, children: list[subprocess.Popen[bytes]], kind: str, wanted: int) -> None:
    """Until each child has written its file of this kind, or has died without."""
    shown = time.monotonic()
    while True:
        done = sum((directory / f"{kind}-{number}").exists() for number in range(wanted))
        dead = sum(
            child.poll() is not None and not (directory / f"{kind}-{number}").exists()
            for number, child in enumerate(children)
        )
        if done + dead >= wanted:
            return
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            print(f"{kind}: {done} of {wanted} pods", file=sys.stderr, flush=True)
        time.sleep(_POLL_SECONDS)


def _print(result: dict[str, Any]) -> None:
    latencies = result.pop("latenciesMicroseconds")
    print(json.dumps(result), flush=True)
    for start in range(0, len(latencies), _PART):
        part = {"pod": result["pod"], "latenciesMicroseconds": latencies[start : start + _PART]}
        print(json.dumps(part, separators=(",", ":")), flush=True)


# ---- pods that may move


def follow(plan: dict[str, Any]) -> int:
    """Ask each pod in a closed loop for a set time, at whatever address the targets' file has for it now.

    The file is written from outside (kubectl exec) when a pod has moved. Each answered query is a pair
    [milliseconds since the beginning when it ended, microseconds it took].
    """
    file = Path(plan["targetsFile"])
    targets = {target["pod"]: target for target in plan["targets"]}
    answers: dict[str, list[tuple[int, int]]] = {name: [] for name in targets}
    importlib.import_module("numpy")  # its seconds are none of the time that is asked for
    importlib.import_module("inference_client")
    began = time.monotonic()
    until = began + plan["seconds"]
    print(json.dumps({"began": time.time()}), flush=True)
    threads = [
        threading.Thread(target=_follow_one, args=(name, targets, answers[name], began, until), daemon=True)
        for name in targets
    ]
    for thread in threads:
        thread.start()
    written = 0.0
    while time.monotonic() < until:
        if file.exists() and file.stat().st_mtime != written:
            written = file.stat().st_mtime
            targets.update({target["pod"]: target for target in json.loads(file.read_text())})
        time.sleep(_POLL_SECONDS)
    for name, pairs in answers.items():
        for start in range(0, len(pairs), _PART):
            part = {"pod": name, "answers": pairs[start : start + _PART]}
            print(json.dumps(part, separators=(",", ":")), flush=True)
    return 0


def _follow_one(
    name: str, targets: dict[str, Any], answers: list[tuple[int, int]], began: float, until: float
) -> None:
    import numpy as np  # noqa: PLC0415 - as in `child`
    from inference_client import (  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415
        Connection,
        make_request,
        random_arrays,
    )

    while time.monotonic() < until:
        target = targets[name]
        try:
            with Connection(target["url"], target["model"], 10.0) as connection:
                request = make_request(random_arrays(connection.inputs(), 1, 128, np.random.default_rng(0)))
                while time.monotonic() < until and targets[name]["url"] == target["url"]:
                    sent = time.perf_counter_ns()
                    connection.infer(request)
                    took = (time.perf_counter_ns() - sent) // 1000
                    answers.append((int(1000 * (time.monotonic() - began)), took))
        except Exception:  # the pod is on its way elsewhere: its new address will come
            time.sleep(_POLL_SECONDS)


# ---- one target


def child(plan_file: Path, directory: Path, number: int) -> None:
    """Warm one target up, wait for the others, measure, and keep it under load until told to stop."""
    import numpy as np  # noqa: PLC0415 - the parent has no use for it
    from inference_client import (  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415
        Connection,
        make_request,
        random_arrays,
    )

    plan = json.loads(plan_file.read_text())
    target = plan["targets"][number]
    with Connection(target["url"], target["model"], 600.0) as connection:
        connection.wait_until_ready(300.0)
        random = np.random.default_rng(0)
        kinds = connection.inputs()
        requests = [make_request(random_arrays(kinds, 1, 128, random)) for _ in range(_SAMPLES)]
        for query in range(plan["warmUpQueries"]):
            connection.infer(requests[query % _SAMPLES])
        (directory / f"ready-{number}").touch()
        while not (directory / "go").exists():
            if (directory / "stop").exists():
                return
            time.sleep(0.02)
        result = _measure(plan, target, connection, requests, Connection)
        temporary = directory / f"part-{number}"
        temporary.write_text(json.dumps(result))
        temporary.rename(directory / f"result-{number}")
        query = 0
        while plan["kind"] != "Server" and not (directory / "stop").exists():
            connection.infer(requests[query % _SAMPLES])
            query += 1


class _Driver:
    """Answers LoadGen's queries; what it raises would end the process without a word, so nothing leaves."""

    def __init__(self, loadgen: Any, connection: Any, requests: list[Any], extra: list[Any]) -> None:
        self._loadgen, self._connection, self._requests = loadgen, connection, requests
        self.latencies: list[int] = []
        self.failures: list[str] = []
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        for each in extra:
            threading.Thread(target=self._work, args=(each,), daemon=True).start()

    def issue(self, samples: list[Any]) -> None:
        """SingleStream and MultiStream: answer before returning, as one query."""
        began = time.perf_counter_ns()
        for sample in samples:
            self._infer(self._connection, sample)
        self.latencies.append((time.perf_counter_ns() - began) // 1000)
        self._complete(samples)

    def queue(self, samples: list[Any]) -> None:
        """Server: return at once."""
        for sample in samples:
            self._queue.put((sample.index, sample.id, time.perf_counter_ns()))

    def _work(self, connection: Any) -> None:
        while True:
            index, identity, began = self._queue.get()
            try:
                connection.infer(self._requests[index])
            except Exception as error:
                self.failures.append(str(error))
            with self._lock:
                self.latencies.append((time.perf_counter_ns() - began) // 1000)
            self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(identity, 0, 0)])

    def _infer(self, connection: Any, sample: Any) -> None:
        if self.failures:
            return
        try:
            connection.infer(self._requests[sample.index])
        except Exception as error:
            self.failures.append(str(error))

    def _complete(self, samples: list[Any]) -> None:
        self._loadgen.QuerySamplesComplete(
            [self._loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in samples]
        )


def _measure(
    plan: dict[str, Any], target: dict[str, str], connection: Any, requests: list[Any], connect: Any
) -> dict[str, Any]:
    import mlperf_loadgen as loadgen  # noqa: PLC0415

    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, plan["kind"])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = 0
    settings.min_query_count = settings.max_query_count = plan["queries"]
    server = plan["kind"] == "Server"
    if plan["kind"] == "MultiStream":
        settings.multi_stream_samples_per_query = plan["samplesPerQuery"]
    if server:
        settings.server_target_qps = plan["queriesPerSecond"]
    extra = [connect(target["url"], target["model"], 600.0) for _ in range(_WORKERS)] if server else []
    driver = _Driver(loadgen, connection, requests, extra)
    with tempfile.TemporaryDirectory(prefix="loadgen-") as directory:
        output = loadgen.LogOutputSettings()
        output.outdir, output.copy_summary_to_stdout = directory, False
        log = loadgen.LogSettings()
        log.log_output, log.enable_trace = output, False
        sut = loadgen.ConstructSUT(driver.queue if server else driver.issue, lambda: None)
        library = loadgen.ConstructQSL(_SAMPLES, _SAMPLES, lambda _samples: None, lambda _samples: None)
        begin = time.time()
        loadgen.StartTestWithLogSettings(sut, library, settings, log)
        end = time.time()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
        summary = (Path(directory) / "mlperf_log_summary.txt").read_text()
    if driver.failures:
        raise RuntimeError(driver.failures[0])
    return {
        "pod": target["pod"],
        "begin": begin,
        "end": end,
        "valid": re.search(r"^Result is\s*:\s*VALID\s*$", summary, re.M) is not None,
        "latenciesMicroseconds": driver.latencies,
    }


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(main(Path(sys.argv[1])))
    child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
