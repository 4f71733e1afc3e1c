from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.prediction.quota import Quota, back_to_back_latencies, nearest_rank, wall_milliseconds


def wall(cpu: float, rate: float, *quotas: Quota) -> float:
    return float(wall_milliseconds(np.array(cpu), rate, quotas))


@pytest.mark.parametrize(
    ("cpu", "rate", "quotas", "expected"),
    [
        (30.0, 1.0, [], 30.0),
        (30.0, 2.0, [], 15.0),
        (49.0, 1.0, [Quota(50.0, 100.0)], 49.0),
        (60.0, 1.0, [Quota(50.0, 100.0)], 110.0),
        (110.0, 1.0, [Quota(50.0, 100.0)], 210.0),
        (120.0, 2.0, [Quota(100.0, 100.0)], 110.0),
        (60.0, 1.0, [Quota(150.0, 100.0)], 60.0),
        (12.0, 1.0, [Quota(5.0, 10.0)], 22.0),
        # 30 ms a 100 ms on half a core in 10 ms periods: 30 ms take 55 ms, then a pause till 100 ms.
        (35.0, 1.0, [Quota(30.0, 100.0), Quota(5.0, 10.0)], 105.0),
        # The node's quota is the smaller one: the pod's never binds.
        (35.0, 1.0, [Quota(80.0, 100.0), Quota(5.0, 10.0)], 65.0),
    ],
)
def test_a_quota_stops_the_pod_until_the_next_period(
    cpu: float, rate: float, quotas: list[Quota], expected: float
) -> None:
    assert wall(cpu, rate, *quotas) == pytest.approx(expected)


def played_by_events(cpu: float, rate: float, quotas: list[Quota]) -> float:
    """The same by a loop over events, as the kernel does it: run, spend, wait for the next refill."""
    now, left, spent = 0.0, cpu, [0.0] * len(quotas)
    while left > 1e-9:
        room = [float(q.quota_milliseconds) - s for q, s in zip(quotas, spent, strict=True)]
        refills = [(np.floor(now / q.period_milliseconds + 1e-9) + 1) * q.period_milliseconds for q in quotas]
        until = min(refills, default=np.inf)
        if min(room, default=np.inf) <= 1e-9:
            now = until
        else:
            burnt = min(left, *room, (until - now) * rate) if quotas else left
            now, left = now + burnt / rate, left - burnt
            spent = [s + burnt for s in spent]
        for index, refill in enumerate(refills):
            if now >= refill - 1e-9:
                spent[index] = 0.0
    return now


@given(st.floats(0.5, 400.0), st.sampled_from([1.0, 2.0, 4.0]), st.floats(5.0, 200.0), st.floats(1.0, 40.0))
def test_the_closed_form_says_what_playing_the_events_says(
    cpu: float, rate: float, pod: float, node: float
) -> None:
    quotas = [Quota(pod, 100.0), Quota(node, 10.0)]
    assert wall(cpu, rate, *quotas) == pytest.approx(played_by_events(cpu, rate, quotas), abs=0.01)


def test_queries_of_a_closed_loop_wait_for_those_before_them() -> None:
    latencies = back_to_back_latencies(np.full(6, 10.0), np.array(1.0), [], concurrency=3)
    assert latencies.tolist() == pytest.approx([30.0] * 4)


def test_p90_is_the_nearest_rank_of_equation_10() -> None:
    values = np.arange(1.0, 11.0)
    assert nearest_rank(values, 0.9) == 9.0
    assert nearest_rank(np.arange(1.0, 1025.0), 0.9) == 922.0
    assert nearest_rank(np.array([7.0]), 0.9) == 7.0
