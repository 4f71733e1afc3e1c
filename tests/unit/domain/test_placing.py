from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tailwise.api.inference_workload_status import PlacementResult, PredictionSource
from tailwise.api.placement_policy import Fallback, Objective
from tailwise.domain.assumption import (
    AssumedLoad,
    Assumption,
    assume,
    discard,
    expected_millicores,
    mark_ready,
    settle,
)
from tailwise.domain.capacity import assumed_utilisation, effective_capacity
from tailwise.domain.conditions import Finding, with_findings
from tailwise.domain.fallback import Hold, Release, Wait, fallback_step
from tailwise.domain.filtering import filter_nodes
from tailwise.domain.parse import pod_from_object
from tailwise.domain.record import PlacementRecord
from tailwise.domain.scoring import DecisionOutcome, Preferences, decide
from tailwise.domain.state import ClusterState
from tailwise.domain.verdicts import all_fit
from tests.unit.domain.builders import bound, node, pod, pod_object, predicted

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
RECORD = PlacementRecord(PlacementResult.PLACED, NOW, "node-1", 20, 25, 30, PredictionSource.PRIOR, 7)


def _equal(count: int) -> Preferences:
    return Preferences(np.zeros(count, dtype=np.int64), np.zeros(count))


# ---- Algorithm 1


def test_the_least_predicted_p90_wins_and_the_next_is_named() -> None:
    decision = decide(all_fit(("a", "b", "c")), predicted(30, 10, 20), _equal(3), slo_milliseconds=40)
    assert decision.node == "b"
    assert decision.runner_up is not None and decision.runner_up.node == "c"
    assert decision.headroom_milliseconds == 28


def test_tightest_takes_the_least_headroom_that_still_holds() -> None:
    decision = decide(
        all_fit(("a", "b", "c")),
        predicted(10, 20, 40),
        _equal(3),
        slo_milliseconds=30,
        objective=Objective.TIGHTEST,
    )
    assert decision.node == "b"


def test_tightest_tells_nodes_apart_however_far_the_slo() -> None:
    decision = decide(
        all_fit(("a", "b")),
        predicted(10, 20),
        _equal(2),
        slo_milliseconds=60_000,
        objective=Objective.TIGHTEST,
    )
    assert decision.node == "b"


def test_where_no_node_meets_the_slo_the_nearest_is_named_with_what_it_lacks() -> None:
    decision = decide(all_fit(("node-1", "node-7")), predicted(50, 40), _equal(2), slo_milliseconds=30)
    assert decision.outcome is DecisionOutcome.SLO_UNATTAINABLE
    assert decision.node is None
    assert decision.message() == "0/2 nodes fit: 2 SLO; best is 48 ms on node-7, SLO is 30 ms"


def test_nodes_without_hardware_data_or_prediction_are_reasons_of_their_own() -> None:
    guesses = predicted(float("nan"), 10, 20)
    guesses.has_hardware[1] = False
    decision = decide(all_fit(("a", "b", "c")), guesses, _equal(3), slo_milliseconds=99)
    assert decision.node == "c"
    assert decision.verdicts.summary() == (
        "1/3 nodes fit: 1 node(s) without a prediction, 1 node(s) without hardware data"
    )


def test_ties_go_to_the_node_with_fewest_pods_of_the_workload_then_least_assumed_then_by_turn() -> None:
    names, guesses = all_fit(("a", "b", "c")), predicted(10, 10.05, 10)
    pods = np.array([1, 0, 0])
    assert decide(names, guesses, Preferences(pods, np.zeros(3)), slo_milliseconds=99).node == "b"
    assumed = np.array([0.0, 2.0, 0.0])
    assert decide(names, guesses, Preferences(pods, assumed), slo_milliseconds=99).node == "c"
    turned = Preferences(np.zeros(3, dtype=np.int64), np.zeros(3), rotation=2)
    assert decide(names, guesses, turned, slo_milliseconds=99).node == "c"


