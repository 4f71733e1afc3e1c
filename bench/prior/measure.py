"""Measures the CPU time of one query of ONNX models on one core: the calibration data of the prior.

usage: python -m bench.prior.measure OUT.json MODEL.onnx [MODEL.onnx ...]

CPU time of the calling thread, one intra-op thread: what other processes on the machine do changes it by a
few per cent only. Each model is measured in rounds spread over the run and the least of the rounds' medians
is kept, so that a burst of neighbours is not taken for the model's own cost. Results are added to OUT.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.prior.inputs import random_inputs

ROUND_SECONDS = 1.2
ROUNDS = 2


def session(path: Path, threads: int, batch_size: int = 1) -> tuple[Any, dict[str, Any]]:
    """An ONNX Runtime session of the model as a server opens it, and inputs for one query."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return opened, random_inputs(opened, path, batch_size)


def cpu_milliseconds(path: Path, batch_size: int = 1) -> tuple[float, float]:
    """Median and 90th percentile of the CPU time of a query in milliseconds, one thread."""
    opened, inputs = session(path, 1, batch_size)
    for _ in range(3):
        opened.run(None, inputs)
    times: list[float] = []
    end = time.thread_time() + ROUND_SECONDS
    while (time.thread_time() < end or len(times) < 7) and len(times) < 2000:
        start = time.thread_time()
        opened.run(None, inputs)
        times.append((time.thread_time() - start) * 1e3)
    return statistics.median(times), float(np.quantile(times, 0.9))


def main(arguments: list[str]) -> int:
    """Measure every model named and add it to the output."""
    out, paths = Path(arguments[0]), [Path(a) for a in arguments[1:]]
    measured: dict[str, dict[str, float]] = json.loads(out.read_text()) if out.exists() else {}
    for _ in range(ROUNDS):
        for path in paths:
            try:
                median, p90 = cpu_milliseconds(path)
            except Exception as error:
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            old = measured.get(path.stem, {"median": float("inf"), "p90": float("inf")})
            measured[path.stem] = {"median": min(old["median"], median), "p90": min(old["p90"], p90)}
            print(f"{path.stem:36s} {median:10.3f} ms  p90 {p90:10.3f} ms", flush=True)
            out.write_text(json.dumps(measured, indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
