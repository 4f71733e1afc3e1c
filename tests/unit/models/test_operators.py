"""What each operator costs, against a count by its definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tailwise.api.profile import Completeness
from tailwise.models.graph import Skeleton
from tailwise.models.profile import build_profile
from tailwise.models.records import OperatorKind
from tests.unit.models.graphs import model, profile, records, zeros

node = helper.make_node
SETTINGS = settings(max_examples=40, deadline=None)


def output_shape(made: onnx.ModelProto, fed: dict[str, np.ndarray]) -> tuple[int, ...]:
    """The shape the runtime itself gives the first output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, ["CPUExecutionProvider"])
    return tuple(session.run(None, fed)[0].shape)


@SETTINGS
@given(
    dims=st.integers(1, 3),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    out_per_group=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pad=st.integers(0, 2),
    size=st.integers(5, 9),
    batch=st.integers(1, 2),
)
def test_a_convolution_is_counted_as_the_runtime_sizes_it(
    dims: int,
    groups: int,
    per_group: int,
    out_per_group: int,
    kernel: int,
    stride: int,
    dilation: int,
    pad: int,
    size: int,
    batch: int,
) -> None:
    x = (batch, groups * per_group, *[size] * dims)
    w = (groups * out_per_group, per_group, *[kernel] * dims)
    attributes: dict[str, Any] = {
        "group": groups,
        "strides": [stride] * dims,
        "dilations": [dilation] * dims,
        "pads": [pad] * (2 * dims),
    }
    made = model([node("Conv", ["x", "w"], ["y"], **attributes)], {"x": x}, {"w": zeros(*w)})
    output = output_shape(made, {"x": zeros(*x)})
    (record,) = records(made)
    assert record.multiply_accumulates == int(np.prod(output)) * per_group * kernel**dims
    assert record.flops == 2 * record.multiply_accumulates
    assert record.batch * record.rows * record.columns * record.depth == record.multiply_accumulates
    assert record.groups == groups


@SETTINGS
@given(
    groups=st.integers(1, 2),
    per_group=st.integers(1, 3),
    out_per_group=st.integers(1, 3),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    size=st.integers(2, 6),
)
def test_a_transposed_convolution_multiplies_every_input_with_its_kernel(
    groups: int, per_group: int, out_per_group: int, kernel: int, stride: int, size: int
) -> None:
    x, w = (1, groups * per_group, size, size), (groups * per_group, out_per_group, kernel, kernel)
    made = model(
        [node("ConvTranspose", ["x", "w"], ["y"], group=groups, strides=[stride] * 2)],
        {"x": x},
        {"w": zeros(*w)},
    )
    (record,) = records(made)
    assert record.multiply_accumulates == int(np.prod(x)) * out_per_group * kernel**2
    assert record.transposed


def brute_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Every element of numpy's product sums over the shared axis."""
    result = np.matmul(zeros(*left), zeros(*right))
    return int(result.size) * left[-1]


@SETTINGS
@given(data=st.data(), rows=st.integers(1, 5), depth=st.integers(1, 5), columns=st.integers(1, 5))
def test_a_product_broadcasts_as_numpy_does(data: Any, rows: int, depth: int, columns: int) -> None:
    outer = data.draw(st.lists(st.integers(1, 3), max_size=3))
    drop = data.draw(st.integers(0, len(outer)))
    right_outer = [data.draw(st.sampled_from([1, size])) for size in outer[drop:]]
    left, right = (*outer, rows, depth), (*right_outer, depth, columns)
    if data.draw(st.booleans()) and not right_outer:
        right = (depth,)
    made = model([node("MatMul", ["a", "b"], ["y"])], {"a": left, "b": right})
    (record,) = records(made)
    assert record.multiply_accumulates == brute_matmul(left, right)
    assert record.batch * record.rows * record.columns * record.depth == record.multiply_accumulates


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 4), 2 * 3 * 4),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4), 5 * 2 * 3 * 4),
    ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5), 2 * 3 * 4 * 6 * 5),
    ("...ij,...jk->...ik", (5, 2, 3), (5, 3, 4), 5 * 2 * 3 * 4),
    ("i,j->ij", (3,), (4,), 12),
    ("ij,jk", (2, 3), (3, 4), 24),
    ("bchw,cd->bdhw", (2, 3, 4, 5), (3, 7), 2 * 4 * 5 * 3 * 7),
]


