"""Random graphs cost what is multiplied when they are executed node by node by their definitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from tailwise.api.profile import Completeness
from tests.unit.models import definitions
from tests.unit.models.brute_force import run, values
from tests.unit.models.counting import counting, times
from tests.unit.models.graphs import model, node, profile

MOST_ELEMENTS = 400
"""Larger results would take the definitions seconds."""


@dataclass
class Growing:
    """A graph while nodes are added: the last value's name and shape, and all weights so far."""

    shape: tuple[int, ...]
    name: str = "x"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)

    def weight(self, content: Any) -> str:
        """Store a weight; returns its name."""
        name = f"w{len(self.weights)}"
        self.weights[name] = content
        return name

    def fresh(self) -> str:
        """A name for a new value."""
        return f"v{len(self.nodes)}"

    def add(self, op_type: str, *more: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> None:
        """Append a node that takes the last value, and becomes it."""
        name = self.fresh()
        self.nodes.append(node(op_type, [self.name, *more], [name], **attributes))
        self.name, self.shape = name, self.shape if shape is None else shape


def convolve(graph: Growing, draw: st.DrawFn) -> None:
    channels, kernel = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, graph.shape[1]]))
    w = values(channels * groups, graph.shape[1] // groups, kernel, kernel)
    sizes = tuple(size - kernel + 3 for size in graph.shape[2:])
    graph.add("Conv", graph.weight(w), pads=[1] * 4, group=groups, shape=(graph.shape[0], w.shape[0], *sizes))


def deconvolve(graph: Growing, draw: st.DrawFn) -> None:
    w = values(graph.shape[1], draw(st.integers(1, 3)), 2, 2)
    sizes = tuple(2 * size for size in graph.shape[2:])
    graph.add("ConvTranspose", graph.weight(w), strides=[2, 2], shape=(graph.shape[0], w.shape[1], *sizes))


def pool(graph: Growing, draw: st.DrawFn) -> None:
    op_type = draw(st.sampled_from(["MaxPool", "AveragePool", "GlobalAveragePool"]))
    if op_type.startswith("Global"):
        graph.add(op_type, shape=(*graph.shape[:2], 1, 1))
    else:
        sizes = tuple(size - 1 for size in graph.shape[2:])
        graph.add(op_type, kernel_shape=[2, 2], shape=(*graph.shape[:2], *sizes))


def normalise(graph: Growing, _draw: st.DrawFn) -> None:
    names = [graph.weight(np.abs(values(graph.shape[1])) + 0.5) for _ in range(4)]
    graph.add("BatchNormalization", *names)


def activate(graph: Growing, draw: st.DrawFn) -> None:
    graph.add(draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Softmax", "Erf", "Neg", "Abs"])))


def turn(graph: Growing, draw: st.DrawFn) -> None:
    order = draw(st.permutations(range(len(graph.shape))))
    graph.add("Transpose", perm=list(order), shape=tuple(graph.shape[axis] for axis in order))


def join(graph: Growing, _draw: st.DrawFn) -> None:
    graph.add("Concat", graph.name, axis=1, shape=(graph.shape[0], 2 * graph.shape[1], *graph.shape[2:]))


def add_itself(graph: Growing, _draw: st.DrawFn) -> None:
    graph.add("Add", graph.name)


def flatten_by_its_shape(graph: Growing, _draw: st.DrawFn) -> None:
    """As exporters write it: Shape, Gather, Concat, Reshape."""
    source, shape = graph.name, graph.shape
    zero, rest = graph.weight(np.array([0], np.int64)), graph.weight(np.array([-1], np.int64))
    graph.add("Shape")
    graph.add("Gather", zero)
    graph.add("Concat", rest, axis=0)
    target = graph.name
    graph.nodes.append(node("Reshape", [source, target], [graph.fresh()]))
    graph.name = str(graph.nodes[-1].output[0])
    graph.shape = (shape[0], int(np.prod(shape[1:])))


def multiply(graph: Growing, draw: st.DrawFn) -> None:
    w = values(graph.shape[-1], draw(st.integers(1, 4)))
    graph.add("MatMul", graph.weight(w), shape=(*graph.shape[:-1], w.shape[1]))


def attend_to_itself(graph: Growing, _draw: st.DrawFn) -> None:
    """A product with its own transposed form: both operands come from the input."""
    source, shape = graph.name, graph.shape
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    graph.add("Transpose", perm=order)
    graph.nodes.append(node("MatMul", [source, graph.name], [graph.fresh()]))
    graph.name, graph.shape = str(graph.nodes[-1].output[0]), (*shape[:-1], shape[-2])


def connect_fully(graph: Growing, draw: st.DrawFn) -> None:
    w = values(draw(st.integers(1, 4)), graph.shape[1])
    names = (graph.weight(w), graph.weight(values(w.shape[0])))
    graph.add("Gemm", *names, transB=1, shape=(graph.shape[0], w.shape[0]))


Step = Callable[[Growing, st.DrawFn], None]
OF_IMAGES: list[Step] = [convolve, convolve, deconvolve, pool, normalise]
OF_ALL: list[Step] = [activate, join, add_itself, flatten_by_its_shape, multiply, attend_to_itself]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Growing, onnx.ModelProto]:
    """Two to eight steps from a small image on."""
    image = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(3, 5)),
        draw(st.integers(3, 5)),
    )
    graph = Growing(image)
    for _ in range(draw(st.integers(2, 8))):
        rank = len(graph.shape)
        wide = rank == 4 and min(graph.shape[2:]) > 1
        steps = [*OF_ALL, *(OF_IMAGES if wide else []), *([connect_fully] if rank == 2 else [turn])]
        if int(np.prod(graph.shape)) > MOST_ELEMENTS:
            steps = [activate, flatten_by_its_shape]
        draw(st.sampled_from(steps))(graph, draw)
    graph.add("Identity")
    made = model(graph.nodes, {"x": image}, graph.weights, outputs=(graph.name,))
    graph.shape = image
    return graph, made


