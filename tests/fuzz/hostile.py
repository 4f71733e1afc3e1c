"""Files that somebody would send to a reader of models to do it harm; each is small."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import AttributeProto, TensorProto, helper

_FLOAT = TensorProto.FLOAT


def varint(value: int) -> bytes:
    """Write a variable-length integer of protobuf."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes, claimed: int | None = None) -> bytes:
    """A length-delimited field; ``claimed`` lies about its length."""
    return varint(number << 3 | 2) + varint(len(content) if claimed is None else claimed) + content


def model(graph: onnx.GraphProto, functions: list[onnx.FunctionProto] | None = None) -> bytes:
    """A model's file."""
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return bytes(helper.make_model(graph, opset_imports=sets, functions=functions or []).SerializeToString())


def _graph(
    nodes: list[onnx.NodeProto],
    shape: list[int | str],
    weights: list[onnx.TensorProto] | None = None,
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", _FLOAT, shape)],
        [helper.make_tensor_value_info("y", _FLOAT, None)],
        weights or [],
    )


def _function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes = [
        helper.make_node(call, ["a"] if not at else [f"t{at}"], [f"t{at + 1}"], domain="local")
        for at, call in enumerate(calls)
    ]
    return helper.make_function(
        "local", name, ["a"], [f"t{len(calls)}"], nodes, [helper.make_opsetid("local", 1)]
    )


def recursive_function() -> bytes:
    """A function that calls itself."""
    node = helper.make_node("F", ["x"], ["y"], domain="local")
    return model(_graph([node], [1, 4]), [_function("F", ["F"])])


def mutually_recursive_functions() -> bytes:
    """Two that call each other."""
    node = helper.make_node("F", ["x"], ["y"], domain="local")
    return model(_graph([node], [1, 4]), [_function("F", ["G"]), _function("G", ["F"])])


def exploding_functions() -> bytes:
    """Thirty functions, each of which calls the next ten times: 10^30 nodes when written out."""
    functions = [_function(f"F{level}", [f"F{level + 1}"] * 10) for level in range(30)]
    last = helper.make_function(
        "local", "F30", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    node = helper.make_node("F0", ["x"], ["y"], domain="local")
    return model(_graph([node], [1, 4]), [*functions, last])


def negative_dimension() -> bytes:
    """A weight with a negative dimension."""
    weight = TensorProto(name="w", data_type=_FLOAT, dims=[-3, 4])
    return model(_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [1, -3], [weight]))


def overflowing_product() -> bytes:
    """Dimensions whose product passes 2^64 many times over."""
    weight = TensorProto(name="w", data_type=_FLOAT, dims=[2**31] * 6)
    return model(_graph([helper.make_node("Conv", ["x", "w"], ["y"])], [2**31] * 4, [weight]))


def huge_constant() -> bytes:
    """A few bytes that ask for a tensor of 2^40 elements to be made."""
    nodes = [
        helper.make_node(
            "Constant", [], ["s"], value=helper.make_tensor("s", TensorProto.INT64, [2], [2**20, 2**20])
        ),
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("Add", ["c", "c"], ["y"]),
    ]
    return model(_graph(nodes, [1]))


def huge_range() -> bytes:
    """A Range of 2^40 elements, and its shape."""
    numbers = [("a", 0), ("b", 2**40), ("c", 1)]
    nodes = [
        helper.make_node(
            "Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [], [value])
        )
        for name, value in numbers
    ]
    nodes += [helper.make_node("Range", ["a", "b", "c"], ["r"]), helper.make_node("Shape", ["r"], ["y"])]
    return model(_graph(nodes, [1]))


def huge_tile() -> bytes:
    """Expand and Tile, by turns, up to 2^60 elements."""
    repeats = helper.make_tensor("t", TensorProto.INT64, [1], [2**20])
    nodes = [helper.make_node("Tile", ["i", "t"], ["a"]), helper.make_node("Tile", ["a", "t"], ["b"])]
    nodes += [helper.make_node("Tile", ["b", "t"], ["y"])]
    start = helper.make_tensor("i", TensorProto.INT64, [4], [1, 2, 3, 4])
    return model(_graph(nodes, [1], [repeats, start]))


def endless_loop() -> bytes:
    """A Loop of 2^62 turns around another."""
    inner = helper.make_graph(
        [helper.make_node("Relu", ["v"], ["w"]), helper.make_node("Identity", ["c"], ["d"])],
        "b",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", _FLOAT, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", _FLOAT, [1, 4]),
        ],
    )
    trips = helper.make_tensor("m", TensorProto.INT64, [], [2**62])
    return model(_graph([helper.make_node("Loop", ["m", "", "x"], ["y"], body=inner)], [1, 4], [trips]))


def deep_nesting(depth: int = 200) -> bytes:
    """If within If, far deeper than anybody writes."""
    node = field(1, b"c") + field(2, b"y") + field(4, b"If")
    graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu"))
    for _ in range(depth):
        attribute = field(1, b"then_branch") + varint(20 << 3) + b"\x05" + field(6, graph)
        graph = field(1, node + field(5, attribute))
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


def many_nodes_claimed() -> bytes:
    """A graph that claims room for 2^31 nodes and has one."""
    return b"\x08\x08" + field(7, field(1, field(4, b"Relu")), claimed=2**31 * 8)


def huge_node_claimed() -> bytes:
    """One node of 5 GB."""
    return b"\x08\x08" + field(7, field(1, b"\x0a", claimed=5 * 2**30), claimed=5 * 2**30 + 12)


def many_tiny_fields(count: int = 300_000) -> bytes:
    """Nothing but fields of two bytes."""
    return b"\x08\x08" + field(7, field(5, b"\x10\x01" * count))


def cyclic_graph() -> bytes:
    """Two nodes that wait for each other."""
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"])]
    return model(_graph([*nodes, helper.make_node("Relu", ["b"], ["y"])], [1, 4]))


def wrong_types() -> bytes:
    """Attributes of other types than the operator has, and none where it needs them."""
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    conv.attribute.append(helper.make_attribute("strides", "two"))
    conv.attribute.append(helper.make_attribute("group", 0))
    conv.attribute.append(AttributeProto(name="pads", type=AttributeProto.INTS, ints=[-(2**62)] * 3))
    weight = TensorProto(name="w", data_type=999, dims=[0, 0, 0, 0])
    return model(_graph([conv], [0, 0, 0, 0], [weight]))


def long_names() -> bytes:
    """Two thousand nodes whose names are 10 kB long."""
    node = field(1, b"x" * 10_000) + field(2, b"x" * 10_000) + field(4, b"Relu")
    return b"\x08\x08" + field(7, field(1, node) * 2000) + field(8, b"\x10\x11")


FILES: dict[str, Callable[[], bytes]] = {
    made.__name__: made
    for made in (
        recursive_function,
        mutually_recursive_functions,
        exploding_functions,
        negative_dimension,
        overflowing_product,
        huge_constant,
        huge_range,
        huge_tile,
        endless_loop,
        deep_nesting,
        many_nodes_claimed,
        huge_node_claimed,
        many_tiny_fields,
        cyclic_graph,
        wrong_types,
        long_names,
    )
}
