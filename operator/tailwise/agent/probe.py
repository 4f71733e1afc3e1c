"""Measures what one core of this machine does: matrix products, memory, and the inference runtime itself.

Runs as a process of its own (``python -m tailwise.agent.probe``) that prints JSON, so that its thread
settings and its memory are gone with it. Everything is timed by the CPU time of the measuring thread: a quota
or a neighbour that takes the processor away does not lower a figure. Repetitions of all parts alternate
and the lower quartile of the times counts: what neighbours do to the caches can only make a repetition
slower, and must not become the node's speed. Under 2 s of CPU.

The runtime's own speed is what the prior uses: it chooses its kernels by the processor's instruction
sets, whatever BLAS is told by the environment (OPENBLAS_CORETYPE and the like).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tailwise.api.hardware import MeasuredSpeed

PROBE_VERSION = 1
TIMEOUT_SECONDS = 120.0
"""Wall clock: a node that is throttled to a fiftieth of a core still answers."""

_REPETITIONS = 15
_ALL_CORES_MILLISECONDS = 400.0
_MATRIX_SIDE = 384
_COPY_BYTES = 48 * 2**20
_CHANNELS, _SIDE, _CONVOLUTIONS = 64, 28, 6
_CHAIN, _CHAIN_RUNS = 200, 30


class ProbeError(RuntimeError):
    """The probe could not measure this machine."""


def measure(cores: int) -> MeasuredSpeed:
    """Run the probe in a process of its own, with one thread in every library.

    Raises:
        ProbeError: it did not end in time or ended with an error; the message holds its last words.
    """
    environment = os.environ | dict.fromkeys(
        ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tailwise.agent.probe", str(cores)],
            env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"the probe did not end within {TIMEOUT_SECONDS:.0f} s") from error
    if done.returncode:
        raise ProbeError(f"the probe ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return MeasuredSpeed.model_validate(json.loads(done.stdout.splitlines()[-1]))


def _probe(cores: int) -> dict[str, float]:
    import numpy as np  # noqa: PLC0415 - in the probe's own process alone, after its thread settings

    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((_MATRIX_SIDE, _MATRIX_SIDE), dtype=np.float32)
    product = np.empty_like(matrix)
    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.zeros_like(source)
    convolutions, image = _runtime(_convolution_graph(), (1, _CHANNELS, _SIDE, _SIDE))
    chain, vector = _runtime(_chain_graph(), (1, 16))
    parts: dict[str, Callable[[], object]] = {
        "product": lambda: [np.dot(matrix, matrix, product) for _ in range(4)],
        "copy": lambda: np.copyto(target, source),
        "convolutions": lambda: convolutions.run(None, {"x": image}),
        "chain": lambda: [chain.run(None, {"x": vector}) for _ in range(_CHAIN_RUNS)],
    }
    seconds = _alternate(parts)
    product_flops = 4 * 2.0 * _MATRIX_SIDE**3
    figures = {
        "gflopsPerCore": product_flops / seconds["product"] / 1e9,
        "copyGigabytesPerSecondPerCore": _COPY_BYTES / seconds["copy"] / 1e9,
        "runtimeGflopsPerCore": _convolution_flops() / seconds["convolutions"] / 1e9,
        "operatorOverheadNanoseconds": seconds["chain"] / _CHAIN_RUNS / _CHAIN * 1e9,
    }
    if cores > 1:
        budget = _ALL_CORES_MILLISECONDS / 1e3 / cores / 2

        def multiply() -> Callable[[], object]:
            own = np.empty_like(matrix)
            return lambda: np.dot(matrix, matrix, own)

        def copy() -> Callable[[], object]:
            size = max(2**20, _COPY_BYTES // cores)
            own_source, own_target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
            return lambda: np.copyto(own_target, own_source)

        products = _at_once(cores, multiply, budget)
        copies = _at_once(cores, copy, budget)
        figures["gflopsAllCores"] = products * 2.0 * _MATRIX_SIDE**3 / 1e9
        figures["copyGigabytesPerSecondAllCores"] = copies * max(2**20, _COPY_BYTES // cores) / 1e9
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _alternate(parts: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Lower quartile of each part's CPU seconds, the parts taking turns."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for part in parts.values():
        part()
    for _ in range(_REPETITIONS):
        for name, part in parts.items():
            start = time.thread_time()
            part()
            times[name].append(time.thread_time() - start)
    return {name: statistics.quantiles(values, n=4)[0] for name, values in times.items()}


def _at_once(cores: int, prepare: Callable[[], Callable[[], object]], budget_seconds: float) -> float:
    """Calls a second of all cores together: the sum of what each thread did in its own CPU time."""
    rates: list[float] = []
    ready = threading.Barrier(cores)

    def work() -> None:
        call = prepare()
        call()
        ready.wait()
        start, calls = time.thread_time(), 0
        while calls < 1 or time.thread_time() - start < budget_seconds:
            call()
            calls += 1
        rates.append(calls / (time.thread_time() - start))

    threads = [threading.Thread(target=work) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def _convolution_flops() -> float:
    return 2.0 * 9 * _CHANNELS * _CHANNELS * _SIDE * _SIDE * _CONVOLUTIONS


def _convolution_graph() -> bytes:
    """A stack of 3x3 convolutions with ReLU, the size of a classifier's middle."""
    import numpy as np  # noqa: PLC0415
    from onnx import helper, numpy_helper  # noqa: PLC0415

    weights = np.random.default_rng(0).standard_normal((_CHANNELS, _CHANNELS, 3, 3), dtype=np.float32) / 24
    nodes, last = [], "x"
    for index in range(_CONVOLUTIONS):
        nodes.append(helper.make_node("Conv", [last, "w"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    return _model(nodes, last, (1, _CHANNELS, _SIDE, _SIDE), [numpy_helper.from_array(weights, "w")])


def _chain_graph() -> bytes:
    """A chain of operators over 16 elements: nothing but the price of calling each."""
    from onnx import helper  # noqa: PLC0415

    nodes, last = [], "x"
    for index in range(_CHAIN):
        nodes.append(helper.make_node("Abs" if index % 2 else "Neg", [last], [f"v{index}"]))
        last = f"v{index}"
    return _model(nodes, last, (1, 16), [])


def _model(nodes: list[Any], output: str, shape: tuple[int, ...], weights: list[Any]) -> bytes:
    from onnx import TensorProto, helper  # noqa: PLC0415

    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _runtime(model: bytes, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """A session with one thread, as the prior's coefficients were measured, and its input."""
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session, np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


if __name__ == "__main__":
    print(json.dumps(_probe(int(sys.argv[1]))))
