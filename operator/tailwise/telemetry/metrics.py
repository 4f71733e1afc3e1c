"""The operator's own metrics: one table, from which the instruments and their reference page are made.

Names follow Prometheus' conventions: base units, ``_total`` for counters. Labels have few values: no pod, no
node, no workload, so that the number of series does not grow with the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from tailwise.api.release import RELEASE

_I = TypeVar("_I", Counter, Gauge, Histogram)


class Kind(StrEnum):
    """Type of a metric, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class DataSource(StrEnum):
    """What ``tailwise_data_age_seconds`` speaks of."""

    UTILISATION = "utilisation"
    HARDWARE = "hardware"
    OBSERVED_LATENCY = "observed_latency"


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table; ``labels`` maps each label to what it holds."""

    name: str
    kind: Kind
    description: str
    labels: tuple[tuple[str, str], ...] = ()
    buckets: tuple[float, ...] = ()


def _doubling(first: float, count: int) -> tuple[float, ...]:
    return tuple(first * 2.0**power for power in range(count))


_LATENCY_MODEL = (("latency_model", "LatencyModel that answered."),)
_QUEUE = (("queue", "Queue of keys, one a kind of object."),)

METRICS: tuple[Metric, ...] = (
    Metric(
        "tailwise_build_info",
        Kind.GAUGE,
        "Always 1; the version stands in the label.",
        (("version", "Version of Tailwise."),),
    ),
    Metric("tailwise_leader", Kind.GAUGE, "1 while this replica holds the Lease and acts, else 0."),
    Metric(
        "tailwise_placement_decision_duration_seconds",
        Kind.HISTOGRAM,
        "Time to filter and score all nodes for one pod, without any request to the API server.",
        buckets=_doubling(0.0001, 16),
    ),
    Metric(
        "tailwise_placement_delay_seconds",
        Kind.HISTOGRAM,
        "Time from a pod's creation to the patch that opened its gate.",
        buckets=_doubling(0.05, 15),
    ),
    Metric(
        "tailwise_placements_total",
        Kind.COUNTER,
        "Pods whose gate was opened, or was tried to be.",
        (("result", "Placed on the node decided, Fallback, or Failed when the patch was refused."),),
    ),
    Metric("tailwise_gated_pods", Kind.GAUGE, "Pods that wait at the gate now."),
    Metric(
        "tailwise_candidates_rejected_total",
        Kind.COUNTER,
        "Candidate nodes refused in decisions.",
        (("filter", "Filter that refused, such as resources, taints or slo."),),
    ),
    Metric(
        "tailwise_predictions_total",
        Kind.COUNTER,
        "Predictions that decided a placement.",
        (("source", "Learned, Prior, Stale or OutOfDistribution."),),
    ),
    Metric(
        "tailwise_model_inspections_total",
        Kind.COUNTER,
        "Readings of a model's graph.",
        (("result", "Complete, Partial, or the reason why there is no profile."),),
    ),
    Metric(
        "tailwise_model_inspection_duration_seconds",
        Kind.HISTOGRAM,
        "Time to read and count one model's graph.",
        buckets=_doubling(0.05, 12),
    ),
    Metric(
        "tailwise_data_age_seconds",
        Kind.GAUGE,
        "Age of the oldest value in use; NaN while there is none.",
        (("source", "utilisation, hardware or observed_latency."),),
    ),
    Metric(
        "tailwise_utilisation_polls_total",
        Kind.COUNTER,
        "Polls of Prometheus for all nodes' utilisation.",
        (("result", "success or failure."),),
    ),
    Metric(
        "tailwise_samples_dropped_total",
        Kind.COUNTER,
        "Values from Prometheus that were not used.",
        (("reason", "NotANumber, Negative, AboveOne, NoTime or UnknownNode."),),
    ),
    Metric(
        "tailwise_latency_observations_total",
        Kind.COUNTER,
        "Readings of a workload's observed latency.",
        (("result", "Observed, or the reason why there is no value."),),
    ),
    Metric("tailwise_ledger_entries", Kind.GAUGE, "Placements that the ledger of decisions holds."),
    Metric(
        "tailwise_placement_outcomes_total",
        Kind.COUNTER,
        "Placements by the P90 of their first whole window.",
        (*_LATENCY_MODEL, ("result", "WithinBound, or AboveBound as it was promised at the placement.")),
    ),
    Metric(
        "tailwise_live_samples_total",
        Kind.COUNTER,
        "Whole windows of placed pods whose P90 was observed and predicted.",
        (
            *_LATENCY_MODEL,
            ("source", "Learned, Prior, Stale or OutOfDistribution."),
            ("result", "WithinBound, or AboveBound: an exceedance."),
        ),
    ),
    Metric(
        "tailwise_live_relative_error",
        Kind.HISTOGRAM,
        "Distance of the predicted from the observed P90, in parts of the observed.",
        _LATENCY_MODEL,
        (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
    ),
    Metric(
        "tailwise_live_regret_ratio",
        Kind.HISTOGRAM,
        "Share of the observed P90 that the best other node would have saved, by the version that serves.",
        _LATENCY_MODEL,
        (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 0.9),
    ),
    Metric(
        "tailwise_live_coverage_ratio",
        Kind.GAUGE,
        "Share of the newest 200 samples of the version that serves whose bound held.",
        _LATENCY_MODEL,
    ),
    Metric(
        "tailwise_live_mean_relative_error",
        Kind.GAUGE,
        "Mean relative error (MAPE) of the newest 200 samples of the version that serves.",
        _LATENCY_MODEL,
    ),
    Metric(
        "tailwise_live_bound_factor",
        Kind.GAUGE,
        "By what the bounds of the version that serves are widened: adaptive calibration by newest samples.",
        _LATENCY_MODEL,
    ),
    Metric("tailwise_queue_depth", Kind.GAUGE, "Keys that wait now.", _QUEUE),
    Metric(
        "tailwise_queue_wait_seconds",
        Kind.HISTOGRAM,
        "Time a key waited until a worker took it.",
        _QUEUE,
        _doubling(0.001, 18),
    ),
    Metric(
        "tailwise_queue_work_duration_seconds",
        Kind.HISTOGRAM,
        "Time a worker had a key.",
        _QUEUE,
        _doubling(0.001, 18),
    ),
    Metric(
        "tailwise_queue_retries_total",
        Kind.COUNTER,
        "Keys whose work raised an error and is tried again.",
        _QUEUE,
    ),
    Metric(
        "tailwise_watch_restarts_total",
        Kind.COUNTER,
        "Watches on the API server that ended and were begun again.",
        (
            ("resource", "What is watched, such as pods or nodes."),
            ("reason", "expired, error or closed."),
        ),
    ),
)


class OperatorMetrics:
    """The instruments, in a registry of their own; each method records one fact.

    Methods may be called from any thread. ``depth``, ``waited`` and ``worked`` are what a work queue reports
    to.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._instruments = {metric.name: _instrument(metric, self.registry) for metric in METRICS}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._gauge("tailwise_build_info", version=RELEASE).set(1)

    def leading(self, leader: bool) -> None:
        """Say whether this replica acts."""
        self._gauge("tailwise_leader").set(leader)

    def decided(self, seconds: float) -> None:
        """One decision over all nodes took ``seconds``."""
        self._histogram("tailwise_placement_decision_duration_seconds").observe(seconds)

    def placed(self, result: str, delay_seconds: float | None = None) -> None:
        """Count a pod's gate as opened; ``delay_seconds`` is the time since the pod's creation."""
        self._counter("tailwise_placements_total", result=result).inc()
        if delay_seconds is not None:
            self._histogram("tailwise_placement_delay_seconds").observe(max(0.0, delay_seconds))

    def gated(self, pods: int) -> None:
        """``pods`` wait at the gate now."""
        self._gauge("tailwise_gated_pods").set(pods)

    def rejected(self, filter_name: str, nodes: int) -> None:
        """Add ``nodes`` that a filter refused in one decision."""
        self._counter("tailwise_candidates_rejected_total", filter=filter_name).inc(nodes)

    def predicted(self, source: str) -> None:
        """A prediction from ``source`` decided a placement."""
        self._counter("tailwise_predictions_total", source=source).inc()

    def inspected(self, result: str, seconds: float) -> None:
        """Count one reading of a model's graph."""
        self._counter("tailwise_model_inspections_total", result=result).inc()
        self._histogram("tailwise_model_inspection_duration_seconds").observe(seconds)

    def data_age(self, source: DataSource, age_seconds: Callable[[], float | None]) -> None:
        """Have the age of a source worked out at each scrape; None is shown as NaN."""

        def age() -> float:
            seconds = age_seconds()
            return math.nan if seconds is None else seconds

        self._gauge("tailwise_data_age_seconds", source=source).set_function(age)

    def polled(self, failed: bool) -> None:
        """Count one poll of all nodes' utilisation."""
        self._counter("tailwise_utilisation_polls_total", result="failure" if failed else "success").inc()

    def samples_dropped(self, reason: str, count: int) -> None:
        """Add ``count`` values that were not used."""
        self._counter("tailwise_samples_dropped_total", reason=reason).inc(count)

    def observed(self, result: str) -> None:
        """Count one reading of a workload's latency."""
        self._counter("tailwise_latency_observations_total", result=result).inc()

    def ledger(self, entries: int) -> None:
        """The ledger of decisions holds ``entries``."""
        self._gauge("tailwise_ledger_entries").set(entries)

    def placement_outcome(self, latency_model: str, exceeded: bool) -> None:
        """The first whole window of a placement was observed."""
        self._counter(
            "tailwise_placement_outcomes_total", latency_model=latency_model, result=_held(exceeded)
        ).inc()

    def live_sample(
        self,
        latency_model: str,
        source: str,
        *,
        relative_error: float,
        exceeded: bool,
        regret: float | None,
    ) -> None:
        """One window of one pod was observed and predicted."""
        self._counter(
            "tailwise_live_samples_total", latency_model=latency_model, source=source, result=_held(exceeded)
        ).inc()
        self._histogram("tailwise_live_relative_error", latency_model=latency_model).observe(relative_error)
        if regret is not None:
            self._histogram("tailwise_live_regret_ratio", latency_model=latency_model).observe(regret)

    def live_accuracy(self, latency_model: str, coverage: float, mean_relative_error: float) -> None:
        """The newest samples of the version that serves, together."""
        self._gauge("tailwise_live_coverage_ratio", latency_model=latency_model).set(coverage)
        self._gauge("tailwise_live_mean_relative_error", latency_model=latency_model).set(mean_relative_error)

    def bound_factor(self, latency_model: str, factor: float) -> None:
        """Bounds are wider by ``factor`` from now on."""
        self._gauge("tailwise_live_bound_factor", latency_model=latency_model).set(factor)

    def depth(self, queue: str, keys: int) -> None:
        """``keys`` wait in ``queue`` now."""
        self._gauge("tailwise_queue_depth", queue=queue).set(keys)

    def waited(self, queue: str, seconds: float) -> None:
        """Record how long a key waited until a worker took it."""
        self._histogram("tailwise_queue_wait_seconds", queue=queue).observe(seconds)

    def worked(self, queue: str, seconds: float, failed: bool) -> None:
        """Record how long a worker had a key, and whether it raised."""
        self._histogram("tailwise_queue_work_duration_seconds", queue=queue).observe(seconds)
        if failed:
            self._counter("tailwise_queue_retries_total", queue=queue).inc()

    def watch_restarted(self, resource: str, reason: str) -> None:
        """Count a watch that ended and was begun again."""
        self._counter("tailwise_watch_restarts_total", resource=resource, reason=reason).inc()

    def _counter(self, name: str, **labels: str) -> Counter:
        return _child(self._instruments[name], Counter, labels)

    def _gauge(self, name: str, **labels: str) -> Gauge:
        return _child(self._instruments[name], Gauge, labels)

    def _histogram(self, name: str, **labels: str) -> Histogram:
        return _child(self._instruments[name], Histogram, labels)


