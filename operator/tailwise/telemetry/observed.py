"""The latency a workload's pods were seen to have, from their model server's own metrics in Prometheus.

Quantiles come from buckets that are summed first, over all pods or by pod; a P90 of P90s is no P90. Where a
server keeps only summaries, each pod has its own quantile and the workload has their maximum: at least the
asked share of all requests lay at or below it, so it is a bound and says so.
Classic and native histograms are read alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from tailwise.api.serving_metrics import LatencyUnit, ServingMetrics, ServingPreset
from tailwise.telemetry.prometheus import Prometheus, PrometheusError, Sample, Vector
from tailwise.telemetry.server_metrics import SERVERS, ServerMetrics, quoted

_PART = "tailwise_part"


class _Part(StrEnum):
    """What an element of the one answer is."""

    WORKLOAD = "workload"
    WORKLOAD_HIGHEST = "workload_highest"
    POD = "pod"
    POD_HIGHEST = "pod_highest"
    RATE = "rate"
    TIME = "sampled_at"


class NoLatency(StrEnum):
    """Why there is no value."""

    NO_PODS = "NoPods"
    NO_SERIES = "NoSeries"
    NO_REQUESTS = "NoRequests"
    ABOVE_BUCKETS = "AboveBuckets"
    UNAVAILABLE = "PrometheusUnavailable"


@dataclass(frozen=True, slots=True)
class Latency:
    """A latency quantile.

    ``requests`` is how many requests of the window stand behind it, an estimate because rates extrapolate to
    the window's edges; None where the server does not tell. ``is_bound``: the quantile is at most this.
    """

    milliseconds: float
    requests: float | None
    sampled_at: datetime
    is_bound: bool = False


@dataclass(frozen=True, slots=True)
class LatencyObservation:
    """What was seen of a workload.

    ``workload`` is over all pods together, ``pods`` holds those with a value of their own. Without a
    ``workload`` value ``reason`` says why and ``message`` tells it in words, with the way out.
    """

    workload: Latency | None
    pods: Mapping[str, Latency] = field(default_factory=lambda: MappingProxyType({}))
    reason: NoLatency | None = None
    message: str = ""


async def observe_latency(
    prometheus: Prometheus,
    metrics: ServingMetrics,
    *,
    namespace: str,
    workload: str,
    pods: Sequence[str],
    percentile: int = 90,
    model_name: str | None = None,
) -> LatencyObservation:
    """Read the ``percentile`` of latency over ``metrics.window_seconds``, of the workload and of each pod.

    ``pods`` are the names of the workload's pods, ``model_name`` is the one of the server's models that
    counts; None: all. One query. Raises nothing for what Prometheus does or
    lacks: the reason is part of the answer.
    """
    if not pods:
        return _none(NoLatency.NO_PODS, f"InferenceWorkload {namespace}/{workload} has no placed pods")
    # Names of pods are lower-case letters, digits, hyphens and dots: only the dot is special.
    pattern = "|".join(pod.replace(".", "[.]") for pod in sorted(pods))
    server = bound_queries(metrics, namespace, workload, pattern, percentile, model_name)
    query = _query(server, percentile / 100)
    try:
        vector = await prometheus.instant(query, f"latency of {namespace}/{workload}")
    except PrometheusError as error:
        return _none(NoLatency.UNAVAILABLE, str(error))
    return _observation(vector, server, metrics, f"{namespace}/{workload}")


@dataclass(frozen=True, slots=True)
class BoundQueries:
    """A server's queries, filled in by ``values``; ``samples`` and ``resets`` are of its counter."""

    buckets: str | None
    quantile: str | None
    rate: str | None
    sampled_at: str | None
    samples: str | None
    resets: str | None
    unit: LatencyUnit
    hint: str
    values: Mapping[str, str]
    metric: str = ""
    draws: bool = False

    @property
    def counted(self) -> str | None:
        """The rate of requests by pod: asked for, or what the histogram counts."""
        # A pod that two jobs scrape has each request twice; its models are added up within one scrape.
        target = "pod, job, instance"
        if self.rate is not None:
            return f"max by (pod) (sum by ({target}) ({self.rate}))"
        if self.buckets is None:
            return None
        # Native histograms know their count; of classic ones the highest bucket holds it.
        native = f"histogram_count(sum by ({target}) ({self.buckets}))"
        return f"max by (pod) ({native} or sum by ({target}, le) ({self.buckets}))"


def bound_queries(
    metrics: ServingMetrics,
    namespace: str,
    workload: str,
    pods_pattern: str,
    percentile: int,
    model_name: str | None = None,
) -> BoundQueries:
    """The queries of ``spec.metrics`` for the pods whose names match a regular expression.

    ``model_name``: the one of the server's models that counts; None: all. Queries of one's own have it as
    ``$model``, or else the workload's name.

    Raises ValueError: preset Custom without queries.
    """
    values = {
        "namespace": namespace,
        "workload": workload,
        "pods": pods_pattern,
        "window": f"{metrics.window_seconds}s",
        "quantile": f"{percentile / 100:g}",
    }
    if metrics.preset is ServingPreset.CUSTOM:
        if metrics.queries is None:
            raise ValueError("spec.metrics.queries is missing: preset Custom needs it")
        own = metrics.queries
        server = ServerMetrics(
            own.buckets,
            own.quantile,
            own.requests_per_second,
            None,
            own.unit,
            "check the query in spec.metrics.queries and that its answer has the label pod",
            metric=own.buckets or own.quantile or "",
        )
        values["model"] = quoted(model_name or workload)
    else:
        server = SERVERS[metrics.preset]
        values |= server.matchers(model_name)
    return BoundQueries(
        filled(server.buckets, values),
        filled(server.quantile, values),
        filled(server.requests_per_second, values),
        filled(server.sampled_at, values),
        filled(server.samples, values),
        filled(server.resets, values),
        server.unit,
        server.hint,
        values,
        server.metric,
        server.draws,
    )


