"""Gives a model that was stored without weights random ones, so that it runs and has its true size.

    python -m tests.models.rehydrate resnet50 resnet50.onnx

The values are made for a runtime not to overflow on: matrices are scaled by the square root of what they
sum over, vectors (biases, scales, variances) lie around one. The same name gives the same file.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

DIRECTORY = Path(__file__).parent
_SUFFIX = ".onnx.skel.gz"
_FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
)


def names() -> list[str]:
    """The models there are."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in DIRECTORY.glob(f"*{_SUFFIX}"))


def reference() -> dict[str, dict[str, Any]]:
    """What PyTorch and torchvision say of them: parameters, FLOPs of convolutions and products."""
    loaded: dict[str, dict[str, Any]] = json.loads((DIRECTORY / "reference.json").read_text())
    return loaded


def skeleton(name: str) -> onnx.ModelProto:
    """The model without its weights."""
    return onnx.load_from_string(gzip.decompress((DIRECTORY / f"{name}{_SUFFIX}").read_bytes()))


def rehydrated(name: str) -> onnx.ModelProto:
    """The model with weights of its own size."""
    model = skeleton(name)
    generator = np.random.default_rng(seed=len(name))
    for tensor in _weights(model.graph):
        _fill(tensor, generator)
    return model


def write(name: str, path: Path) -> Path:
    """Write the model with weights to a file."""
    onnx.save(rehydrated(name), path)
    return path


def _weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor a graph and the bodies in it hold."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _weights(attribute.g)


def _fill(tensor: onnx.TensorProto, generator: np.random.Generator) -> None:
    """Random values for a float tensor that has none."""
    count = math.prod(tensor.dims)
    held = tensor.raw_data or tensor.float_data or tensor.int32_data or tensor.double_data
    if held or not count or tensor.data_type not in _FLOATS:
        return
    if len(tensor.dims) > 1:
        values = generator.standard_normal(count, dtype=np.float32)
        values /= math.sqrt(max(1, math.prod(tensor.dims[1:])))
    else:
        values = generator.uniform(0.9, 1.1, count).astype(np.float32)
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.raw_data = values.astype(kind).tobytes()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in names():
        sys.exit(
            f"usage: python -m tests.models.rehydrate NAME OUT.onnx\nNAME is one of: {', '.join(names())}"
        )
    write(sys.argv[1], Path(sys.argv[2]))
