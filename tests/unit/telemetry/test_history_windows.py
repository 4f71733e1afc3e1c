"""Which windows become rows, case by case; the same against a real Prometheus stands in tests/telemetry."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.serving_metrics import ServingMetrics, ServingPreset
from tailwise.prediction.prediction import Serving
from tailwise.telemetry.history import FaultKind, _fault_in, _Read, _unusable
from tailwise.telemetry.history_queries import Part, Values
from tailwise.telemetry.join import DatasetJoin, JoinedPod, ServedPods, ServingSettings
from tailwise.telemetry.ranges import Span
from tailwise.telemetry.served import Served, life_of, served_of
from tailwise.training.rows import DropReason
from tests.unit.prediction.builders import profile


@pytest.mark.parametrize(
    ("values", "full", "reason"),
    [
        ({Part.P90: 0.09, Part.HIGHEST: 0.2, Part.RATE: 10, Part.SAMPLES: 20}, 20, None),
        ({Part.P90: 0.09, Part.SAMPLES: 14}, 20, None),
        ({Part.P90: 0.09, Part.SAMPLES: 13}, 20, DropReason.GAP),
        ({Part.P90: 0.09}, 20, DropReason.GAP),
        ({Part.P90: 0.09}, None, None),  # a query of one's own tells no counter
        ({Part.P90: 0.09, Part.SAMPLES: 20, Part.RESETS: 1}, 20, DropReason.RESET),
        ({Part.P90: 0.2, Part.HIGHEST: 0.2, Part.SAMPLES: 20}, 20, DropReason.ABOVE_BUCKETS),
        ({Part.P90: math.nan, Part.RATE: 0, Part.SAMPLES: 20}, 20, DropReason.TOO_FEW_QUERIES),
    ],
)
def test_a_window_is_used_when_it_was_scraped_whole_and_its_counter_never_fell(
    values: dict[Part, float], full: float | None, reason: DropReason | None
) -> None:
    assert _unusable(values, full) is reason


def read_of(served: list[int], used: list[int]) -> _Read:
    """Windows of a pod, by number, in which its server's latency and its own CPU were read."""
    values: Values = defaultdict(dict)
    for place in served:
        values["a", 300.0 * place][Part.P90] = 0.09
    for place in used:
        values["a", 300.0 * place][Part.CPU] = 0.5
    return _Read(values, {}, 1000.0, True, False, "request_predict_seconds", "nothing is there")


@pytest.mark.parametrize(
    ("served", "used", "kind", "told"),
    [
        ([1, 2, 3], [1, 2, 3], None, ""),
        ([1, 2], [1, 2, 3, 4, 5], None, ""),
        ([1, 2], [1, 2, 3, 4, 5, 6], FaultKind.VANISHED, "request_predict_seconds of shop/iris has vanished"),
        ([], [1, 2], FaultKind.NO_SERIES, "nothing is there"),
        ([1, 2], [], FaultKind.NO_SERIES, "container_cpu_usage_seconds_total"),
    ],
)
def test_a_metric_that_was_never_there_or_is_no_longer_is_named(
    served: list[int], used: list[int], kind: FaultKind | None, told: str
) -> None:
    fault = _fault_in("shop/iris", read_of(served, used), timedelta(seconds=300), any_rows=True)
    assert (fault.kind if fault else None) is kind
    assert told in (fault.message if fault else "")


def test_series_without_a_row_are_told_as_such() -> None:
    fault = _fault_in("shop/iris", read_of([1], [1]), timedelta(seconds=300), any_rows=False)
    assert fault is not None
    assert fault.kind is FaultKind.NO_ROWS


@given(
    st.lists(
        st.tuples(st.integers(-20, 40), st.one_of(st.none(), st.integers(0, 30))), min_size=1, max_size=5
    )
)
def test_no_window_that_a_pod_stood_through_is_left_out(
    lives: list[tuple[int, int | None]],
) -> None:
    step, noon = timedelta(seconds=60), datetime(2026, 1, 1, tzinfo=UTC)
    span = Span(noon, noon + 20 * step, step)
    pods = [
        JoinedPod(
            name="a",
            since=noon + since * step / 2,
            until=None if length is None else noon + (since + length) * step / 2,
        )
        for since, length in lives
    ]
    metrics = ServingMetrics(preset=ServingPreset.KSERVE)
    served = Served("shop", "iris", "a", metrics, profile(), Serving(None), pods=tuple(pods))
    ends = [(noon + place * step).timestamp() for place in range(21)]
    stood = [end for end in ends if any(pod.lived(end - 60, end) for pod in pods)]
    life = life_of(served, span)
    if life is None:
        assert not stood
    else:
        asked = [(life.begin + place * step).timestamp() for place in range(life.points)]
        assert set(stood) <= set(asked) <= set(ends)
        # Asked for no longer than from the first to the last of them that may count.
        assert len(asked) <= len(ends)


def test_a_document_with_many_pods_is_asked_for_in_pieces() -> None:
    pods = tuple(JoinedPod(name=f"a.{place}") for place in range(450))
    join = DatasetJoin(
        profiles={"m": profile()},
        served=(
            ServedPods(
                namespace="shop",
                workload="iris",
                profile="m",
                metrics=ServingMetrics(preset=ServingPreset.KSERVE),
                serving=ServingSettings(cpu_limit_millicores=500, threads=2),
                pods=pods,
            ),
        ),
    )
    pieces = served_of(join)
    assert [len(each.pods) for each in pieces] == [200, 200, 50]
    assert {pod.name for each in pieces for pod in each.pods} == {pod.name for pod in pods}
    assert all(re.fullmatch(each.pods_pattern, pod.name) for each in pieces for pod in each.pods)
    assert not re.fullmatch(pieces[0].pods_pattern, "ax0")
    assert pieces[0].serving == Serving(500, threads=2)