@pytest.mark.parametrize(("equation", "left", "right", "expected"), EINSUMS)
def test_an_einsum_is_the_product_it_is(
    equation: str, left: tuple[int, ...], right: tuple[int, ...], expected: int
) -> None:
    made = model([node("Einsum", ["a", "b"], ["y"], equation=equation)], {"a": left, "b": right})
    (record,) = records(made)
    assert record.multiply_accumulates == expected
    assert record.output_elements == int(np.prod(output_shape(made, {"a": zeros(*left), "b": zeros(*right)})))


def test_a_gemm_takes_transposed_operands() -> None:
    for a, b in itertools.product((0, 1), repeat=2):
        x, w = ((5, 2) if a else (2, 5)), ((7, 5) if b else (5, 7))
        made = model([node("Gemm", ["x", "w"], ["y"], transA=a, transB=b)], {"x": x}, {"w": zeros(*w)})
        assert records(made)[0].multiply_accumulates == 2 * 5 * 7


@pytest.mark.parametrize(("op_type", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize("directions", [1, 2])
def test_a_recurrent_layer_counts_each_step_and_direction(op_type: str, gates: int, directions: int) -> None:
    steps, batch, size, hidden = 7, 2, 5, 3
    direction = "bidirectional" if directions == 2 else "forward"
    made = model(
        [node(op_type, ["x", "w", "r"], ["y"], hidden_size=hidden, direction=direction)],
        {"x": (steps, batch, size)},
        {"w": zeros(directions, gates * hidden, size), "r": zeros(directions, gates * hidden, hidden)},
    )
    (record,) = records(made)
    assert record.multiply_accumulates == directions * steps * batch * gates * hidden * (size + hidden)
    assert record.recurrent


def test_quantised_operators_count_as_what_they_are_of() -> None:
    byte = np.uint8
    scalars: dict[str, Any] = {"s": np.float32(1).reshape(()), "z": np.uint8(0).reshape(())}
    conv = model(
        [node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"], pads=[1, 1, 1, 1])],
        {"x": (1, 3, 8, 8)},
        {"w": zeros(4, 3, 3, 3, dtype=byte), **scalars},
        types={"x": TensorProto.UINT8},
    )
    assert records(conv)[0].multiply_accumulates == 4 * 8 * 8 * 27
    product = model(
        [node("QLinearMatMul", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"])],
        {"x": (2, 8)},
        {"w": zeros(8, 5, dtype=byte), **scalars},
        types={"x": TensorProto.UINT8},
    )
    assert records(product)[0].multiply_accumulates == 2 * 8 * 5
    integer = model(
        [node("MatMulInteger", ["x", "w"], ["y"])],
        {"x": (2, 8)},
        {"w": zeros(8, 5, dtype=byte)},
        types={"x": TensorProto.UINT8},
    )
    assert records(integer)[0].multiply_accumulates == 2 * 8 * 5
    assert profile(integer).precision == "uint8"
    assert profile(integer).parameters == 40


MICROSOFT = "com.microsoft"


def test_attention_counts_its_projection_and_both_products() -> None:
    batch, rows, hidden, heads = 2, 6, 8, 2
    made = model(
        [node("Attention", ["x", "w", "b"], ["y"], domain=MICROSOFT, num_heads=heads)],
        {"x": (batch, rows, hidden)},
        {"w": zeros(hidden, 3 * hidden), "b": zeros(3 * hidden)},
    )
    expected = batch * rows * hidden * 3 * hidden + 2 * batch * rows * rows * hidden
    assert records(made)[0].multiply_accumulates == expected


def test_attention_over_separate_operands_counts_both_products() -> None:
    made = model(
        [node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain=MICROSOFT, num_heads=2)],
        {"q": (1, 4, 8), "k": (1, 6, 8), "v": (1, 6, 8)},
    )
    assert records(made)[0].multiply_accumulates == 2 * 4 * 6 * 8
    standard = model(
        [node("Attention", ["q", "k", "v"], ["y"])],
        {"q": (1, 2, 4, 8), "k": (1, 2, 6, 8), "v": (1, 2, 6, 8)},
        opset=23,
    )
    assert records(standard)[0].multiply_accumulates == 2 * 4 * 6 * (8 + 8)


def test_contributed_products_are_products() -> None:
    fused = model(
        [node("FusedMatMul", ["a", "b"], ["y"], domain=MICROSOFT, transB=1)],
        {"a": (2, 3, 4), "b": (2, 5, 4)},
    )
    assert records(fused)[0].multiply_accumulates == 2 * 3 * 5 * 4
    packed = model(
        [node("MatMulNBits", ["a", "w", "s"], ["y"], domain=MICROSOFT, K=64, N=16, bits=4, block_size=32)],
        {"a": (1, 3, 64)},
        {"w": zeros(16, 2, 16, dtype=np.uint8), "s": zeros(32)},
    )
    assert records(packed)[0].multiply_accumulates == 3 * 64 * 16
    conv = model(
        [node("FusedConv", ["x", "w"], ["y"], domain=MICROSOFT, activation="Relu", pads=[1, 1, 1, 1])],
        {"x": (1, 3, 8, 8)},
        {"w": zeros(4, 3, 3, 3)},
    )
    assert records(conv)[0].multiply_accumulates == 4 * 64 * 27


SIMPLE = [
    ("Relu", OperatorKind.ACTIVATION, 120, {}),
    ("Sigmoid", OperatorKind.ACTIVATION, 120, {}),
    ("GlobalAveragePool", OperatorKind.POOLING, 6, {}),
    ("MaxPool", OperatorKind.POOLING, 6 * 3 * 4, {"kernel_shape": [2, 2]}),
    ("Softmax", OperatorKind.OTHER, 5 * 120, {}),
    ("ReduceMean", OperatorKind.OTHER, 120, {}),
    ("Transpose", OperatorKind.DATA_MOVEMENT, 0, {}),
    ("LpNormalization", OperatorKind.NORMALIZATION, 360, {}),
]


@pytest.mark.parametrize(("op_type", "kind", "flops", "attributes"), SIMPLE)
def test_the_papers_equations_hold_for_one_operator(
    op_type: str, kind: OperatorKind, flops: int, attributes: dict[str, Any]
) -> None:
    made = model([node(op_type, ["x"], ["y"], **attributes)], {"x": (2, 3, 4, 5)})
    (record,) = records(made)
    assert (record.kind, record.flops) == (kind, flops)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 18, 20, 22, 23])
def test_a_convolution_counts_the_same_in_every_operator_set(opset: int) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["y"])]
    made = model(nodes, {"x": ("batch", 3, 8, 8)}, {"w": zeros(4, 3, 3, 3)}, opset=opset)
    assert profile(made, 2).flops_by_kind.convolution == 2 * 2 * 4 * 64 * 27


