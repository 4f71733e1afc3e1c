from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.profile import ModelProfile
from tailwise.prediction.prediction import NodeLoad, Prediction, Question, Serving
from tailwise.prediction.predictor import PriorPredictor
from tailwise.prediction.prior import BETWEEN, COLD, TICK_MILLISECONDS
from tests.unit.prediction.builders import node, profile, profile_of

PRIOR = PriorPredictor()


def predict(
    model: ModelProfile, serving: Serving, hardware: NodeHardware | None = None, cpu: float | None = 0.0
) -> Prediction:
    return PRIOR.predict(Question(model, serving, hardware or node(), NodeLoad(cpu=cpu)))


def test_a_5_ms_model_limited_to_half_a_core_has_a_p90_of_about_53_ms() -> None:
    prediction = predict(profile_of(5.0), Serving(cpu_limit_millicores=500))
    assert 50 < prediction.p90_milliseconds < 57
    assert prediction.p50_milliseconds == pytest.approx(5.0, rel=0.05)


def test_one_thread_more_than_the_limit_allows_triples_the_p90() -> None:
    model, hardware = profile_of(23.0), node(cores=2)
    one = predict(model, Serving(1000, threads=1), hardware).p90_milliseconds
    two = predict(model, Serving(1000, threads=2), hardware).p90_milliseconds
    assert one == pytest.approx(23, rel=0.1)
    assert 60 < two < 75


def test_a_node_with_a_short_quota_period_is_slower_without_a_tail() -> None:
    prediction = predict(profile_of(34.4), Serving(None), node(cores=2, quotas=((5_000, 10_000),)))
    assert prediction.p50_milliseconds == pytest.approx(2 * 34.4, rel=0.1)
    assert prediction.p90_milliseconds == pytest.approx(2 * 34.4, rel=0.15)


def test_a_thread_beside_a_busy_core_gets_its_fair_half() -> None:
    prediction = predict(profile_of(10.0), Serving(None), node(cores=1), cpu=1.0)
    # Its own turns and as many of the neighbour's, each begun with cold caches, and half a tick of waiting.
    fair = 2 * 10.0 * (1 + COLD) + TICK_MILLISECONDS / 2
    assert prediction.p50_milliseconds == pytest.approx(fair, rel=0.02)


def test_what_the_server_itself_spends_on_a_query_counts() -> None:
    without = predict(profile_of(5.0), Serving(None))
    with_it = predict(profile_of(5.0), Serving(None, overhead_milliseconds=2.0))
    # Its own CPU time, and the way there and back.
    more = 2.0 * (1 + BETWEEN)
    assert with_it.p50_milliseconds == pytest.approx(without.p50_milliseconds + more, rel=0.01)
    assert with_it.terms["cpuMillisecondsBurnt"] == pytest.approx(7.0, rel=0.01)


def test_unknown_load_is_never_read_as_none() -> None:
    unknown = predict(profile(), Serving(None), cpu=None)
    idle = predict(profile(), Serving(None), cpu=0.0)
    assert unknown.source is PredictionSource.STALE
    assert idle.source is PredictionSource.PRIOR
    assert unknown.bound_milliseconds > 1.3 * idle.bound_milliseconds


def test_a_core_half_as_fast_takes_twice_as_long_for_compute() -> None:
    fast = node()
    speed = fast.measured.runtime_gflops_per_core
    assert speed is not None
    slow = node(measured={"runtime_gflops_per_core": speed / 2})
    ratio = (
        predict(profile(), Serving(None), slow).p50_milliseconds
        / predict(profile(), Serving(None), fast).p50_milliseconds
    )
    assert ratio == pytest.approx(2.0)


def test_clients_of_a_closed_loop_share_one_server() -> None:
    one = predict(profile(), Serving(None, concurrency=1))
    four = predict(profile(), Serving(None, concurrency=4))
    assert four.p50_milliseconds == pytest.approx(4 * one.p50_milliseconds, rel=0.01)


def test_arrivals_at_random_wait_longer_the_busier_the_server() -> None:
    model = profile_of(10.0)
    p90 = [
        predict(model, Serving(None, requests_per_second=rate)).p90_milliseconds for rate in (1, 50, 90, 200)
    ]
    assert p90 == sorted(p90)
    assert p90[0] == pytest.approx(10.0, rel=0.1)
    # M/D/1 at 90 % utilisation: the mean wait alone is 4.5 service times.
    assert p90[2] > 45.0
    assert math.isfinite(p90[3])


MODELS = st.floats(0.2, 300.0)
LIMITS = st.sampled_from([50, 100, 250, 400, 500, 750, 1000, 1500, 2000, 4000])
LOADS = st.floats(0.0, 1.0)
NODES = st.sampled_from([node(2), node(8), node(4, ((10_000, 10_000),)), node(4, ((150_000, 100_000),))])
SERVINGS = st.builds(
    Serving,
    cpu_limit_millicores=st.one_of(st.none(), LIMITS),
    threads=st.sampled_from([1, 2, 4]),
    concurrency=st.sampled_from([1, 3]),
)
ROUNDING = 1 + 1e-9


@settings(deadline=None, max_examples=40)
@given(MODELS, SERVINGS, NODES, LIMITS, LIMITS, LOADS)
def test_more_limit_is_never_slower(
    cpu: float, serving: Serving, hardware: NodeHardware, one: int, other: int, load: float
) -> None:
    less, more = sorted((one, other))
    # Pauses at the end of the node's share and of the pod's may fall together under the lesser limit and
    # apart under the greater: up to twice as many, each no longer. So a rank between them may cross to the
    # other side, but never further than with twice the work; a tenth is for sampling at a hundred phases.
    work = cpu if not hardware.cpu_quotas else 2.2 * cpu
    tight = predict(profile_of(work), replace(serving, cpu_limit_millicores=less), hardware, load)
    loose = predict(profile_of(cpu), replace(serving, cpu_limit_millicores=more), hardware, load)
    assert loose.p90_milliseconds <= tight.p90_milliseconds * ROUNDING
    assert loose.p50_milliseconds <= tight.p50_milliseconds * ROUNDING


@settings(deadline=None, max_examples=40)
@given(MODELS, MODELS, SERVINGS, NODES, LOADS)
def test_more_flops_are_never_faster(
    one: float, other: float, serving: Serving, hardware: NodeHardware, load: float
) -> None:
    small, large = (predict(profile_of(cpu), serving, hardware, load) for cpu in sorted((one, other)))
    assert small.p90_milliseconds <= large.p90_milliseconds * ROUNDING


@settings(deadline=None, max_examples=40)
@given(MODELS, SERVINGS, NODES, LOADS, LOADS)
def test_more_load_is_never_faster(
    cpu: float, serving: Serving, hardware: NodeHardware, one: float, other: float
) -> None:
    quiet, busy = (predict(profile_of(cpu), serving, hardware, load) for load in sorted((one, other)))
    assert quiet.p90_milliseconds <= busy.p90_milliseconds * ROUNDING
    assert quiet.bound_milliseconds <= busy.bound_milliseconds * ROUNDING


@settings(deadline=None, max_examples=40)
@given(MODELS, SERVINGS, NODES, st.one_of(st.none(), LOADS))
def test_the_bound_is_above_the_p90_and_the_p90_above_the_p50(
    cpu: float, serving: Serving, hardware: NodeHardware, load: float | None
) -> None:
    prediction = predict(profile_of(cpu), serving, hardware, load)
    assert 0 < prediction.p50_milliseconds <= prediction.p90_milliseconds <= prediction.bound_milliseconds
    assert math.isfinite(prediction.bound_milliseconds)