def test_a_hundred_equal_pods_at_once_spread_five_to_each_of_twenty_equal_nodes() -> None:
    state, ledger = ClusterState(), AssumedLoad()
    for number in range(20):
        state.put_node(node(f"node-{number:02}", cpu="16"))
    capacity, idle = np.full(20, 16.0), np.zeros(20)
    for number in range(100):
        candidate = pod(f"pod-{number}")
        snapshot = state.snapshot()
        assumed = ledger.cores(snapshot.table)
        busy = idle + assumed_utilisation(assumed, capacity)
        decision = decide(
            filter_nodes(candidate, snapshot),
            predicted(*(10 / (1 - 0.9 * busy))),
            Preferences(snapshot.workload_pods("default", "resnet"), assumed),
            slo_milliseconds=500,
        )
        assert decision.node is not None
        state.assume(candidate, decision.node)
        ledger = assume(ledger, Assumption(candidate.uid, decision.node, 1000, NOW))
    assert state.snapshot().workload_pods("default", "resnet").tolist() == [5] * 20


# ---- state


def test_a_pod_counts_on_its_node_from_the_patch_on_and_only_once() -> None:
    state = ClusterState()
    state.put_node(node())
    gated = pod()
    state.put_pod(gated)
    state.assume(gated, "node-1")
    state.put_pod(gated)  # an older state of the pod arrives by the watch
    assert state.snapshot().free("cpu").tolist() == [3500]
    state.put_pod(
        pod(gates=(), annotations={"tailwise.dev/placement-result": "Placed", "tailwise.dev/node": "node-1"})
    )
    state.put_pod(bound("pod-1", "node-1"))
    assert state.snapshot().free("cpu").tolist() == [3500]
    state.remove_pod("uid-pod-1")
    assert state.snapshot().free("cpu").tolist() == [4000]


def test_a_finished_pod_takes_nothing() -> None:
    state = ClusterState()
    state.put_node(node())
    state.put_pod(bound("a", "node-1"))
    finished = pod_object("a", gates=(), nodeName="node-1") | {"status": {"phase": "Succeeded"}}
    state.put_pod(pod_from_object(finished))
    assert state.snapshot().free("pods").tolist() == [110]


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["node", "no node", "pod", "no pod", "look"]), st.integers(0, 4), st.integers(0, 4)
    ),
    max_size=30,
)


@given(_CHANGES)
def test_a_state_that_followed_changes_equals_one_made_of_what_is_left(
    changes: list[tuple[str, int, int]],
) -> None:
    state = ClusterState()
    nodes, pods = {}, {}
    for kind, one, other in changes:
        if kind == "node":
            nodes[f"n{one}"] = node(f"n{one}", cpu=str(other + 1))
            state.put_node(nodes[f"n{one}"])
        elif kind == "no node":
            nodes.pop(f"n{one}", None)
            state.remove_node(f"n{one}")
        elif kind == "pod":
            pods[f"uid-p{one}"] = bound(
                f"p{one}", f"n{other}", host_ports=[{"containerPort": 1, "hostPort": 80 + one}]
            )
            state.put_pod(pods[f"uid-p{one}"])
        elif kind == "no pod":
            pods.pop(f"uid-p{one}", None)
            state.remove_pod(f"uid-p{one}")
        else:
            state.snapshot()
    fresh = ClusterState()
    for each in nodes.values():
        fresh.put_node(each)
    for resident in pods.values():
        fresh.put_pod(resident)
    left, right = state.snapshot(), fresh.snapshot()
    assert left.names == right.names
    for resource in ("cpu", "memory", "pods"):
        assert left.free(resource).tolist() == right.free(resource).tolist()
    assert left.workload_nodes == right.workload_nodes
    assert {key: set(uses) for key, uses in left.ports.items()} == {
        key: set(uses) for key, uses in right.ports.items()
    }


# ---- assumption and capacity