def test_weights_listed_among_the_inputs_are_weights() -> None:
    made = model(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": ("N", 3, 8, 8), "w": (4, 3, 1, 1)},
        {"w": zeros(4, 3, 1, 1)},
        opset=8,
    )
    assert profile(made).parameters == 12
    assert records(made)[0].weight_bytes == 48


def test_shapes_computed_in_the_graph_are_followed() -> None:
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"]),
        node("Unsqueeze", ["batch", "axis"], ["batches"]),
        node("Concat", ["batches", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["flat"]),
        node("MatMul", ["flat", "w"], ["y"]),
    ]
    weights = {
        "zero": np.array(0, np.int64),
        "axis": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
        "w": zeros(48, 10),
    }
    made = model(nodes, {"x": ("batch", 3, 4, 4)}, weights)
    assert profile(made, 5).flops == 2 * 5 * 48 * 10
    assert profile(made, 5).parameters == 480


def branch(name: str, nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [out])


def test_the_dearer_branch_of_an_if_counts() -> None:
    made = model(
        [
            node(
                "If",
                ["c"],
                ["y"],
                then_branch=branch("t", [node("MatMul", ["x", "w"], ["t"])], "t"),
                else_branch=branch("e", [node("Relu", ["x"], ["e"])], "e"),
            )
        ],
        {"x": (2, 8), "c": ()},
        {"w": zeros(8, 8)},
        types={"c": TensorProto.BOOL},
    )
    assert profile(made).flops == 2 * 2 * 8 * 8


