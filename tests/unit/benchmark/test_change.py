"""A node that slows down: when the SLO held again is told by windows, and a pod on its way is no fast pod."""

import pytest

from tailwise.benchmark.change import held_percent, parse_answers, recovery_seconds, windows
from tailwise.benchmark.records import MoveRecord, WindowRecord

SLO = {"a": 100.0, "b": 100.0}


def series(slot: str, *p90s: float | None) -> list[WindowRecord]:
    return [
        WindowRecord(
            slot=slot,
            node="n",
            end_seconds=10.0 * (place + 1),
            queries=0 if p90 is None else 9,
            p90_milliseconds=p90,
        )
        for place, p90 in enumerate(p90s)
    ]


@pytest.mark.parametrize(
    ("p90s", "recovered"),
    [
        ((50, 50, 50, 50, 50), 0.0),
        ((50, 500, 50, 50, 50), 10.0),
        ((50, 500, None, 50, 50, 50), 20.0),
        # Two calm windows are too few to call it recovered.
        ((50, 500, 50, 50, 500), None),
        ((50, 500, 50, 50, 500, 50, 50, 50), 40.0),
        ((50, 500, 500, 500, 500), None),
    ],
)
def test_recovery_is_when_every_pod_holds_its_slo_for_thirty_seconds(
    p90s: tuple[float | None, ...], recovered: float | None
) -> None:
    found = [*series("a", *p90s), *series("b", *[50.0] * len(p90s))]
    assert recovery_seconds(found, SLO, 10.0) == recovered


def test_what_was_missed_before_the_change_does_not_count() -> None:
    assert recovery_seconds(series("a", 500, 50, 50, 50), SLO, 10.0) == 0.0
    assert held_percent(series("a", 500, 50, 50, 500, 500), SLO, 10.0) == 50.0


def test_windows_know_where_a_pod_was_and_when_it_answered_nothing() -> None:
    moves = [MoveRecord(slot="a", source="n1", target="n2", at_seconds=25.0)]
    found = windows({"a": [(5.0, 10.0), (9.0, 20.0), (31.0, 5.0)]}, {"a": "n1"}, moves, 40.0)
    assert [(each.node, each.queries, each.p90_milliseconds) for each in found] == [
        ("n1", 2, 20.0),
        ("n1", 0, None),
        ("n2", 0, None),
        ("n2", 1, 5.0),
    ]


def test_answers_are_read_in_parts() -> None:
    text = '{"began": 1.0}\n{"pod":"a","answers":[[1000,5000]]}\nnoise\n{"pod":"a","answers":[[2000,6000]]}\n'
    assert parse_answers(text) == {"a": [(1.0, 5.0), (2.0, 6.0)]}
