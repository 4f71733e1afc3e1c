"""A small exporter whose every series is computed from the time, so that the right answers are known.

Utilisation and latencies are constant from the start on; counters grow by their rates.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class Node:
    """A node's series of node-exporter. ``idle`` and ``iowait`` are shares of each CPU's time."""

    labels: Mapping[str, str]
    cpus: int
    idle: float
    iowait: float = 0.0
    hertz: float | None = None
    highest_hertz: float | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """A container's series of cAdvisor; ``cores`` are in use."""

    labels: Mapping[str, str]
    cores: float


@dataclass(frozen=True, slots=True)
class Latencies:
    """A histogram: of ``per_second`` requests a second, ``shares`` gives the part at or below each bound."""

    name: str
    labels: Mapping[str, str]
    per_second: float
    shares: Sequence[tuple[float, float]]
    # A server that is started anew again and again begins to count from 0.
    resets_every_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary with one quantile."""

    name: str
    labels: Mapping[str, str]
    per_second: float
    quantile: str
    value: float


@dataclass(frozen=True, slots=True)
class Plain:
    """One series of one sample; ``per_second`` makes it grow."""

    name: str
    labels: Mapping[str, str]
    value: float = 0.0
    per_second: float = 0.0


Series = Node | Container | Latencies | Summary | Plain


class _Collector(Collector):
    def __init__(self, series: Sequence[Series]) -> None:
        self._series = series
        self._began = time.time()

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        seconds = time.time() - self._began
        for series in self._series:
            for kind, name, suffix, labels, value in _samples(series, seconds):
                family = families.setdefault(name, Metric(name, name, kind))
                family.add_sample(name + suffix, dict(labels), value)
        yield from families.values()


_Sample = tuple[str, str, str, Mapping[str, str], float]


def _samples(series: Series, seconds: float) -> Iterator[_Sample]:
    match series:
        case Node():
            yield from _node(series, seconds)
        case Container():
            used = series.cores * seconds
            yield ("unknown", "container_cpu_usage_seconds_total", "", series.labels, used)
        case Latencies():
            lived = seconds % series.resets_every_seconds if series.resets_every_seconds else seconds
            count = series.per_second * lived
            for bound, share in series.shares:
                labels = {**series.labels, "le": f"{bound:g}" if bound != float("inf") else "+Inf"}
                yield ("histogram", series.name, "_bucket", labels, float(round(count * share)))
            yield ("histogram", series.name, "_count", series.labels, float(round(count)))
            yield ("histogram", series.name, "_sum", series.labels, 1.0)
        case Summary():
            labels = {**series.labels, "quantile": series.quantile}
            yield ("summary", series.name, "", labels, series.value)
            yield ("summary", series.name, "_count", series.labels, series.per_second * seconds)
        case Plain():
            yield ("unknown", series.name, "", series.labels, series.value + series.per_second * seconds)


def _node(node: Node, seconds: float) -> Iterator[_Sample]:
    modes = {"idle": node.idle, "iowait": node.iowait, "user": 1 - node.idle - node.iowait}
    for cpu in range(node.cpus):
        labels = {**node.labels, "cpu": str(cpu)}
        for mode, share in modes.items():
            yield ("unknown", "node_cpu_seconds_total", "", {**labels, "mode": mode}, share * seconds)
        if node.hertz is not None:
            yield ("gauge", "node_cpu_scaling_frequency_hertz", "", labels, node.hertz)
        if node.highest_hertz is not None:
            yield ("gauge", "node_cpu_frequency_max_hertz", "", labels, node.highest_hertz)


@contextmanager
def exporting(series: Sequence[Series]) -> Iterator[str]:
    """Serve the series on loopback and give HOST:PORT."""
    registry = CollectorRegistry()
    registry.register(_Collector(series))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
