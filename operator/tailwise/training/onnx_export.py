"""A version as one ONNX graph: the P90's target, its upper quantile and the distance from what was seen.

Input ``features``: float32 (rows, features), NaN where unknown. Outputs, each float32 (rows, 1): ``target``,
``upper`` (logarithm of the P90's quantile over its base) and ``distance`` (above 1: out of distribution).
Built by hand from the libraries' own tables: no library's version and no time gets into the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tailwise.api.training_policy import TrainableAlgorithm
from tailwise.training.candidates import Fitted
from tailwise.training.distance import Gate
from tailwise.training.matrix import UNKNOWN
from tailwise.training.perceptron import FARTHEST, Perceptron
from tailwise.training.trees import TreeTable, forest_table, lightgbm_table, xgboost_table

# What every ONNX Runtime since 1.14 reads.
_OPSET, _ML_OPSET, _IR_VERSION = 17, 3, 8


@dataclass(slots=True)
class _Graph:
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, name: str, values: Any, kind: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=kind), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def onnx_bytes(fitted: Fitted, quantile: Any, gates: Sequence[Gate], features: int) -> bytes:
    """The graph as a file's bytes; the same models give the same bytes."""
    graph = _Graph()
    unknown = graph.node("IsNaN", ["features"], "is_unknown")
    known = graph.node("Where", [unknown, graph.constant("unknown", UNKNOWN), "features"], "known")
    logs = graph.node("Max", [known, graph.constant("zero", 0.0)], "not_negative")
    logs = graph.node("Add", [logs, graph.constant("one", 1.0)], "one_more")
    logs = graph.node("Log", [logs], "logs")
    if isinstance(fitted.estimator, Perceptron):
        _perceptron(graph, fitted.estimator, logs)
    else:
        _trees(graph, _table(fitted), known, "target")
    _trees(graph, lightgbm_table(quantile), known, "upper")
    _distance(graph, gates, logs)
    made = helper.make_graph(
        graph.nodes,
        "tailwise",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", features])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1])
            for name in ("target", "upper", "distance")
        ],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(made, opset_imports=opsets, producer_name="tailwise")
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _table(fitted: Fitted) -> TreeTable:
    match fitted.candidate.algorithm:
        case TrainableAlgorithm.RANDOM_FOREST:
            return forest_table(fitted.estimator)
        case TrainableAlgorithm.LIGHTGBM:
            return lightgbm_table(fitted.estimator)
        case TrainableAlgorithm.XGBOOST:
            return xgboost_table(fitted.estimator)
    raise ValueError(f"{fitted.candidate.algorithm} has no trees")


def _trees(graph: _Graph, table: TreeTable, known: str, output: str) -> None:
    graph.node(
        "TreeEnsembleRegressor",
        [known],
        output,
        domain="ai.onnx.ml",
        aggregate_function="SUM",
        post_transform="NONE",
        n_targets=1,
        base_values=[table.base],
        nodes_treeids=table.tree_ids,
        nodes_nodeids=table.node_ids,
        nodes_featureids=table.features,
        nodes_modes=table.modes,
        nodes_values=table.thresholds,
        nodes_truenodeids=table.true_ids,
        nodes_falsenodeids=table.false_ids,
        target_treeids=table.leaf_trees,
        target_nodeids=table.leaf_nodes,
        target_ids=[0] * len(table.leaf_trees),
        target_weights=table.leaf_values,
    )


def _perceptron(graph: _Graph, model: Perceptron, logs: str) -> None:
    current = graph.node("Sub", [logs, graph.constant("mlp_mean", model.mean_)], "mlp_centred")
    current = graph.node("Div", [current, graph.constant("mlp_scale", model.scale_)], "mlp_standard")
    limits = [graph.constant("mlp_least", -FARTHEST), graph.constant("mlp_most", FARTHEST)]
    current = graph.node("Clip", [current, *limits], "mlp_clipped")
    layers = list(zip(model.network_.coefs_, model.network_.intercepts_, strict=True))
    for place, (weights, bias) in enumerate(layers):
        inputs = [current, graph.constant(f"mlp_w{place}", weights), graph.constant(f"mlp_b{place}", bias)]
        current = graph.node("Gemm", inputs, f"mlp_{place}")
        if place < len(layers) - 1:
            current = graph.node("Relu", [current], f"mlp_relu{place}")
    current = graph.node("Mul", [current, graph.constant("target_scale", model.target_scale_)], "mlp_scaled")
    graph.node("Add", [current, graph.constant("target_mean", model.target_mean_)], "target")


def _distance(graph: _Graph, gates: Sequence[Gate], logs: str) -> None:
    """sqrt(min over prototypes of mean((x - p)^2)) / reach, and how far beyond its range a feature lies.

    The square is taken apart, x.x - 2 x.p + p.p, so that no (rows, prototypes, features) array is made.
    """
    axes = graph.constant("last_axis", [1], np.int64)
    distances = []
    for gate in gates:
        kind = gate.kind
        width = len(gate.columns)
        picked = graph.node(
            "Gather",
            [logs, graph.constant(f"{kind}_columns", gate.columns, np.int64)],
            f"{kind}_logs",
            axis=1,
        )
        centred = graph.node("Sub", [picked, graph.constant(f"{kind}_mean", gate.mean)], f"{kind}_centred")
        scale = graph.constant(f"{kind}_scale", gate.scale * np.sqrt(width))
        standard = graph.node("Div", [centred, scale], f"{kind}_standard")
        prototypes = gate.prototypes / np.sqrt(width)
        own = graph.node("Mul", [standard, standard], f"{kind}_squares")
        own = graph.node("ReduceSum", [own, axes], f"{kind}_own", keepdims=1)
        crossed = graph.constant(f"{kind}_prototypes", -2 * prototypes.T)
        theirs = graph.constant(f"{kind}_theirs", (prototypes**2).sum(axis=1)[np.newaxis])
        apart = graph.node("MatMul", [standard, crossed], f"{kind}_product")
        apart = graph.node("Add", [apart, theirs], f"{kind}_partly")
        apart = graph.node("ReduceMin", [apart], f"{kind}_least", axes=[1], keepdims=1)
        apart = graph.node("Add", [apart, own], f"{kind}_square")
        apart = graph.node("Max", [apart, "zero"], f"{kind}_square_not_negative")
        apart = graph.node("Sqrt", [apart], f"{kind}_root")
        reach = graph.constant(f"{kind}_reach", gate.reach)
        distances.append(graph.node("Div", [apart, reach], f"{kind}_distance"))
        away = graph.node("Sub", [picked, graph.constant(f"{kind}_middle", gate.middle)], f"{kind}_away")
        away = graph.node("Abs", [away], f"{kind}_away_by")
        away = graph.node("Div", [away, graph.constant(f"{kind}_allowed", gate.allowed)], f"{kind}_beyond")
        distances.append(graph.node("ReduceMax", [away], f"{kind}_farthest", axes=[1], keepdims=1))
    if not distances:
        none = graph.node("ReduceSum", [logs, axes], "distance_none", keepdims=1)
        distances.append(graph.node("Mul", [none, "zero"], "distance_zero"))
    graph.node("Max", distances, "distance")