def filled(template: str | None, values: Mapping[str, str]) -> str | None:
    """A template of PromQL with its names replaced; None stays None."""
    if template is None:
        return None
    for name, value in values.items():
        template = template.replace(f"${name}", value)
    return template


def _query(server: BoundQueries, quantile: float) -> str:
    parts: list[tuple[_Part, str]] = []
    if server.buckets is not None:
        buckets = server.buckets
        # The quantile of 1 tells whether the asked one lies beyond the last finite bucket: there, and only
        # there, histogram_quantile answers the same for both.
        for part, share in ((_Part.WORKLOAD, quantile), (_Part.WORKLOAD_HIGHEST, 1)):
            parts.append((part, f"histogram_quantile({share:g}, sum by (le) ({buckets}))"))
        for part, share in ((_Part.POD, quantile), (_Part.POD_HIGHEST, 1)):
            parts.append((part, f"histogram_quantile({share:g}, sum by (pod, le) ({buckets}))"))
    elif server.quantile is not None:
        parts.append((_Part.POD, f"max by (pod) ({server.quantile})"))
    if server.counted is not None:
        parts.append((_Part.RATE, server.counted))
    if server.sampled_at is not None:
        parts.append((_Part.TIME, f"max by (pod) ({server.sampled_at})"))
    return " or ".join(f'label_replace({query}, "{_PART}", "{part}", "", "")' for part, query in parts)


def _observation(
    vector: Vector, server: BoundQueries, metrics: ServingMetrics, name: str
) -> LatencyObservation:
    parts = _by_part(vector.samples)
    window = metrics.window_seconds
    rates = {pod: rate for pod, rate in parts[_Part.RATE].items() if math.isfinite(rate)}
    if not parts[_Part.POD]:  # a histogram without requests answers NaN, not nothing
        return _none(
            NoLatency.NO_SERIES,
            f"Prometheus has no {metrics.preset} latency of {name} with labels namespace and pod in the last "
            f"{window} s: {server.hint}",
        )
    served = {
        pod: value
        for pod, value in parts[_Part.POD].items()
        if math.isfinite(value) and rates.get(pod, math.inf) > 0
    }
    if not served:
        return _none(NoLatency.NO_REQUESTS, f"{name} answered no requests in the last {window} s")

    def made(value: float, pods: Sequence[str], is_bound: bool = False) -> Latency:
        counted = [rates[pod] * window for pod in pods if pod in rates]
        return Latency(
            value * MILLISECONDS[server.unit],
            sum(counted) if counted else None,
            _time(vector, [parts[_Part.TIME][pod] for pod in pods if pod in parts[_Part.TIME]]),
            is_bound,
        )

    highest = parts[_Part.POD_HIGHEST]
    pods = MappingProxyType(
        {pod: made(value, (pod,)) for pod, value in served.items() if value != highest.get(pod)}
    )
    if server.buckets is None:
        return LatencyObservation(made(max(served.values()), tuple(served), len(served) > 1), pods)
    value = parts[_Part.WORKLOAD].get("", math.nan)
    if value == parts[_Part.WORKLOAD_HIGHEST].get("") or not math.isfinite(value):
        message = (
            f"the latency of {name} lies above the last bucket of its histogram, "
            f"{value * MILLISECONDS[server.unit]:g} ms: give the server buckets beyond the SLO"
        )
        return LatencyObservation(None, pods, NoLatency.ABOVE_BUCKETS, message)
    return LatencyObservation(made(value, tuple(served)), pods)


MILLISECONDS: Mapping[LatencyUnit, float] = {
    LatencyUnit.SECONDS: 1000.0,
    LatencyUnit.MILLISECONDS: 1.0,
    LatencyUnit.MICROSECONDS: 0.001,
}


def _by_part(samples: Sequence[Sample]) -> dict[_Part, dict[str, float]]:
    found: dict[_Part, dict[str, float]] = {part: {} for part in _Part}
    for sample in samples:
        part = _Part(sample.labels[_PART])
        found[part][sample.labels.get("pod", "")] = sample.value
    return found


def _time(vector: Vector, sampled_at: Sequence[float]) -> datetime:
    """Time of the newest sample by this process's clock; that of the answer where samples do not tell."""
    if vector.evaluated_at is None or not sampled_at:
        return vector.asked_at
    return vector.asked_at - timedelta(seconds=max(0.0, vector.evaluated_at - max(sampled_at)))


def _none(reason: NoLatency, message: str) -> LatencyObservation:
    return LatencyObservation(None, reason=reason, message=message)
