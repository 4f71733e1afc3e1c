"""Turns weightless ONNX skeletons into runnable models with seeded random weights.

usage: python make_model.py SKELETON.onnx.skel.gz [...] DIRECTORY

The graph is the real one, so its speed is too; what it answers means nothing. The same skeleton gives the
same file each time.
"""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, TensorProto, helper

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_SEED = 0
_SUFFIX = ".onnx.skel.gz"


def fill(tensor: TensorProto, random: np.random.Generator) -> None:
    """Give a float tensor without data small values, scaled so that activations neither vanish nor grow."""
    shape = tuple(tensor.dims)
    if tensor.raw_data or tensor.float_data or tensor.data_type not in _FLOATS or 0 in shape:
        return
    if len(shape) <= 1:
        # Biases, scales and running variances: denormals and divisions by zero stay away near one.
        values = random.uniform(0.9, 1.1, shape)
    else:
        inputs = max(1, int(np.prod(shape[1:])))
        values = random.standard_normal(shape, dtype=np.float32) / np.sqrt(inputs)
    tensor.raw_data = np.asarray(values).astype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).tobytes()


def fill_graph(graph: GraphProto, random: np.random.Generator) -> None:
    """Fill all initialisers and constants of a graph and of its subgraphs, in the order of the file."""
    for tensor in graph.initializer:
        fill(tensor, random)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                fill_graph(attribute.g, random)
            elif attribute.type == AttributeProto.TENSOR:
                fill(attribute.t, random)


def make(skeleton: Path, directory: Path) -> Path:
    """Write the runnable model and return its path. Raises ValueError for a name that is no skeleton's."""
    if not skeleton.name.endswith(_SUFFIX):
        raise ValueError(f"{skeleton}: a skeleton's name ends in {_SUFFIX}")
    model = onnx.load_from_string(gzip.decompress(skeleton.read_bytes()))
    fill_graph(model.graph, np.random.default_rng(_SEED))
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{skeleton.name.removesuffix(_SUFFIX)}.onnx"
    temporary = target.with_suffix(".new")
    onnx.save(model, str(temporary))
    temporary.replace(target)
    return target


def main() -> None:
    """Make a model of each skeleton."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    *skeletons, directory = map(Path, sys.argv[1:])
    for skeleton in skeletons:
        began = time.monotonic()
        target = make(skeleton, directory)
        print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
