"""What a newcomer does to the residents of a node, and what a full node's pods want."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.domain.neighbours import Crowd, demanded, resident_curve, seen_demand
from tailwise.domain.scoring import DecisionOutcome, NeighbourEffects, PredictedLatencies, Preferences, decide
from tailwise.domain.verdicts import Filter, all_fit

GRID = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0])
# A model of 10 ms that shares a node with whoever else is there.
SHARED = 10.0 * (1.0 + GRID)


def crowd(*nodes: list[tuple[float, float]]) -> Crowd:
    """Residents of each node as (demand, SLO)."""
    curves = [[resident_curve(GRID, SHARED, SHARED, demand, slo) for demand, slo in node] for node in nodes]
    most = max(len(node) for node in curves)
    reached = [[curve.slo_reached_at for curve in node] + [np.inf] * (most - len(node)) for node in curves]
    summed = [sum((curve.p90_milliseconds for curve in node), np.zeros(len(GRID))) for node in curves]
    return Crowd(GRID, np.array(summed), np.array(reached))


def test_a_newcomer_adds_to_each_resident_what_its_share_takes() -> None:
    # Two pods that each want the whole node see each other; a third adds 10 ms to both.
    both = crowd([(1.0, 1e9), (1.0, 1e9)], [])
    added = both.added_milliseconds(np.array([2.0, 2.0]), np.array([1.0, 1.0]))
    assert added == pytest.approx([20.0, 0.0])


def test_a_node_of_unknown_load_adds_nothing_that_is_not_known() -> None:
    one = crowd([(1.0, 1e9)])
    assert one.added_milliseconds(np.array([np.nan]), np.array([1.0])).tolist() == [0.0]
    assert not one.pushed_over(np.array([np.nan]), np.array([1.0])).any()


@pytest.mark.parametrize(
    ("slo", "over"),
    [
        (35.0, False),  # 20 ms now, 30 ms with the newcomer
        (25.0, True),
        (15.0, False),  # missed already: the newcomer is not to blame
    ],
)
def test_a_resident_is_pushed_over_only_when_the_newcomer_makes_the_difference(
    slo: float, over: bool
) -> None:
    node = crowd([(1.0, slo)])
    assert node.pushed_over(np.array([2.0]), np.array([1.0])).tolist() == [over]


@given(
    st.lists(st.tuples(st.floats(0, 4), st.floats(1, 100)), max_size=5),
    st.floats(0, 8),
    st.floats(0, 4),
    st.floats(0, 4),
)
def test_more_newcomers_never_add_less(
    residents: list[tuple[float, float]], load: float, first: float, second: float
) -> None:
    node = crowd(residents, [])
    loads = np.array([load, load])
    less = node.added_milliseconds(loads, np.full(2, first))
    more = node.added_milliseconds(loads, np.full(2, first + second))
    assert (more >= less - 1e-9).all()
    assert (less >= 0).all()


def test_a_full_nodes_load_is_what_its_pods_want() -> None:
    utilisation = np.array([0.5, 1.0, 1.0, np.nan])
    wanted = np.array([4.0, 4.0, 0.0, 4.0])
    found = demanded(utilisation, wanted)
    assert found[:3].tolist() == [0.5, 4.0, 1.0]
    assert np.isnan(found[3])


def test_the_share_that_busy_pods_get_tells_how_many_there_are() -> None:
    # 0.6 cores, of which two busy pods get 0.12 each: three strangers' worth of demand have the rest.
    assert seen_demand(0.6, [(1.0, 0.12), (1.0, 0.12)]) == pytest.approx(5.0)
    # One of them has no traffic.
    assert seen_demand(0.6, [(1.0, 0.2), (1.0, 0.0)]) == pytest.approx(3.0)


def test_pods_without_traffic_say_nothing_of_a_full_node() -> None:
    assert seen_demand(0.6, [(1.0, 0.001), (1.0, 0.0)]) is None
    assert seen_demand(0.6, []) is None


def predicted(*p90: float) -> PredictedLatencies:
    values = np.array(p90)
    count = len(p90)
    return PredictedLatencies(
        values,
        values,
        values,
        np.zeros(count),
        np.ones(count, dtype=np.int8),
        np.ones(count, dtype=np.bool_),
    )


def choose(
    p90: tuple[float, ...], added: tuple[float, ...], over: tuple[bool, ...]
) -> tuple[str | None, str]:
    names = ("a", "b", "c")
    nothing = Preferences(np.zeros(3, dtype=np.int64), np.zeros(3))
    effects = NeighbourEffects(np.array(added), np.array(over))
    decision = decide(all_fit(names), predicted(*p90), nothing, slo_milliseconds=50, effects=effects)
    return decision.node, decision.message()


def test_the_node_where_all_lose_least_wins() -> None:
    assert choose((10, 20, 40), (100, 5, 0), (False, False, False))[0] == "b"


def test_a_node_where_a_resident_would_miss_its_slo_is_refused() -> None:
    node, message = choose((10, 20, 40), (0, 0, 0), (True, False, False))
    assert node == "b"
    assert f"1 {Filter.NEIGHBOURS}" in message


def test_when_only_residents_stand_in_the_way_that_is_what_is_told() -> None:
    names = ("a", "b", "c")
    nothing = Preferences(np.zeros(3, dtype=np.int64), np.zeros(3))
    effects = NeighbourEffects(np.zeros(3), np.array([True, True, True]))
    decision = decide(all_fit(names), predicted(60, 20, 30), nothing, slo_milliseconds=50, effects=effects)
    assert decision.outcome is DecisionOutcome.OVER_NEIGHBOURS
    assert decision.node is None
    assert "b would hold the SLO of 50 ms" in decision.message()
