"""One counter on one file: ``python -m bench.profiles.counters COUNTER FILE SHAPES`` prints JSON.

Time is from the call to the result, with everything imported before. Memory is the most the process has
held (VmHWM of proc_pid_status(5)), and what it held when imports were done.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]
Count = Callable[[Path, Shapes], int]
"""FLOPs of convolutions and matrix products of a file, its inputs having these shapes."""

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def _tailwise() -> Count:
    from tailwise.models.inspection import ChildRequest  # noqa: PLC0415 -- imports are measured apart
    from tailwise.models.reading import profile_of  # noqa: PLC0415

    def count(path: Path, _shapes: Shapes) -> int:
        profile = profile_of(ChildRequest(url=path.as_uri(), allow_files=True, batch_size=1))
        return profile.flops_by_kind.convolution + profile.flops_by_kind.matmul

    return count


def _onnx() -> Count:
    """What one writes with onnx alone: load, infer shapes, multiply sizes; unknown sizes count nothing."""
    import onnx  # noqa: PLC0415

    def count(path: Path, shapes: Shapes) -> int:
        model = onnx.load(path)
        for info in model.graph.input:
            _bind(info, shapes)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        graph = model.graph
        sizes: dict[str, list[int]] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        for info in [*graph.input, *graph.value_info, *graph.output]:
            dims = info.type.tensor_type.shape.dim
            sizes[info.name] = [dim.dim_value for dim in dims]
        return 2 * sum(_multiplied(node, sizes) for node in graph.node if node.op_type in _PRODUCTS)

    return count


def _bind(info: Any, shapes: Shapes) -> None:
    for dim, size in zip(info.type.tensor_type.shape.dim, shapes.get(info.name, ()), strict=False):
        dim.dim_value = size


def _multiplied(node: Any, sizes: dict[str, list[int]]) -> int:
    """Multiply-accumulates as their definitions have them, where every size is known."""
    operands = [sizes.get(name, []) for name in node.input[:2]]
    result = sizes.get(node.output[0], [])
    if not all(operands) or not result:
        return 0
    left, right = operands
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    flipped = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(result) * (left[0] if flipped else left[-1])


def _onnx_tool() -> Count:
    import numpy as np  # noqa: PLC0415
    import onnx_tool  # noqa: PLC0415

    def count(path: Path, shapes: Shapes) -> int:
        graph = onnx_tool.loadmodel(str(path), {"verbose": False}).graph
        graph.graph_reorder_nodes()
        whole = ("ids", "mask")
        inputs = {
            name: np.zeros(shape, np.int64 if name.endswith(whole) else np.float32)
            for name, shape in shapes.items()
        }
        graph.shape_infer(inputs)
        graph.profile()
        nodes = graph.nodemap.values()
        return int(2 * sum(node.macs[0] for node in nodes if node.op_type in _PRODUCTS))

    return count


def _onnx_opcounter() -> Count:
    """Its one figure is for all operators; a multiply-accumulate is two FLOPs for it as for others."""
    import onnx  # noqa: PLC0415
    from onnx_opcounter import calculate_macs  # noqa: PLC0415

    def count(path: Path, _shapes: Shapes) -> int:
        return int(2 * calculate_macs(onnx.load(path)))

    return count


COUNTERS: dict[str, Callable[[], Count]] = {
    "tailwise": _tailwise,
    "onnx": _onnx,
    "onnx-tool": _onnx_tool,
    "onnx-opcounter": _onnx_opcounter,
}


def _mebibytes(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else math.nan


def measure(counter: str, path: Path, shapes: Shapes) -> dict[str, Any]:
    """Count once; what a counter raises becomes its ``failure``."""
    count = COUNTERS[counter]()
    before = _mebibytes("VmRSS")
    begin = time.perf_counter()
    flops: int | None = None
    failure = ""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            flops = count(path, shapes)
    except Exception as error:  # Whatever it is, it is the counter's answer.
        failure = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    return {
        "flops": flops,
        "failure": failure,
        "seconds": time.perf_counter() - begin,
        "peakMebibytes": _mebibytes("VmHWM"),
        "importedMebibytes": before,
    }


def _main(words: Iterable[str]) -> None:
    counter, path, shapes = words
    read = {name: tuple(shape) for name, shape in json.loads(shapes).items()}
    print(json.dumps(measure(counter, Path(path), read)))


if __name__ == "__main__":
    _main(sys.argv[1:])