def by_definition(step: onnx.NodeProto, inputs: list[Any]) -> Any:
    """One node's result; what multiplies and sums is done by its definition, the rest by the reference."""
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in step.attribute}
    if step.op_type == "Conv":
        x, w = inputs
        return definitions.convolution(x, w, [1, 1], [1, 1], given["pads"], given["group"])
    if step.op_type == "ConvTranspose":
        x, w = inputs
        return definitions.transposed_convolution(x, w, given["strides"], [1, 1], [0] * 4)
    if step.op_type == "MatMul":
        return times(*inputs)
    if step.op_type == "Gemm":
        return times(inputs[0], inputs[1].T) + inputs[2]
    results: Any = ReferenceEvaluator(step).run(None, dict(zip(step.input, inputs, strict=True)))
    return results[0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_a_random_graph_costs_what_it_multiplies(drawn: tuple[Growing, onnx.ModelProto]) -> None:
    graph, made = drawn
    x = values(*graph.shape)
    held: dict[str, Any] = {"x": x, **graph.weights}
    with counting() as tally:
        for step in made.graph.node:
            result = by_definition(step, [held[name] for name in step.input])
            whole = np.asarray(result).dtype.kind == "i"
            held[step.output[0]] = result if whole else np.asarray(result, np.float32)
    found = profile(made)
    assert found.completeness is Completeness.COMPLETE
    assert found.multiply_accumulates == tally.products
    assert found.flops_by_kind.convolution + found.flops_by_kind.matmul == 2 * tally.products
    # Where values grow, rounding does too, and a softmax shows it.
    if all(np.abs(each).max() < 1e3 for each in held.values()):
        np.testing.assert_allclose(run(made, {"x": x}), held[graph.name], rtol=0.01, atol=0.01)
