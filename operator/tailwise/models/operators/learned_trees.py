"""Classical learners (ai.onnx.ml): trees, linear models and support vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tailwise.models.operators.rule import Rule, Rules, Uncountable, Work, product, shaped
from tailwise.models.records import OperatorKind
from tailwise.models.tensors import Call


def _rows_and_features(call: Call) -> tuple[int, int]:
    _, shape = shaped(call, 0, "X")
    if not shape:
        raise Uncountable("its input is a scalar")
    return (1, shape[0]) if len(shape) == 1 else (shape[0], math.prod(shape[1:]))


def _trees(call: Call) -> Work:
    """Each row passes each tree once: at most its depth in comparisons, and one addition of the leaf."""
    rows, _ = _rows_and_features(call)
    attributes = call.attributes
    identifiers = attributes.get("nodes_treeids")
    if not identifiers:
        raise Uncountable("its trees are not listed")
    depths = _depths(
        list(identifiers),
        list(attributes["nodes_nodeids"]),
        list(attributes["nodes_truenodeids"]),
        list(attributes["nodes_falsenodeids"]),
        list(attributes["nodes_modes"]),
    )
    return Work(flops=rows * sum(depth + 1 for depth in depths))


def _depths(
    trees: Sequence[int],
    nodes: Sequence[int],
    true_nodes: Sequence[int],
    false_nodes: Sequence[int],
    modes: Sequence[bytes],
) -> list[int]:
    """The depth of every tree; nodes are given as parallel lists, the root first (ONNX: TreeEnsemble)."""
    children: dict[int, dict[int, tuple[int, int] | None]] = {}
    for tree, node, left, right, mode in zip(trees, nodes, true_nodes, false_nodes, modes, strict=True):
        children.setdefault(tree, {})[node] = None if mode == b"LEAF" else (left, right)
    return [_depth(tree) for tree in children.values()]


def _depth(children: dict[int, tuple[int, int] | None]) -> int:
    """Levels below the root; a node that comes again (the file is broken) is not followed again."""
    level, depth, seen = [next(iter(children))], 0, set()
    while level:
        below: list[int] = []
        for node in level:
            pair = children.get(node)
            if pair is not None and node not in seen:
                below.extend(pair)
            seen.add(node)
        depth += bool(below)
        level = below
    return depth


def _ensemble(call: Call) -> Work:
    """TreeEnsemble (ai.onnx.ml 5): nodes refer to each other; a leaf is named by a flag."""
    rows, _ = _rows_and_features(call)
    attributes = call.attributes
    roots = list(attributes["tree_roots"])
    true_nodes, false_nodes = list(attributes["nodes_truenodeids"]), list(attributes["nodes_falsenodeids"])
    true_leaves, false_leaves = list(attributes["nodes_trueleafs"]), list(attributes["nodes_falseleafs"])
    total = 0
    for root in roots:
        level, depth, seen = [root], 0, set()
        while level:
            depth += 1
            fresh = [node for node in level if node not in seen and 0 <= node < len(true_nodes)]
            seen.update(fresh)
            level = [true_nodes[n] for n in fresh if not true_leaves[n]]
            level += [false_nodes[n] for n in fresh if not false_leaves[n]]
        total += depth + 1
    return Work(flops=rows * total)


def _linear(call: Call) -> Work:
    """Linear classifier and regressor: rows x outputs x features; coefficients are an attribute."""
    rows, features = _rows_and_features(call)
    coefficients = len(call.attributes.get("coefficients", ()))
    if not features or not coefficients:
        raise Uncountable("it has no coefficients")
    return product(rows, max(1, coefficients // features), features)


def _vectors(call: Call) -> Work:
    """Support vectors: each row against each vector, then a weighted sum."""
    rows, features = _rows_and_features(call)
    held = len(call.attributes.get("support_vectors", ()))
    vectors = max(1, held // max(1, features))
    return product(rows, vectors, features + 1)


RULES: Rules = {
    "TreeEnsembleClassifier": Rule(OperatorKind.OTHER, _trees),
    "TreeEnsembleRegressor": Rule(OperatorKind.OTHER, _trees),
    "TreeEnsemble": Rule(OperatorKind.OTHER, _ensemble),
    "LinearClassifier": Rule(OperatorKind.MATMUL, _linear),
    "LinearRegressor": Rule(OperatorKind.MATMUL, _linear),
    "SVMClassifier": Rule(OperatorKind.MATMUL, _vectors),
    "SVMRegressor": Rule(OperatorKind.MATMUL, _vectors),
    "ZipMap": Rule(OperatorKind.DATA_MOVEMENT, lambda _call: Work(), view=True),
}
