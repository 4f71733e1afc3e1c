import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailwise.telemetry import queries
from tailwise.telemetry.metrics import OperatorMetrics
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.queries import CpuUnit, UtilisationQueries
from tailwise.telemetry.utilisation import Utilisation, UtilisationPoller
from tests.cluster import processes
from tests.cluster import prometheus as prometheus_daemon
from tests.telemetry.conftest import WINDOW_SECONDS
from tests.telemetry.scraped import PATIENCE_SECONDS, wait_until

ADDRESSES = {"10.0.0.2": "worker-2"}
CUSTOM = queries.custom(
    cpu="sum by (node) (rate(container_cpu_usage_seconds_total"
    f'{{container="server",job="first"}}[{WINDOW_SECONDS}s]))',
    cpu_unit=CpuUnit.CORES,
    window_seconds=WINDOW_SECONDS,
)


async def polled(url: str, asked: UtilisationQueries) -> Utilisation:
    prometheus = Prometheus(url, timeout_seconds=PATIENCE_SECONDS)
    utilisation = await UtilisationPoller(prometheus, asked, addresses=lambda: ADDRESSES).poll()
    prometheus.close()
    assert utilisation.last_error is None
    assert utilisation.dropped == {}
    return utilisation


def cpu(utilisation: Utilisation, node: str) -> float:
    reading = utilisation.node(node).cpu
    assert reading is not None
    return reading.value


async def test_node_exporter_tells_the_share_of_cores_in_use(prometheus_url: str) -> None:
    utilisation = await polled(prometheus_url, queries.node_exporter(WINDOW_SECONDS))
    assert utilisation.cpu_unit is CpuUnit.FRACTION
    assert set(utilisation.nodes) == {"worker-1", "worker-2"}
    assert cpu(utilisation, "worker-1") == pytest.approx(0.75, abs=0.02)


async def test_waiting_for_io_leaves_a_core_free(prometheus_url: str) -> None:
    utilisation = await polled(prometheus_url, queries.node_exporter(WINDOW_SECONDS))
    assert cpu(utilisation, "worker-2") == pytest.approx(0.1, abs=0.02)


async def test_the_clock_in_use_is_known_where_there_is_cpufreq_and_none_elsewhere(
    prometheus_url: str,
) -> None:
    utilisation = await polled(prometheus_url, queries.node_exporter(WINDOW_SECONDS))
    frequency = utilisation.node("worker-1").frequency
    assert frequency is not None
    assert frequency.value == pytest.approx(0.5)
    assert utilisation.node("worker-2").frequency is None


async def test_cadvisor_tells_cores_in_use_without_pause_containers_or_counting_twice(
    prometheus_url: str,
) -> None:
    utilisation = await polled(prometheus_url, queries.cadvisor(WINDOW_SECONDS))
    assert utilisation.cpu_unit is CpuUnit.CORES
    assert cpu(utilisation, "worker-1") == pytest.approx(1.75, rel=0.05)
    assert cpu(utilisation, "worker-2") == pytest.approx(0.25, rel=0.05)
    assert utilisation.node("worker-1").frequency is None


async def test_a_selector_narrows_the_series(prometheus_url: str) -> None:
    utilisation = await polled(prometheus_url, queries.cadvisor(WINDOW_SECONDS, 'pod!="b"'))
    assert cpu(utilisation, "worker-1") == pytest.approx(0.5, rel=0.05)


async def test_queries_of_ones_own_are_used_as_they_stand(prometheus_url: str) -> None:
    utilisation = await polled(prometheus_url, CUSTOM)
    assert cpu(utilisation, "worker-1") == pytest.approx(1.75, rel=0.05)


@pytest.mark.parametrize("asked", [queries.node_exporter(WINDOW_SECONDS), queries.cadvisor(WINDOW_SECONDS)])
async def test_a_value_is_as_old_as_its_newest_sample(prometheus_url: str, asked: UtilisationQueries) -> None:
    utilisation = await polled(prometheus_url, asked)
    evaluated = prometheus_daemon.query(prometheus_url, "time() - max(timestamp(node_cpu_seconds_total))")
    assert float(evaluated[0]["value"][1]) > 0
    age = utilisation.cpu_age_seconds("worker-1", datetime.now(UTC))
    assert age is not None
    assert 0 < age < WINDOW_SECONDS


async def test_without_prometheus_values_keep_their_time_and_their_age_grows(
    stoppable_prometheus: tuple[str, Path],
) -> None:
    url, directory = stoppable_prometheus
    metrics = OperatorMetrics()
    prometheus = Prometheus(url, timeout_seconds=PATIENCE_SECONDS)
    poller = UtilisationPoller(prometheus, queries.cadvisor(WINDOW_SECONDS), metrics=metrics)

    def age() -> float:
        value = metrics.registry.get_sample_value("tailwise_data_age_seconds", {"source": "utilisation"})
        assert value is not None
        return value

    deadline = time.monotonic() + 60
    while not (before := await poller.poll()).nodes:
        assert time.monotonic() < deadline, before.last_error
        await asyncio.sleep(0.5)
    assert before.last_error is None
    processes.stop(directory, prometheus_daemon.DAEMON)
    age_before = age()
    after = await poller.poll()
    assert after.nodes == before.nodes
    assert after.polled_at == before.polled_at
    assert after.last_error is not None
    assert url in after.last_error
    wait_until("the age to grow", lambda: age() > age_before + 1)
    failures = metrics.registry.get_sample_value("tailwise_utilisation_polls_total", {"result": "failure"})
    assert failures is not None
    assert failures >= 1
    prometheus.close()


async def test_the_poller_goes_on_by_itself_when_prometheus_comes_back(
    stoppable_prometheus: tuple[str, Path],
) -> None:
    url, directory = stoppable_prometheus
    command = prometheus_command(directory)
    processes.stop(directory, prometheus_daemon.DAEMON)
    prometheus = Prometheus(url, timeout_seconds=2)
    poller = UtilisationPoller(prometheus, queries.cadvisor(WINDOW_SECONDS), interval_seconds=0.2)
    polling = asyncio.create_task(poller.run())
    try:
        assert (await poller.first_poll()).last_error is not None
        processes.start(directory, prometheus_daemon.DAEMON, command, logs=directory / "logs")
        deadline = time.monotonic() + 60
        while poller.current().last_error is not None:
            assert time.monotonic() < deadline, poller.current().last_error
            await asyncio.sleep(0.2)
        assert cpu(poller.current(), "worker-1") > 0
    finally:
        polling.cancel()
        prometheus.close()


def prometheus_command(directory: Path) -> tuple[str, ...]:
    daemon = processes.running(directory, prometheus_daemon.DAEMON)
    assert daemon is not None
    return daemon.command
