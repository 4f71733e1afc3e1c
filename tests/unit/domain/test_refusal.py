"""Pods that kube-scheduler refuses after their node was decided."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tailwise.api.inference_workload_status import PlacementResult
from tailwise.api.placement_policy import Objective
from tailwise.domain.feasible import MOST_NODES, feasible_nodes
from tailwise.domain.objects import Owner, Pod
from tailwise.domain.record import PlacementRecord
from tailwise.domain.refusal import GRACE, PREEMPTION_GRACE, LookAgain, MakeAnew, refusal_step
from tailwise.domain.scoring import Decision, Preferences, decide
from tailwise.domain.snapshot import NodeTable, node_table
from tailwise.domain.verdicts import all_fit
from tests.unit.domain.builders import node, pod, predicted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = PlacementRecord(PlacementResult.PLACED, NOW, "node-1")
OWNER = Owner("ReplicaSet", "r", "uid-r")


def refused(**changes: Any) -> Pod:
    given: dict[str, Any] = {"owner": OWNER, "record": RECORD, "unschedulable_since": NOW}
    return replace(pod(gates=()), **(given | changes))


@pytest.mark.parametrize("kind", ["ReplicaSet", "StatefulSet", "ReplicationController"])
def test_a_pod_that_its_controller_makes_again_is_made_anew_after_a_moment(kind: str) -> None:
    found = refused(owner=Owner(kind, "r", "uid-r"))
    assert refusal_step(found, NOW) == LookAgain(NOW + GRACE)
    assert refusal_step(found, NOW + GRACE) == MakeAnew()


def test_a_pod_for_which_others_are_evicted_is_given_the_time_of_their_end() -> None:
    found = refused(nominated_node="node-1")
    assert refusal_step(found, NOW + GRACE) == LookAgain(NOW + PREEMPTION_GRACE)


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": None},
        {"owner": Owner("Job", "j", "uid-j")},
        {"node_name": "node-1"},
        {"deleted_at": NOW},
        {"unschedulable_since": None},
        {"record": None},
        {"record": PlacementRecord(PlacementResult.FALLBACK, NOW)},
        {"gates": ("tailwise.dev/placement",)},
    ],
)
def test_everybody_else_is_left_alone(changes: dict[str, Any]) -> None:
    assert refusal_step(refused(**changes), NOW + timedelta(hours=1)) is None


# ---- several nodes


def _decided(*p90: float, objective: Objective = Objective.LOWEST_LATENCY) -> tuple[Decision, NodeTable]:
    names = tuple(f"n{number:03}" for number in range(len(p90)))
    table = node_table([node(name) for name in names])
    equal = Preferences(np.zeros(len(p90), dtype=np.int64), np.zeros(len(p90)))
    return decide(all_fit(names), predicted(*p90), equal, slo_milliseconds=60, objective=objective), table


def _weights(*p90: float, insist: bool = False, **arguments: Any) -> dict[str, int]:
    decision, table = _decided(*p90, **arguments)
    objective = arguments.get("objective", Objective.LOWEST_LATENCY)
    found = feasible_nodes(
        decision,
        predicted(*p90).bound_milliseconds,
        table,
        objective=objective,
        insist_on_winner=insist,
    )
    return {each.node.name: each.weight for each in found}


def test_weights_follow_headroom_and_nodes_that_miss_the_slo_are_out() -> None:
    assert _weights(10, 30, 45, 55) == {"n000": 100, "n001": 50, "n002": 12}


def test_with_tightest_the_least_headroom_weighs_most() -> None:
    assert _weights(10, 30, 45, objective=Objective.TIGHTEST) == {"n002": 100, "n001": 50, "n000": 1}


def test_all_weight_but_a_trace_may_lie_on_the_winner() -> None:
    assert _weights(10, 30, 45, insist=True) == {"n000": 100, "n001": 0, "n002": 0}


def test_of_very_many_nodes_those_with_most_headroom_are_named() -> None:
    weights = _weights(*(10 + number / 10 for number in range(200)))
    assert list(weights) == [f"n{number:03}" for number in range(MOST_NODES)]


def test_a_node_that_cannot_be_named_with_others_is_left_out() -> None:
    decision, _ = _decided(10, 20, 30)
    table = node_table([node("n000"), node("n001", labels={"other": "x"}), node("n002")])
    found = feasible_nodes(
        decision, predicted(10, 20, 30).bound_milliseconds, table, objective=Objective.LOWEST_LATENCY
    )
    assert [each.node.name for each in found] == ["n000", "n002"]
