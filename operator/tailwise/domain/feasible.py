"""Several nodes instead of one: all that a decision found feasible, with weights that kube-scheduler adds up.

Policy Feasible asks for it. A pod that nobody would make again gets it too, with nearly all weight on the
winner: once its gate is open its affinity is for ever, and one node may refuse it.
"""

from __future__ import annotations

import numpy as np

from tailwise.api.placement_policy import Objective
from tailwise.domain.capacity import Floats
from tailwise.domain.objects import Node
from tailwise.domain.placement import HOSTNAME_LABEL, WeightedNode, headroom_weights
from tailwise.domain.scoring import Decision
from tailwise.domain.snapshot import NodeTable

# Each node is a term of the pod's affinity, which every component that watches pods keeps in memory.
MOST_NODES = 50
_WINNER, _LEAST = 100, 1


def feasible_nodes(
    decision: Decision,
    bound_milliseconds: Floats,
    table: NodeTable,
    *,
    objective: Objective,
    insist_on_winner: bool = False,
) -> list[WeightedNode]:
    """The winner with weight 100 and the other feasible nodes with less, at most ``MOST_NODES`` in all.

    ``bound_milliseconds``: (nodes,). Weights follow headroom (SLO less bound); with ``Tightest`` the least
    headroom weighs most; with ``insist_on_winner`` all but the winner weigh nothing: fifty preferences that
    are all alike made a pod four times as large for the API server and all who watch. Nodes without the label
    kubernetes.io/hostname cannot be named together with others and are left out. Empty where nothing was
    decided or the winner itself has no such label.
    """
    if decision.node is None or decision.best is None:
        return []
    winner = decision.best.position
    if not _nameable(table.nodes[winner]):
        return []
    headroom = decision.slo_milliseconds - bound_milliseconds
    tightest = objective is Objective.TIGHTEST
    others = [
        int(position)
        for position in np.flatnonzero(decision.verdicts.fits)
        if position != winner and _nameable(table.nodes[position])
    ]
    others.sort(key=lambda position: headroom[position] if tightest else -headroom[position])
    others = others[: MOST_NODES - 1]
    bounds = [float(bound_milliseconds[each]) for each in (winner, *others)]
    weights = headroom_weights(decision.slo_milliseconds, bounds)[1:]
    if tightest:
        weights = [_WINNER - weight for weight in weights]
    weights = [min(max(weight, _LEAST), _WINNER - 1) for weight in weights]
    if insist_on_winner:
        weights = [0] * len(others)
    return [
        WeightedNode(table.nodes[winner], _WINNER),
        *(
            WeightedNode(table.nodes[position], weight)
            for position, weight in zip(others, weights, strict=True)
        ),
    ]


def _nameable(node: Node) -> bool:
    return bool(node.labels.get(HOSTNAME_LABEL))
