"""What model servers call their latency, as data: one row a preset of ``spec.metrics``.

``$namespace``, ``$pods``, ``$window`` and ``$quantile`` are filled in when a query is made. Each row says
what the server must be told for the metric to exist at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tailwise.api.serving_metrics import LatencyUnit, ServingPreset

_PODS = 'namespace="$namespace",pod=~"$pods"'


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """Templates of PromQL for one model server.

    ``buckets`` answers rates by pod and le (or native histograms by pod); ``quantile`` answers a summary's
    quantile by pod; one of the two is None. ``requests_per_second`` None: the buckets' own count.
    ``sampled_at`` answers Unix seconds of the newest sample by pod; None: the time of the answer. ``samples``
    and ``resets`` answer how often the counter was scraped in the window, and how often it fell, by pod.
    """

    buckets: str | None
    quantile: str | None
    requests_per_second: str | None
    sampled_at: str | None
    unit: LatencyUnit
    hint: str
    samples: str | None = None
    resets: str | None = None


def _histogram(name: str, unit: LatencyUnit, hint: str, labels: str = "") -> ServerMetrics:
    """A server with a histogram, classic (``_bucket``) or native; where a series is both, native counts."""
    selector = f"{{{_PODS}{',' if labels else ''}{labels}}}"
    return ServerMetrics(
        buckets=f"rate({name}{selector}[$window]) or ignoring (le) rate({name}_bucket{selector}[$window])",
        quantile=None,
        requests_per_second=None,
        sampled_at=f"timestamp({name}_count{selector}) or timestamp({name}{selector})",
        unit=unit,
        hint=hint,
        samples=_of_counter("count_over_time", f"{name}_count{selector}", f"{name}{selector}"),
        resets=_of_counter("resets", f"{name}_count{selector}", f"{name}{selector}"),
    )


def _of_counter(function: str, *series: str) -> str:
    return " or ".join(f"{function}({each}[$window])" for each in series)


_SCRAPED = "check that Prometheus scrapes the pods and sets the labels namespace and pod"

SERVERS: Mapping[ServingPreset, ServerMetrics] = MappingProxyType(
    {
        # The server in examples/serving. Buckets at most 10 % wide.
        ServingPreset.OPEN_INFERENCE: _histogram(
            "inference_request_duration_seconds", LatencyUnit.SECONDS, _SCRAPED
        ),
        # Python SDK, kserve/metrics.py; prometheus_client's default buckets, 5 ms to 10 s.
        ServingPreset.KSERVE: _histogram("request_predict_seconds", LatencyUnit.SECONDS, _SCRAPED),
        ServingPreset.VLLM: _histogram("vllm:e2e_request_latency_seconds", LatencyUnit.SECONDS, _SCRAPED),
        # starlette_exporter under the prefix metrics_rest_server_prefix; health checks are requests too.
        ServingPreset.MLSERVER: _histogram(
            "rest_server_request_duration_seconds",
            LatencyUnit.SECONDS,
            f"{_SCRAPED} (MLServer serves them at metrics_port)",
            labels='path=~".*/infer"',
        ),
        # A counter unless configured otherwise: a sum of latencies has a mean, but no quantile.
        ServingPreset.TORCHSERVE: _histogram(
            "ts_inference_latency_microseconds",
            LatencyUnit.MICROSECONDS,
            "TorchServe exposes ts_inference_latency_microseconds as a counter, which has no quantile: list "
            "it under histogram in the metrics configuration, with metrics_mode=prometheus, or use preset "
            "Custom",
        ),
        # Latencies are a counter, which has no quantile, and optionally a summary over Triton's own window.
        ServingPreset.TRITON: ServerMetrics(
            buckets=None,
            quantile=f'nv_inference_request_summary_us{{{_PODS},quantile="$quantile"}}',
            requests_per_second=f"rate(nv_inference_request_summary_us_count{{{_PODS}}}[$window])",
            sampled_at=f"timestamp(nv_inference_request_summary_us_count{{{_PODS}}})",
            unit=LatencyUnit.MICROSECONDS,
            samples=_of_counter("count_over_time", f"nv_inference_request_summary_us_count{{{_PODS}}}"),
            resets=_of_counter("resets", f"nv_inference_request_summary_us_count{{{_PODS}}}"),
            hint="start tritonserver with --metrics-config summary_latencies=true and, for a percentile "
            "other than 50, 90, 95, 99 and 99.9, --metrics-config summary_quantiles",
        ),
    }
)