def serve(metrics: OperatorMetrics, port: int, address: str = "0.0.0.0") -> Callable[[], None]:  # noqa: S104
    """Serve ``/metrics`` on a thread of its own and return what ends it.

    On a thread, so that a blocked event loop can still be seen. Raises OSError when the port is taken.
    """
    server, thread = start_http_server(port, address, registry=metrics.registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop


def metrics_reference() -> str:
    """Return the reference page of all metrics in Markdown, ending in a newline."""
    lines = [
        "# Metrics",
        "",
        "What the operator serves at `/metrics`, beside the usual `process_*` and `python_info`. "
        "This page is generated from `tailwise/telemetry/metrics.py`.",
        "",
        "| name | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = "<br>".join(f"`{label}`: {meaning}" for label, meaning in metric.labels) or "none"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.description} |")
    return "\n".join(lines) + "\n"


def _held(exceeded: bool) -> str:
    return "AboveBound" if exceeded else "WithinBound"


def _instrument(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    names = tuple(label for label, _ in metric.labels)
    if metric.kind is Kind.COUNTER:
        return Counter(metric.name, metric.description, names, registry=registry)
    if metric.kind is Kind.GAUGE:
        return Gauge(metric.name, metric.description, names, registry=registry)
    return Histogram(metric.name, metric.description, names, registry=registry, buckets=metric.buckets)


def _child(instrument: Counter | Gauge | Histogram, kind: type[_I], labels: dict[str, str]) -> _I:
    if not isinstance(instrument, kind):
        raise TypeError(f"{instrument} is no {kind.__name__}")
    return instrument.labels(**labels) if labels else instrument
