"""How many parameters a file holds, as it stores them.

Parameters are initialisers, quantised ones included. Integers of 64 bits, booleans and strings are
axes, indices and names, not learned, and are left out. Weights that an exporter put into Constant nodes
count when an operator takes them as its weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from tailwise.models.graph import byte_size, elements

_NO_PARAMETERS = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING})
_CONSUMERS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "BatchNormalization",
        "LayerNormalization",
        "PRelu",
        "LSTM",
        "GRU",
        "RNN",
        "Gather",
    }
)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a model; ``external_bytes`` of them lie in other files than the graph."""

    count: int
    bytes: int
    external_bytes: int
    precision: str


def count_parameters(model: onnx.ModelProto) -> Parameters:
    """Count what the graph and its bodies hold; tensors need dimensions and type only."""
    count, size, external = 0, 0, 0
    by_type: Counter[int] = Counter()
    for tensor in _tensors(model.graph):
        n = elements(tensor)
        stored = byte_size(tensor.data_type, n)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external += stored
        if tensor.data_type in _NO_PARAMETERS:
            continue
        count, size = count + n, size + stored
        by_type[tensor.data_type] += stored
    most = by_type.most_common(1)
    kind = most[0][0] if most else onnx.TensorProto.FLOAT
    return Parameters(count, size, external, _name(kind))


def _name(element_type: int) -> str:
    """The type's name as numpy writes it."""
    if element_type not in onnx.TensorProto.DataType.values():
        return f"type {element_type}"  # newer than this version, or no type at all
    name = str(onnx.TensorProto.DataType.Name(element_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initialisers and weights in Constant nodes, of a graph and its bodies."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
    consumed = {name for node in graph.node if node.op_type in _CONSUMERS for name in node.input}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and node.output[0] in consumed:
                yield attribute.t
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
