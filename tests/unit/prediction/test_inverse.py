"""What would have to change for a node to meet an SLO, and that it would."""

from dataclasses import replace

import pytest

from tailwise.prediction.inverse import Remedies, on_idle_nodes, remedies, room, size_gflops
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


@pytest.mark.parametrize(
    "serving",
    [Serving(1000, requests_per_second=5.0), Serving(2000, concurrency=2), Serving(None, threads=2)],
)
def test_how_far_one_may_go_is_as_far_as_it_holds_whether_it_holds_now_or_not(serving: Serving) -> None:
    asked = question(serving, load=0.3)
    for slo in (0.5 * bound(asked), 3 * bound(asked)):
        found_room = room(PREDICTOR, asked, slo, threads_follow_limit=False)
        if found_room.requests_per_second is not None:
            rate = found_room.requests_per_second
            holds, over = (bound(asked, requests_per_second=factor * rate) for factor in (1.0, 1.15))
        elif found_room.concurrency is not None:
            most = found_room.concurrency
            holds, over = (bound(asked, concurrency=most + more) for more in (0, 1))
        else:  # one client is too many
            assert slo < bound(asked)
            continue
        assert holds <= slo < over
        limit = found_room.cpu_limit_millicores
        if limit is not None:
            assert bound(asked, cpu_limit_millicores=limit) <= slo


def test_classes_are_told_by_size_and_by_what_they_do_idle() -> None:
    serving, model = Serving(None), profile_of(10.0)
    nodes = [node(8), node(2), node(4, measured={"runtime_gflops_per_core": 10.0})]
    answers = on_idle_nodes((each, PREDICTOR.table(model, serving, each)) for each in nodes)
    sizes = [size_gflops(each.hardware) for each in answers]
    assert sizes == sorted(sizes)
    slow = min(answers, key=lambda each: each.hardware.measured.runtime_gflops_per_core or 0.0)
    assert slow.bound_milliseconds == max(each.bound_milliseconds for each in answers)


def test_what_nothing_attains_has_no_remedy() -> None:
    asked = question(Serving(500, requests_per_second=50.0), milliseconds=1000.0)
    assert found(asked, 5.0) == Remedies()
    assert found(asked, 5.0).words() == ""


def test_remedies_read_as_a_sentence() -> None:
    assert Remedies(requests_per_second=4.0, cpu_limit_millicores=1500).words() == (
        "would hold at <= 4 requests/s or with a CPU limit of 1500m"
    )
