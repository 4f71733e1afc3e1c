"""What the sums of a profile are made of: kinds, parameters, bytes moved, and what is not counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tailwise.api.profile import Completeness
from tailwise.models import operators
from tailwise.models.graph import Skeleton
from tailwise.models.profile import build_profile
from tailwise.models.records import OperatorKind
from tests.unit.models.graphs import model, node, profile, records, zeros

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


def test_each_operator_reads_its_inputs_and_weights_and_writes_its_results() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Reshape", ["r", "shape"], ["y"], name="view"),
    ]
    weights = {"w": zeros(4, 3, 3, 3), "shape": np.array([1, -1], np.int64)}
    found = profile(model(nodes, {"x": (1, 3, 8, 8)}, weights))
    image, result, filters = 4 * 3 * 64, 4 * 4 * 64, 4 * 4 * 27
    costs = {cost.node: cost for cost in found.heaviest}
    assert (costs["conv"].weight_bytes, costs["conv"].activation_bytes) == (filters, image + result)
    assert (costs["relu"].weight_bytes, costs["relu"].activation_bytes) == (0, 2 * result)
    assert (costs["view"].weight_bytes, costs["view"].activation_bytes) == (0, 0)
    assert found.moved_weight_bytes == filters
    assert found.moved_activation_bytes == image + 3 * result
    moved = found.moved_weight_bytes + found.moved_activation_bytes
    assert found.arithmetic_intensity_milliflops_per_byte == 1000 * found.flops // moved
    assert found.kinds["convolution"].model_dump() == {
        "operators": 1,
        "flops": 2 * 4 * 64 * 27,
        "weightBytes": filters,
        "activationBytes": image + result,
    }
    assert list(found.kinds) == ["convolution", "activation", "dataMovement"]


def test_a_lookup_reads_the_rows_it_is_asked_for() -> None:
    made = model(
        [node("Gather", ["table", "i"], ["y"])],
        {"i": (5,)},
        {"table": zeros(1000, 8)},
        types={"i": TensorProto.INT64},
    )
    assert profile(made).moved_weight_bytes == 5 * 8 * 4
    assert profile(made).parameters == 8000


def test_what_depends_on_weights_alone_is_done_before_any_inference() -> None:
    nodes = [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])]
    found = profile(model(nodes, {"x": (2, 8)}, {"w": zeros(4, 8)}))
    assert found.moved_activation_bytes == 4 * (2 * 8 + 2 * 4)
    assert found.kinds["matmul"].weight_bytes == 4 * 32
    assert found.depth == 1


@pytest.mark.parametrize(
    ("dtype", "size", "name"),
    [(np.float16, 2, "float16"), (np.float32, 4, "float32"), (np.float64, 8, "float64")],
)
def test_parameters_have_the_bytes_they_are_stored_in(dtype: type, size: int, name: str) -> None:
    made = model([node("MatMul", ["x", "w"], ["y"])], {"x": (1, 16)}, {"w": zeros(16, 4, dtype=dtype)})
    assert profile(made).parameter_bytes == 64 * size
    assert profile(made).precision == name


def test_every_operator_with_products_is_tried_by_brute_force() -> None:
    directory = Path(__file__).parent
    modules = ("test_convolutions.py", "test_products.py", "test_attention.py", "test_recurrent.py")
    tried = "".join((directory / name).read_text() for name in modules)
    kinds = (OperatorKind.CONVOLUTION, OperatorKind.MATMUL)
    names = {name for rules in operators.every_rule() for name, rule in rules.items() if rule.kind in kinds}
    assert {name for name in names if f'"{name}"' not in tried} == set()
