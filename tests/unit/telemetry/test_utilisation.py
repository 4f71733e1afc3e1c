import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tailwise.api.hardware import CpuQuota, MeasuredSpeed, NodeHardware
from tailwise.prediction.prediction import NodeLoad
from tailwise.telemetry import queries
from tailwise.telemetry.metrics import OperatorMetrics
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.queries import CpuUnit
from tailwise.telemetry.utilisation import (
    Dropped,
    NodeUtilisation,
    Reading,
    Utilisation,
    UtilisationPoller,
)
from tests.unit.telemetry.answering import Answer, answering

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FRACTIONS = queries.custom(cpu="u", cpu_unit=CpuUnit.FRACTION, cpu_sampled_at="t")
CORES = queries.custom(cpu="u", cpu_unit=CpuUnit.CORES, cpu_sampled_at="t")


def hardware(node: str = "a", cores: int = 8, quota_cores: float | None = None) -> NodeHardware:
    quotas = (
        (CpuQuota(quota_microseconds=int(quota_cores * 100_000), period_microseconds=100_000),)
        if quota_cores
        else ()
    )
    return NodeHardware(
        node=node,
        cores=cores,
        cpu_quotas=quotas,
        measured=MeasuredSpeed(gflops_per_core=100, copy_gigabytes_per_second_per_core=10),
        measured_at=NOW,
    )


def seen(unit: CpuUnit, cpu: float, frequency: float | None = None, age_seconds: float = 0.0) -> Utilisation:
    sampled_at = NOW - timedelta(seconds=age_seconds)
    known = NodeUtilisation(
        Reading(cpu, sampled_at), None if frequency is None else Reading(frequency, sampled_at)
    )
    return Utilisation(unit, 60, {"a": known}, NOW)


@pytest.mark.parametrize(
    ("utilisation", "node", "expected"),
    [
        (seen(CpuUnit.FRACTION, 0.5), hardware(), NodeLoad(0.5)),
        (seen(CpuUnit.CORES, 2.0), hardware(), NodeLoad(0.25)),
        # A node held to 4 of its 8 cores: 3 cores in use are three quarters of what there is.
        (seen(CpuUnit.CORES, 3.0), hardware(quota_cores=4), NodeLoad(0.75)),
        (seen(CpuUnit.FRACTION, 0.25), hardware(quota_cores=4), NodeLoad(0.5)),
        (seen(CpuUnit.FRACTION, 0.9), hardware(quota_cores=4), NodeLoad(1.0)),
        (seen(CpuUnit.FRACTION, 0.5, frequency=0.6), hardware(), NodeLoad(0.5, 0.6)),
        (seen(CpuUnit.FRACTION, 0.5), hardware("unheard-of"), NodeLoad(None)),
        (seen(CpuUnit.FRACTION, 0.5, 0.6, age_seconds=121), hardware(), NodeLoad(None)),
        (seen(CpuUnit.FRACTION, 0.5, 0.6, age_seconds=120), hardware(), NodeLoad(0.5, 0.6)),
    ],
)
def test_load_is_a_fraction_of_what_the_node_can_use_and_unknown_when_old(
    utilisation: Utilisation, node: NodeHardware, expected: NodeLoad
) -> None:
    assert utilisation.load(node, NOW, oldest_seconds=120) == expected


@pytest.fixture
def server() -> Iterator[tuple[str, Answer]]:
    with answering() as running:
        yield running


def element(value: str, part: str = "value", **labels: str) -> tuple[dict[str, str], float, str]:
    return ({**labels, "tailwise_part": part}, time.time(), value)


def timed(value: str, age_seconds: float = 1.0, **labels: str) -> list[tuple[dict[str, str], float, str]]:
    return [element(value, **labels), element(str(time.time() - age_seconds), "sampled_at", **labels)]


@pytest.mark.parametrize(
    ("unit", "value", "reason"),
    [
        (CpuUnit.FRACTION, "NaN", Dropped.NOT_A_NUMBER),
        (CpuUnit.FRACTION, "+Inf", Dropped.NOT_A_NUMBER),
        (CpuUnit.FRACTION, "-0.2", Dropped.NEGATIVE),
        (CpuUnit.CORES, "-1", Dropped.NEGATIVE),
        (CpuUnit.FRACTION, "3.5", Dropped.ABOVE_ONE),
    ],
)
async def test_a_value_that_cannot_be_is_dropped_and_counted_and_the_others_stay(
    server: tuple[str, Answer], unit: CpuUnit, value: str, reason: Dropped
) -> None:
    url, answer = server
    answer.vector(*timed(value, node="a"), *timed("0.5", node="b"))
    metrics = OperatorMetrics()
    poller = UtilisationPoller(
        Prometheus(url), FRACTIONS if unit is CpuUnit.FRACTION else CORES, metrics=metrics
    )
    polled = await poller.poll()
    assert set(polled.nodes) == {"b"}
    assert polled.dropped == {reason: 1}
    assert metrics.registry.get_sample_value("tailwise_samples_dropped_total", {"reason": reason}) == 1


