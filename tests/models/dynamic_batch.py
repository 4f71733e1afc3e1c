"""Gives a model that was exported for one sample a batch axis, as its exporter would have.

Sizes that the exporter had folded into constants are computed from the input again (Shape -> Gather -> Mul ->
Concat -> Reshape), which is what exports with a dynamic batch look like.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

_Nodes = list[onnx.NodeProto]

_INNER_BATCH = {(197, 1, 3, 768): 1, (197, 12, 64): 1, (197, 1, 768): 1}
"""Targets of ViT's reshapes whose batch axis is not the first: attention goes along the first there."""


def is_dynamic(model: onnx.ModelProto) -> bool:
    """Whether the first axis of every input is free."""
    return all(info.type.tensor_type.shape.dim[0].dim_param for info in model.graph.input)


def with_dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a free first axis of every input, and constants that held its size computed."""
    if is_dynamic(model):
        return model
    if len(model.graph.input[0].type.tensor_type.shape.dim) == 3:
        model = _network_of_one_image(model)
    graph = model.graph
    for info in graph.input:
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    for info in graph.output:
        info.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in _small(graph.initializer)}
    nodes = _batch_size(graph.input[0].name)
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            nodes += _reshape(node, constants[node.input[1]])
        elif node.op_type == "GatherND" and node.input[1] in constants:
            nodes += _gather_of_each_sample(node, constants[node.input[1]])
        elif node.op_type == "Concat" and _takes_one_sample(graph, node):
            nodes += _repeated(graph, node)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _small(tensors: Iterable[onnx.TensorProto]) -> list[onnx.TensorProto]:
    return [tensor for tensor in tensors if tensor.data_type == onnx.TensorProto.INT64 and tensor.raw_data]


def _constant(name: str, content: list[int]) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(np.array(content, np.int64), name)
    return helper.make_node("Constant", [], [name], value=tensor)


def _batch_size(source: str) -> _Nodes:
    return [
        helper.make_node("Shape", [source], ["batch.shape"]),
        _constant("batch.zero", [0]),
        helper.make_node("Gather", ["batch.shape", "batch.zero"], ["batch.size"], axis=0),
    ]


def _reshape(node: onnx.NodeProto, target: np.ndarray) -> _Nodes:
    """The target with its batch axis times the batch size, computed before the node."""
    sizes = [int(size) for size in target]
    axis = _INNER_BATCH.get(tuple(sizes), 0)
    if sizes[axis] < 1:
        return [node]  # 0 and -1 follow the input by themselves.
    name = f"batch.{node.output[0]}"
    before, after = sizes[:axis], sizes[axis + 1 :]
    parts = [(f"{name}.before", before), (f"{name}.one", [sizes[axis]]), (f"{name}.after", after)]
    made = [_constant(part, content) for part, content in parts if content]
    made.append(helper.make_node("Mul", ["batch.size", f"{name}.one"], [f"{name}.axis"]))
    names = [f"{name}.before"] * bool(before) + [f"{name}.axis"] + [f"{name}.after"] * bool(after)
    made.append(helper.make_node("Concat", names, [f"{name}.target"], axis=0))
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.input[1] = f"{name}.target"
    return [*made, changed]


def _gather_of_each_sample(node: onnx.NodeProto, indices: np.ndarray) -> _Nodes:
    """Indices of sample 0 become those of every sample: their first coordinate counts the batch."""
    if indices.shape[0] != 1 or indices[..., 0].any():
        return [node]
    name = f"batch.{node.output[0]}"
    sample = [1] + [0] * (indices.shape[-1] - 1)
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.input[1] = f"{name}.indices"
    scalar = numpy_helper.from_array(np.array(0, np.int64))
    step = numpy_helper.from_array(np.array(1, np.int64))
    return [
        helper.make_node("Constant", [], [f"{name}.first"], value=scalar),
        helper.make_node("Constant", [], [f"{name}.step"], value=step),
        helper.make_node("Squeeze", ["batch.size"], [f"{name}.end"]),
        helper.make_node("Range", [f"{name}.first", f"{name}.end", f"{name}.step"], [f"{name}.range"]),
        _constant(f"{name}.axes", [-1] + [1] * (indices.ndim - 1)),
        helper.make_node("Reshape", [f"{name}.range", f"{name}.axes"], [f"{name}.column"]),
        _constant(f"{name}.sample", sample),
        helper.make_node("Mul", [f"{name}.column", f"{name}.sample"], [f"{name}.offset"]),
        helper.make_node("Add", [f"{name}.offset", node.input[1]], [f"{name}.indices"]),
        changed,
    ]


def _takes_one_sample(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether a weight with a batch axis of 1 (a class token) is put beside what has the batch."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    weights = [held[name] for name in node.input if name in held and held[name].data_type == 1]
    return 0 < len(weights) < len(node.input) and all(tensor.dims[0] == 1 for tensor in weights)


def _repeated(graph: onnx.GraphProto, node: onnx.NodeProto) -> _Nodes:
    """The weight expanded to the batch before it is concatenated."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    changed, made = onnx.NodeProto(), []
    changed.CopyFrom(node)
    for index, name in enumerate(node.input):
        if name in held:
            rest = f"batch.{name}.rest"
            made += [
                _constant(rest, list(held[name].dims)[1:]),
                helper.make_node("Concat", ["batch.size", rest], [f"batch.{name}.shape"], axis=0),
                helper.make_node("Expand", [name, f"batch.{name}.shape"], [f"batch.{name}"]),
            ]
            changed.input[index] = f"batch.{name}"
    return [*made, changed]


def _network_of_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part of a detector that has a batch axis: from the padded image to the last convolutions.

    What stands before prepares one image, what stands behind selects the boxes of one image; torchvision
    writes both for a list of images, one after another, so that no export of it has a batch.
    """
    graph = model.graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    image, *size = convolutions[0].input[0], 1, 3, 800, 800
    used = {name for node in graph.node for name in node.input}
    made_of = {name: node for node in graph.node for name in node.output}
    last = [node.output[0] for node in convolutions if node.output[0] in used]
    wanted: set[str] = set()
    pending = list(last)
    while pending:
        name = pending.pop()
        if name in wanted or name == image:
            continue
        wanted.add(name)
        if name in made_of:
            pending.extend(made_of[name].input)
    nodes = [node for node in graph.node if wanted & set(node.output)]
    part = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(image, onnx.TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in last],
        list(graph.initializer),
    )
    return helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
