"""Tree ensembles of three libraries as one kind of table: the attributes of ONNX' TreeEnsembleRegressor.

ONNX compares in float32. scikit-learn and LightGBM keep thresholds in float64: they are rounded *down* to
float32, for a float32 feature is at most ``t`` exactly when it is at most the largest float32 not above
``t``. Rounded to nearest, rows at a threshold go the other way (0.08 off in the logarithm was seen). XGBoost
compares in float32 itself, with ``<``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tailwise.prediction.quota import FloatArray


@dataclass(slots=True)
class TreeTable:
    """Nodes of all trees, one list an attribute; ``base`` is added to the sum of the leaves."""

    base: float = 0.0
    tree_ids: list[int] = field(default_factory=list)
    node_ids: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    leaf_trees: list[int] = field(default_factory=list)
    leaf_nodes: list[int] = field(default_factory=list)
    leaf_values: list[float] = field(default_factory=list)

    def split(
        self, tree: int, node: int, feature: int, mode: str, threshold: float, ends: tuple[int, int]
    ) -> None:
        """Add a node that asks; ``ends`` are where it leads when true and when false."""
        self._node(tree, node, feature, mode, threshold, ends)

    def leaf(self, tree: int, node: int, value: float) -> None:
        """Add a node that answers."""
        self._node(tree, node, 0, "LEAF", 0.0, (0, 0))
        self.leaf_trees.append(tree)
        self.leaf_nodes.append(node)
        self.leaf_values.append(value)

    def _node(
        self, tree: int, node: int, feature: int, mode: str, threshold: float, ends: tuple[int, int]
    ) -> None:
        self.tree_ids.append(tree)
        self.node_ids.append(node)
        self.features.append(feature)
        self.modes.append(mode)
        self.thresholds.append(threshold)
        self.true_ids.append(ends[0])
        self.false_ids.append(ends[1])


def floor_float32(values: FloatArray) -> FloatArray:
    """The largest float32 not above each value, as float64."""
    nearest = np.asarray(values, dtype=np.float64).astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > values, below, nearest).astype(np.float64)


def forest_table(forest: Any) -> TreeTable:
    """A RandomForestRegressor: the mean of its trees."""
    table = TreeTable()
    for number, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        values = tree.value[:, 0, 0] / len(forest.estimators_)
        thresholds = floor_float32(tree.threshold)
        for node in range(tree.node_count):
            if tree.children_left[node] == -1:
                table.leaf(number, node, float(values[node]))
            else:
                ends = (int(tree.children_left[node]), int(tree.children_right[node]))
                table.split(
                    number, node, int(tree.feature[node]), "BRANCH_LEQ", float(thresholds[node]), ends
                )
    return table


def lightgbm_table(model: Any) -> TreeTable:
    """An LGBMRegressor: the sum of its trees."""
    table = TreeTable()
    for number, tree in enumerate(model.booster_.dump_model()["tree_info"]):
        numbers = {id(node): place for place, node in enumerate(_walk(tree["tree_structure"]))}
        for node in _walk(tree["tree_structure"]):
            place = numbers[id(node)]
            if "leaf_value" in node:
                table.leaf(number, place, float(node["leaf_value"]))
                continue
            if node["decision_type"] != "<=":
                raise ValueError(f"LightGBM split {node['decision_type']!r} is not numeric")
            threshold = float(floor_float32(np.array([float(node["threshold"])]))[0])
            ends = (numbers[id(node["left_child"])], numbers[id(node["right_child"])])
            table.split(number, place, int(node["split_feature"]), "BRANCH_LEQ", threshold, ends)
    return table


def _walk(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        if "leaf_value" not in current:
            waiting += [current["right_child"], current["left_child"]]


def xgboost_table(model: Any) -> TreeTable:
    """An XGBRegressor: the sum of its trees on a base score."""
    learner = json.loads(model.get_booster().save_raw("json"))["learner"]
    base = str(learner["learner_model_param"]["base_score"]).strip("[]")
    table = TreeTable(base=float(base))
    for number, tree in enumerate(learner["gradient_booster"]["model"]["trees"]):
        for node, left in enumerate(tree["left_children"]):
            threshold = float(tree["split_conditions"][node])
            if left == -1:
                table.leaf(number, node, threshold)
            else:
                ends = (int(left), int(tree["right_children"][node]))
                table.split(number, node, int(tree["split_indices"][node]), "BRANCH_LT", threshold, ends)
    return table