@pytest.mark.parametrize(
    ("unit", "value", "kept"),
    [
        (CpuUnit.FRACTION, "-0.003", 0.0),
        (CpuUnit.FRACTION, "1.004", 1.0),
        (CpuUnit.FRACTION, "0", 0.0),
        (CpuUnit.CORES, "31.5", 31.5),
    ],
)
async def test_rounding_of_rates_at_the_edges_does_not_lose_an_idle_or_a_full_node(
    server: tuple[str, Answer], unit: CpuUnit, value: str, kept: float
) -> None:
    url, answer = server
    answer.vector(*timed(value, node="a"))
    poller = UtilisationPoller(Prometheus(url), FRACTIONS if unit is CpuUnit.FRACTION else CORES)
    cpu = (await poller.poll()).node("a").cpu
    assert cpu is not None
    assert cpu.value == kept


@pytest.mark.parametrize("skew_seconds", [-86_400.0, -30.0, 0.0, 30.0, 86_400.0])
async def test_age_does_not_depend_on_the_difference_of_clocks(
    server: tuple[str, Answer], skew_seconds: float
) -> None:
    url, answer = server
    theirs = time.time() + skew_seconds
    answer.vector(
        ({"node": "a", "tailwise_part": "value"}, theirs, "0.5"),
        ({"node": "a", "tailwise_part": "sampled_at"}, theirs, str(theirs - 12)),
    )
    polled = await UtilisationPoller(Prometheus(url), FRACTIONS).poll()
    age = polled.cpu_age_seconds("a", datetime.now(UTC))
    assert age is not None
    assert 12 <= age < 60


async def test_an_exporter_ahead_of_prometheus_gives_age_zero_and_not_less(
    server: tuple[str, Answer],
) -> None:
    url, answer = server
    answer.vector(*timed("0.5", age_seconds=-20, node="a"))
    polled = await UtilisationPoller(Prometheus(url), FRACTIONS).poll()
    cpu = polled.node("a").cpu
    assert cpu is not None
    assert cpu.sampled_at <= datetime.now(UTC)


async def test_a_series_that_ends_keeps_its_last_value_and_that_values_time(
    server: tuple[str, Answer],
) -> None:
    url, answer = server
    poller = UtilisationPoller(Prometheus(url), FRACTIONS)
    answer.vector(*timed("0.5", node="a"), *timed("0.1", node="b"))
    before = await poller.poll()
    answer.vector(*timed("0.2", node="b"))
    after = await poller.poll()
    assert after.node("a") == before.node("a")
    assert after.node("b").cpu != before.node("b").cpu
    assert after.last_error is None


async def test_a_node_that_nobody_has_seen_for_an_hour_is_forgotten(server: tuple[str, Answer]) -> None:
    url, answer = server
    answer.vector(*timed("0.5", age_seconds=3700, node="gone"), *timed("0.5", age_seconds=3000, node="late"))
    assert set((await UtilisationPoller(Prometheus(url), FRACTIONS).poll()).nodes) == {"late"}


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ("10.0.0.1:9100", "worker-1"),
        ("10.0.0.1", "worker-1"),
        ("[fd00::1]:9100", "worker-2"),
        ("worker-2:9100", "worker-2"),
        ("worker-1.example.org:9100", "worker-1"),
        ("10.0.0.99:9100", None),
    ],
)
async def test_a_node_is_known_by_its_address_where_series_do_not_name_it(
    server: tuple[str, Answer], instance: str, expected: str | None
) -> None:
    url, answer = server
    answer.vector(*timed("0.5", instance=instance))
    addresses = {"10.0.0.1": "worker-1", "worker-1.example.org": "worker-1", "fd00::1": "worker-2"}
    polled = await UtilisationPoller(Prometheus(url), FRACTIONS, addresses=lambda: addresses).poll()
    assert set(polled.nodes) == ({expected} if expected else set())
    assert polled.dropped == ({} if expected else {Dropped.UNKNOWN_NODE: 1})
    assert (polled.last_error is None) == bool(expected)


async def test_of_two_series_for_one_node_the_newer_counts(server: tuple[str, Answer]) -> None:
    url, answer = server
    answer.vector(
        *timed("0.9", age_seconds=200, node="a", instance="old"),
        *timed("0.3", age_seconds=2, node="a", instance="new"),
    )
    cpu = (await UtilisationPoller(Prometheus(url), FRACTIONS).poll()).node("a").cpu
    assert cpu is not None
    assert cpu.value == 0.3


async def test_no_series_at_all_is_an_error_that_says_what_to_check_and_no_zero(
    server: tuple[str, Answer],
) -> None:
    url, _ = server
    polled = await UtilisationPoller(Prometheus(url), queries.node_exporter(60)).poll()
    assert polled.nodes == {}
    assert polled.polled_at is None
    assert polled.last_error is not None
    assert "NodeExporter" in polled.last_error
    assert "scraped at least twice in 60 s" in polled.last_error


def test_a_custom_query_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match="utilisation query cpu is empty"):
        queries.custom(cpu=" ", cpu_unit=CpuUnit.CORES)
