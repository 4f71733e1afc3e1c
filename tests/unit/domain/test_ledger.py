"""The ledger's figures: which windows count, what a version is judged by, what another node would save."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.domain.ledger import (
    Alternative,
    Entry,
    Outcome,
    Reading,
    Sample,
    best_alternatives,
    is_whole,
    live_facts,
    percent,
    regret_share,
    sample_of,
)
from tailwise.domain.scoring import Preferences, decide
from tailwise.domain.verdicts import Filter, Refusal, all_fit
from tests.unit.domain.builders import predicted

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = timedelta(minutes=5)
LEARNED, PRIOR = PredictionSource.LEARNED, PredictionSource.PRIOR
milliseconds = st.floats(0.1, 1e4)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def outcome(p90: float = 40.0, end: float = 5, requests: float | None = 500.0) -> Outcome:
    return Outcome(p90, requests, at(end) - WINDOW, at(end))


def reading(minutes: float, p90: float = 40.0, version: int = 3, **fields: Any) -> Reading:
    return Reading(at(minutes), version, p90, fields.get("bound", 1.2 * p90), fields.get("source", LEARNED))


def sample(observed: float = 40.0, p90: float = 40.0, version: int = 3, **fields: Any) -> Sample:
    there = fields.get("there")
    other = None if there is None else Alternative("n2", there, 1.2 * there, LEARNED)
    return Sample(
        "uid",
        version,
        fields.get("source", LEARNED),
        p90,
        fields.get("bound", 1.2 * p90),
        outcome(observed, fields.get("end", 5)),
        other,
    )


def entry(**fields: Any) -> Entry:
    promised = {"predicted_p90_milliseconds": 40.0, "bound_milliseconds": 50.0, "slo_milliseconds": 60.0}
    return Entry("uid", "shop", "pod", "iris", "n1", NOON, "default", 3, LEARNED, **promised | fields)


@pytest.mark.parametrize(
    ("observed", "error", "exceeded"), [(40.0, 0.0, False), (50.0, 0.25, False), (60.0, 0.5, True)]
)
def test_a_placement_is_judged_by_its_own_promise(observed: float, error: float, exceeded: bool) -> None:
    known = entry(outcome=outcome(observed))
    assert known.error == pytest.approx(error)
    assert known.exceeded is exceeded


def test_what_was_not_observed_or_not_predicted_is_no_error() -> None:
    assert entry().error is None
    assert entry().exceeded is None
    unknown = entry(predicted_p90_milliseconds=None, bound_milliseconds=None, outcome=outcome())
    assert unknown.error is None
    assert unknown.exceeded is None


@pytest.mark.parametrize(
    ("window", "ready_at", "last_end", "whole"),
    [
        (outcome(), at(0), None, True),
        (outcome(), at(0.1), None, False),  # queries of a pod that was not ready
        (outcome(), None, None, False),
        (outcome(), at(-60), at(0), True),
        (outcome(), at(-60), at(1), False),  # overlaps the last
        (outcome(requests=9), at(-60), None, False),
        (outcome(requests=None), at(-60), None, True),
        (outcome(p90=0.0), at(-60), None, False),
        (outcome(p90=float("nan")), at(-60), None, False),
    ],
)
def test_a_window_counts_once_and_only_when_it_is_of_the_ready_pod_alone(
    window: Outcome, ready_at: datetime | None, last_end: datetime | None, whole: bool
) -> None:
    assert is_whole(window, ready_at, last_end) is whole


def test_a_sample_takes_the_median_of_what_was_predicted_within_the_window() -> None:
    readings = [reading(-1, 1000), reading(1, 30), reading(2, 40), reading(4, 90), reading(6, 1000)]
    made = sample_of("uid", readings, outcome(end=5), None)
    assert made is not None
    assert made.predicted_p90_milliseconds == 40
    assert made.bound_milliseconds == pytest.approx(48)


def test_a_version_is_not_judged_by_what_another_predicted() -> None:
    readings = [reading(1, 30, version=2), reading(2, 50, version=3), reading(3, 90, source=PRIOR)]
    readings += [reading(4, 60, version=3)]
    made = sample_of("uid", readings, outcome(end=5), None)
    assert made is not None
    assert (made.version, made.source, made.predicted_p90_milliseconds) == (3, LEARNED, 55)


def test_a_window_without_a_prediction_is_no_sample() -> None:
    assert sample_of("uid", [], outcome(), None) is None
    assert sample_of("uid", [reading(9)], outcome(end=5), None) is None


def test_figures_of_a_version_are_of_its_own_samples() -> None:
    samples = [
        sample(40, 40, there=20),
        sample(50, 40, there=60, end=10),
        sample(50, 40, end=15),
        sample(400, 40, version=2, end=20),
        sample(400, 40, source=PredictionSource.STALE, end=25),
        sample(400, 40, source=PredictionSource.OUT_OF_DISTRIBUTION, end=30),
    ]
    facts = live_facts(3, samples)
    assert (facts.window.samples, facts.window.exceedances) == (3, 2)
    assert facts.window.mape == pytest.approx((0 + 0.2 + 0.2) / 3)
    assert facts.regret == pytest.approx(0.25)
    assert (facts.since, facts.newest_at) == (at(0), at(15))


def test_a_version_that_nobody_saw_serve_has_no_figures() -> None:
    facts = live_facts(7, [sample()])
    assert facts.window.samples == 0
    assert facts.window.mape is None
    assert facts.since is None


@given(st.lists(st.tuples(milliseconds, milliseconds, st.integers(0, 2)), max_size=40))
def test_samples_of_all_versions_add_up(drawn: list[tuple[float, float, int]]) -> None:
    samples = [sample(observed, p90, version) for observed, p90, version in drawn]
    facts = [live_facts(version, samples) for version in range(3)]
    assert sum(each.window.samples for each in facts) == len(samples)
    assert sum(each.window.exceedances for each in facts) == sum(each.exceeded for each in samples)


@given(milliseconds, milliseconds)
def test_regret_is_a_share_and_nought_where_nothing_is_better(here: float, there: float) -> None:
    regret = regret_share(here, there)
    assert 0 <= regret <= 1
    assert (regret > 0) == (1 - there / here > 0)
    assert regret_share(0, there) == 0


@given(st.lists(st.one_of(milliseconds, st.just(float("nan"))), min_size=1, max_size=30), st.data())
def test_the_best_alternatives_are_the_fastest_other_nodes_that_fit(p90s: list[float], data: Any) -> None:
    names = tuple(f"n{place}" for place in range(len(p90s)))
    refused = np.array(data.draw(st.lists(st.booleans(), min_size=len(p90s), max_size=len(p90s))))
    here = data.draw(st.sampled_from(names))
    verdicts = all_fit(names).refuse(refused, Refusal(Filter.TAINT))
    figures = predicted(*p90s)
    decision = decide(
        verdicts,
        figures,
        Preferences(np.zeros(len(p90s), dtype=np.int64), np.zeros(len(p90s))),
        slo_milliseconds=1e9,
    )
    found = best_alternatives(decision, figures, here)
    allowed = sorted(
        p90 for p90, name, no in zip(p90s, names, refused, strict=True) if name != here and not no and p90 > 0
    )
    assert [each.p90_milliseconds for each in found] == allowed[:3]
    assert here not in {each.node for each in found}


@pytest.mark.parametrize(("share", "text"), [(0.9, "90.0"), (0.12345, "12.3"), (None, None)])
def test_shares_are_told_in_per_cent_with_one_decimal(share: float | None, text: str | None) -> None:
    assert percent(share) == text