def test_unknown_utilisation_stays_unknown() -> None:
    left = effective_capacity(np.array([4.0, 8.0]), np.array([0.25, np.nan]), np.full(2, 2300.0), np.zeros(2))
    assert left.cores[0] == 3.0
    assert np.isnan(left.cores[1])


@pytest.mark.parametrize(
    ("cpu_seconds", "rate", "limit", "millicores"),
    [
        (0.05, 10.0, None, 500),
        (0.05, 100.0, 2000, 2000),
        (None, None, 1500, 1500),
        (None, None, None, 8000),
        (None, 5.0, None, 700),
    ],
)
def test_expected_load_is_the_best_that_is_known(
    cpu_seconds: float | None, rate: float | None, limit: int | None, millicores: int
) -> None:
    found = expected_millicores(
        cpu_seconds_per_query=cpu_seconds,
        requests_per_second=rate,
        concurrency=4,
        threads=2,
        cpu_limit_millicores=limit,
        cpu_request_millicores=700,
    )
    assert found == millicores


def _settle(ledger: AssumedLoad, seconds: int, sampled: int | None) -> AssumedLoad:
    samples = {} if sampled is None else {"node-1": NOW + timedelta(seconds=sampled)}
    return settle(
        ledger,
        NOW + timedelta(seconds=seconds),
        sampled_at=samples,
        rate_window=timedelta(seconds=60),
        longest_wait=timedelta(minutes=5),
    )


def test_assumed_load_goes_as_samples_come_to_show_it_and_not_before() -> None:
    ledger = assume(AssumedLoad(), Assumption("u", "node-1", 1000, NOW))
    ledger = mark_ready(ledger, "u", NOW + timedelta(seconds=20))
    assert _settle(ledger, 30, 15).by_node == {"node-1": 1000}
    assert _settle(ledger, 3600, None).by_node == {"node-1": 1000}
    assert _settle(ledger, 60, 50).by_node == {"node-1": 500}
    assert _settle(_settle(ledger, 60, 50), 90, 80).by_node == {}


def test_a_pod_that_never_starts_or_goes_is_no_longer_counted_on() -> None:
    ledger = assume(AssumedLoad(), Assumption("u", "node-1", 1000, NOW))
    assert _settle(ledger, 299, 290).by_node == {"node-1": 1000}
    assert _settle(ledger, 301, 290).by_node == {}
    assert discard(ledger, "u").by_node == {}


# ---- fallback and conditions


@pytest.mark.parametrize(
    ("age", "fallback", "step"),
    [
        (59, Fallback.DEFAULT_SCHEDULER, Wait(NOW + timedelta(seconds=1))),
        (60, Fallback.DEFAULT_SCHEDULER, Release()),
        (60, Fallback.HOLD, Hold()),
        (-30, Fallback.HOLD, Wait(NOW + timedelta(seconds=60))),
    ],
)
def test_a_pod_waits_for_its_time_out_and_no_longer(age: int, fallback: Fallback, step: object) -> None:
    created = NOW - timedelta(seconds=age)
    assert fallback_step(created, NOW, timeout_seconds=60, fallback=fallback) == step


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    def look(
        before: tuple[Condition, ...], status: ConditionStatus, generation: int, hours: int
    ) -> tuple[Condition, ...]:
        return with_findings(
            before,
            [Finding(ConditionType.PLACED, status, Reason.PODS_PENDING, f"look {generation}")],
            generation=generation,
            now=NOW + timedelta(hours=hours, microseconds=9),
            order=(ConditionType.READY, ConditionType.PLACED),
        )

    first = look((), ConditionStatus.FALSE, 1, 0)
    again = look(first, ConditionStatus.FALSE, 2, 1)
    assert again[0].last_transition_time == NOW
    assert (again[0].observed_generation, again[0].message) == (2, "look 2")
    changed = look(again, ConditionStatus.TRUE, 2, 2)
    assert changed[0].last_transition_time == NOW + timedelta(hours=2)
    assert look(changed, ConditionStatus.TRUE, 2, 3) == changed
