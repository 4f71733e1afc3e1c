"""Bodies count as often as they run: If, Loop, Scan, and functions a model defines for itself."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tailwise.api.profile import Completeness
from tests.unit.models.graphs import model, node, profile, zeros


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


def loop_body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """The body of a Loop that makes ``out`` of ``v``, and goes on for as long as it was told to."""
    return helper.make_graph(
        [*nodes, node("Identity", ["go"], ["again"])],
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


def running_sum() -> onnx.GraphProto:
    """The body of a Scan."""
    return helper.make_graph(
        [node("Add", ["s", "e"], ["s2"]), node("Identity", ["s2"], ["o"])],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("s", "e")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("s2", "o")],
    )


def loop(trips: np.ndarray | None) -> onnx.ModelProto:
    body = loop_body(node("MatMul", ["v", "w"], ["out"]))
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
    body = running_sum()
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


def test_both_branches_of_an_if_are_reported_and_which_one_counts() -> None:
    choice = node(
        "If",
        ["c"],
        ["y"],
        name="choice",
        then_branch=branch("t", [node("Relu", ["x"], ["t"])], "t"),
        else_branch=branch("e", [node("MatMul", ["x", "w"], ["e"])], "e"),
    )
    inputs: dict[str, tuple[int, ...]] = {"x": (2, 8), "c": ()}
    found = profile(model([choice], inputs, {"w": zeros(8, 8)}, types={"c": TensorProto.BOOL}))
    assert [each.model_dump() for each in found.conditionals] == [
        {"node": "choice", "thenFlops": 16, "elseFlops": 256, "counted": "Else"}
    ]
    assert found.completeness is Completeness.COMPLETE


def test_an_if_whose_condition_is_known_counts_the_branch_it_takes() -> None:
    choice = node(
        "If",
        ["c"],
        ["y"],
        then_branch=branch("t", [node("Relu", ["x"], ["t"])], "t"),
        else_branch=branch("e", [node("MatMul", ["x", "w"], ["e"])], "e"),
    )
    made = model([choice], {"x": (2, 8)}, {"w": zeros(8, 8), "c": np.array(True)})
    assert profile(made).flops == 16
    assert profile(made).conditionals == ()


def test_a_loop_whose_values_grow_is_followed_step_by_step() -> None:
    body = loop_body(
        node("Concat", ["v", "v"], ["out"], axis=0),
        node("MatMul", ["v", "w"], ["product"]),
    )
    weights = {"w": zeros(8, 8), "trips": np.array(3, np.int64)}
    made = model([node("Loop", ["trips", "", "x"], ["y"], body=body)], {"x": (1, 8)}, weights)
    assert profile(made).multiply_accumulates == (1 + 2 + 4) * 8 * 8


def test_a_scan_of_the_first_kind_runs_for_each_sample_of_each_step() -> None:
    body = running_sum()
    made = model(
        [node("Scan", ["", "init", "x"], ["last", "y"], body=body, num_scan_inputs=1)],
        {"init": (3, 4), "x": (3, 7, 4)},
        outputs=("y",),
        opset=8,
    )
    assert profile(made).flops == 3 * 7 * 4


def test_an_if_within_a_loop_counts_its_dearer_branch_each_time() -> None:
    choice = node(
        "If",
        ["c"],
        ["out"],
        then_branch=branch("t", [node("MatMul", ["v", "w"], ["t"])], "t"),
        else_branch=branch("e", [node("Relu", ["v"], ["e"])], "e"),
    )
    body = loop_body(choice)
    made = model(
        [node("Loop", ["trips", "", "x"], ["y"], body=body)],
        {"x": (2, 8), "c": ()},
        {"w": zeros(8, 8), "trips": np.array(6, np.int64)},
        types={"c": TensorProto.BOOL},
    )
    assert profile(made).multiply_accumulates == 6 * 2 * 8 * 8
