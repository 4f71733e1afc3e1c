"""What would have to change for a node to meet an SLO, and that it would."""

from dataclasses import replace

import pytest

from tailwise.prediction.inverse import Remedies, remedies
from tailwise.prediction.prediction import NodeLoad, Question, Serving
from tailwise.prediction.predictor import PriorPredictor
from tests.unit.prediction.builders import node, profile_of

PREDICTOR = PriorPredictor()


def question(serving: Serving, *, milliseconds: float = 10.0, load: float | None = 0.0) -> Question:
    return Question(profile_of(milliseconds), serving, node(8), NodeLoad(load))


def found(asked: Question, slo: float, *, threads_follow_limit: bool = False) -> Remedies:
    return remedies(PREDICTOR, asked, slo, threads_follow_limit=threads_follow_limit)


def bound(asked: Question, **changes: object) -> float:
    serving = replace(asked.serving, **changes)  # type: ignore[arg-type]
    return PREDICTOR.predict(replace(asked, serving=serving)).bound_milliseconds


@pytest.mark.parametrize("load", [0.0, 0.5, None])
def test_the_rate_that_still_holds_does_and_a_tenth_more_does_not(load: float | None) -> None:
    asked = question(Serving(1000, requests_per_second=200.0), load=load)
    slo = 1.5 * bound(asked, requests_per_second=1.0)
    assert bound(asked) > slo
    rate = found(asked, slo).requests_per_second
    assert rate is not None
    assert bound(asked, requests_per_second=rate) <= slo
    assert bound(asked, requests_per_second=1.15 * rate) > slo


def test_the_least_limit_that_holds_does_and_the_one_before_does_not() -> None:
    asked = question(Serving(300, threads=1))
    slo = 1.2 * bound(asked, cpu_limit_millicores=8000)
    assert bound(asked) > slo
    limit = found(asked, slo).cpu_limit_millicores
    assert limit is not None and limit % 100 == 0
    assert bound(asked, cpu_limit_millicores=limit) <= slo
    assert bound(asked, cpu_limit_millicores=limit - 100) > slo


def test_a_closed_loop_is_told_its_concurrency() -> None:
    asked = question(Serving(None, concurrency=16))
    slo = 1.1 * bound(asked, concurrency=4)
    concurrency = found(asked, slo).concurrency
    assert concurrency is not None and concurrency >= 4
    assert bound(asked, concurrency=concurrency) <= slo < bound(asked, concurrency=concurrency + 1)


def test_what_nothing_attains_has_no_remedy() -> None:
    asked = question(Serving(500, requests_per_second=50.0), milliseconds=1000.0)
    assert found(asked, 5.0) == Remedies()
    assert found(asked, 5.0).words() == ""


def test_remedies_read_as_a_sentence() -> None:
    assert Remedies(requests_per_second=4.0, cpu_limit_millicores=1500).words() == (
        "would hold at <= 4 requests/s or with a CPU limit of 1500m"
    )
