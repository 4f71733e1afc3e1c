"""Recurrent layers and classical learners cost what their definition multiplies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.unit.models import definitions
from tests.unit.models.brute_force import assert_counted_as_executed, integers, unchecked, values
from tests.unit.models.counting import times
from tests.unit.models.graphs import MICROSOFT, model, node, records

SETTINGS = settings(max_examples=10, deadline=None)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@pytest.mark.parametrize("op_type", sorted(GATES))
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@SETTINGS
@given(steps=st.integers(1, 4), batch=st.integers(1, 3), size=st.integers(1, 4), hidden=st.integers(1, 3))
def test_a_recurrent_layer_costs_every_step_of_every_direction(
    op_type: str, direction: str, steps: int, batch: int, size: int, hidden: int
) -> None:
    directions = 2 if direction == "bidirectional" else 1
    x = values(steps, batch, size)
    w = values(directions, GATES[op_type] * hidden, size)
    r = values(directions, GATES[op_type] * hidden, hidden)
    made = model(
        [node(op_type, ["x", "w", "r"], ["y"], hidden_size=hidden, direction=direction)],
        {"x": x.shape},
        {"w": w, "r": r},
    )
    assert_counted_as_executed(made, {"x": x}, lambda: definitions.recurrent(op_type, x, w, r, direction))
    assert records(made)[0].recurrent


@pytest.mark.parametrize("op_type", sorted(GATES))
def test_a_recurrent_layer_with_the_batch_first_costs_the_same(op_type: str) -> None:
    x, w, r = values(3, 5, 4), values(1, GATES[op_type] * 2, 4), values(1, GATES[op_type] * 2, 2)
    made = model(
        [node(op_type, ["x", "w", "r"], ["y"], hidden_size=2, layout=1)], {"x": x.shape}, {"w": w, "r": r}
    )
    assert_counted_as_executed(
        made,
        {"x": x},
        lambda: definitions.recurrent(op_type, x.swapaxes(0, 1), w, r, "forward"),
        by=unchecked,
    )


def test_a_quantised_lstm_costs_as_the_one_it_quantises() -> None:
    x, w, r = values(3, 2, 4), values(1, 8, 4), values(1, 8, 2)
    made = model(
        [
            node(
                "DynamicQuantizeLSTM", ["x", "w", "r", "", "", "", "", "", "s", "z", "s", "z"], ["y"],
                domain=MICROSOFT, hidden_size=2,
            )
        ],
        {"x": x.shape},
        {"w": integers(1, 4, 8), "r": integers(1, 2, 8), "s": values(1), "z": integers(1)},
    )  # fmt: skip
    assert_counted_as_executed(
        made, {"x": x}, lambda: definitions.recurrent("LSTM", x, w, r, "forward"), by=unchecked
    )


ML = "ai.onnx.ml"


@SETTINGS
@given(rows=st.integers(1, 4), features=st.integers(1, 4), outputs=st.integers(1, 3))
def test_linear_models_cost_what_they_multiply(rows: int, features: int, outputs: int) -> None:
    x, weight = values(rows, features), values(outputs, features)
    coefficients = weight.ravel().tolist()
    regressor = model(
        [node("LinearRegressor", ["x"], ["y"], domain=ML, coefficients=coefficients, targets=outputs)],
        {"x": x.shape},
    )
    assert_counted_as_executed(regressor, {"x": x}, lambda: times(x, weight.T))
    classifier = model(
        [
            node(
                "LinearClassifier", ["x"], ["label", "y"], domain=ML,
                coefficients=coefficients, intercepts=[0.0] * outputs, classlabels_ints=list(range(outputs)),
            )
        ],
        {"x": x.shape},
        types={"label": TensorProto.INT64},
    )  # fmt: skip
    assert_counted_as_executed(classifier, {"x": x}, lambda: times(x, weight.T), by=unchecked)


@SETTINGS
@given(rows=st.integers(1, 4), features=st.integers(1, 4), vectors=st.integers(1, 5))
def test_support_vectors_cost_what_they_multiply(rows: int, features: int, vectors: int) -> None:
    x, support, weight = values(rows, features), values(vectors, features), values(vectors)
    attributes: dict[str, Any] = {
        "kernel_type": "LINEAR",
        "kernel_params": [0.0, 0.0, 0.0],
        "support_vectors": support.ravel().tolist(),
        "coefficients": weight.tolist(),
        "rho": [0.0],
        "n_supports": vectors,
    }
    made = model([node("SVMRegressor", ["x"], ["y"], domain=ML, **attributes)], {"x": x.shape})

    def defined() -> Any:
        return times(times(x, support.T), weight[:, None])

    assert_counted_as_executed(made, {"x": x}, defined)
    attributes["vectors_per_class"] = attributes.pop("n_supports") and [vectors]
    classifier = model(
        [node("SVMClassifier", ["x"], ["l", "y"], domain=ML, classlabels_ints=[0], **attributes)],
        {"x": x.shape},
        types={"l": TensorProto.INT64},
    )
    assert_counted_as_executed(classifier, {"x": x}, defined, by=unchecked)


def stump(depth: int) -> dict[str, Any]:
    """One complete tree of that depth, as the attributes of an ensemble."""
    inner, every = 2**depth - 1, 2 ** (depth + 1) - 1
    return {
        "nodes_treeids": [0] * every,
        "nodes_nodeids": list(range(every)),
        "nodes_featureids": [0] * every,
        "nodes_values": [0.5] * every,
        "nodes_modes": ["BRANCH_LEQ"] * inner + ["LEAF"] * (every - inner),
        "nodes_truenodeids": [2 * i + 1 if i < inner else 0 for i in range(every)],
        "nodes_falsenodeids": [2 * i + 2 if i < inner else 0 for i in range(every)],
        "target_treeids": [0] * (every - inner),
        "target_nodeids": list(range(inner, every)),
        "target_ids": [0] * (every - inner),
        "target_weights": [1.0] * (every - inner),
        "n_targets": 1,
    }


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_tree_costs_a_comparison_a_level_and_one_addition(depth: int) -> None:
    made = model([node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, **stump(depth))], {"x": (7, 3)})
    (record,) = records(made)
    assert record.flops == 7 * (depth + 1)
    assert record.multiply_accumulates == 0
    assert record.output_elements == 7


def test_inputs_of_trees_may_be_integers() -> None:
    made = model(
        [node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, **stump(2))],
        {"x": (1, 3)},
        types={"x": TensorProto.INT64},
    )
    assert records(made)[0].flops == 3


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("TreeEnsembleClassifier", {}),
        ("LinearClassifier", {"coefficients": [0.5] * 9}),
        (
            "SVMClassifier",
            {"support_vectors": [1.0] * 6, "coefficients": [1.0] * 4, "vectors_per_class": [1, 1]},
        ),
    ],
)
def test_a_classifier_gives_a_label_and_a_score_for_each_class(
    op_type: str, attributes: dict[str, Any]
) -> None:
    trees = {name: value for name, value in stump(1).items() if name.startswith("nodes")}
    labels: dict[str, Any] = {"classlabels_strings": ["a", "b", "c"]}
    made = model(
        [node(op_type, ["x"], ["l", "y"], domain=ML, **labels, **(attributes or trees))], {"x": (7, 3)}
    )
    (record,) = records(made)
    assert record.output_elements == 7 + 7 * 3
    assert record.flops > 0