def loop(trips: np.ndarray | None) -> onnx.ModelProto:
    body = helper.make_graph(
        [node("MatMul", ["v", "w"], ["out"]), node("Identity", ["go"], ["again"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, None),
        ],
    )
    inputs: dict[str, tuple[int, ...]] = {"x": (2, 8)}
    weights = {"w": zeros(8, 8)}
    if trips is None:
        inputs["trips"] = ()
    else:
        weights["trips"] = trips
    return model(
        [node("Loop", ["trips", "", "x"], ["y"], body=body)],
        inputs,
        weights,
        types={"trips": TensorProto.INT64},
    )


def test_a_loop_counts_its_body_as_often_as_it_runs() -> None:
    assert profile(loop(np.array(5, np.int64))).flops == 5 * 2 * 2 * 8 * 8
    assert profile(loop(np.array(100_000, np.int64))).flops == 100_000 * 2 * 2 * 8 * 8


def test_a_loop_without_a_known_end_counts_one_step_and_says_so() -> None:
    found = profile(loop(None))
    assert found.flops == 2 * 2 * 8 * 8
    assert found.completeness is Completeness.PARTIAL
    assert "depends on data" in found.unresolved[0].reason


def test_a_scan_counts_its_body_for_each_slice() -> None:
    body = helper.make_graph(
        [node("Add", ["s", "e"], ["s2"]), node("Identity", ["s2"], ["o"])],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("s", "e")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("s2", "o")],
    )
    made = model(
        [node("Scan", ["init", "x"], ["last", "y"], body=body, num_scan_inputs=1)],
        {"init": (4,), "x": (7, 4)},
        outputs=("y",),
    )
    assert profile(made).flops == 7 * 4


def test_local_functions_count_as_their_bodies() -> None:
    made = model([node("Twice", ["x"], ["y"], domain="own")], {"x": (2, 8)})
    function = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["c"],
        [node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("own", 1))
    assert profile(made).flops_by_kind.activation == 2 * 16


def test_weights_in_other_files_are_counted_by_their_dimensions() -> None:
    made = model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 64)}, {"w": zeros(64, 32)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    found = profile(made)
    assert found.parameters == 64 * 32
    assert found.file_bytes == 4 * 64 * 32
    assert found.flops == 2 * 64 * 32


def test_an_unknown_operator_is_named_and_what_follows_it_too() -> None:
    nodes = [
        node("Odd", ["x"], ["o"], name="odd", domain="com.example"),
        node("MatMul", ["o", "w"], ["y"], name="after"),
    ]
    found = profile(model(nodes, {"x": (1, 8)}, {"w": zeros(8, 8)}))
    assert [entry.node for entry in found.unresolved] == ["odd", "after"]
    assert found.completeness is Completeness.PARTIAL
    assert found.counted_percent < 100


def test_a_convolution_on_too_small_an_input_is_not_a_silent_zero() -> None:
    found = profile(model([node("Conv", ["x", "w"], ["y"])], {"x": (1, 1, 2, 2)}, {"w": zeros(1, 1, 3, 3)}))
    assert found.completeness is Completeness.PARTIAL


def test_axes_that_are_all_called_by_a_question_mark_are_not_one() -> None:
    made = model([node("Relu", ["x"], ["y"])], {"x": ("?", 3, "?", "?")})
    found = build_profile(Skeleton(made, ""), {"x": (1, 3, 48, 192)})
    assert found.flops == 3 * 48 * 192


def test_depth_goes_through_the_bodies_of_control_flow() -> None:
    inner = [node("Relu", ["x"], ["a"]), node("Abs", ["a"], ["b"]), node("Neg", ["b"], ["t"])]
    choice = node(
        "If",
        ["c"],
        ["o"],
        then_branch=branch("t", inner, "t"),
        else_branch=branch("e", [node("Relu", ["x"], ["e"])], "e"),
    )
    made = model([choice, node("Relu", ["o"], ["y"])], {"x": (2, 8), "c": ()}, types={"c": TensorProto.BOOL})
    assert profile(made).depth == 4
