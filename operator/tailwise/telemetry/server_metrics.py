"""What model servers call their latency, as data: one row a preset of ``spec.metrics``.

``$namespace``, ``$pods``, ``$window`` and ``$quantile`` are filled in when a query is made. Each row says
what the server must be told for the metric to exist at all. Where the names come from, read in the servers'
own sources:

- OpenInference: examples/serving/request_metrics.py of this project.
- KServe: python/kserve/kserve/metrics.py of kserve/kserve. Time in ``predict`` alone, without pre- and
  postprocessing; buckets are prometheus_client's, 5 ms to 10 s.
- vLLM: vllm/v1/metrics/loggers.py of vllm-project/vllm. Buckets begin at 0.3 s.
- MLServer: mlserver/rest/app.py and settings.py of SeldonIO/MLServer, whose middleware is
  starlette_exporter's: ``PREFIX_request_duration_seconds`` by method, path, status_code and app_name. REST
  alone; its gRPC server keeps no latencies.
- TorchServe: ts/configs/metrics.yaml of pytorch/serve. ``ts_inference_latency_microseconds`` is a counter,
  and no histogram can take its place: PrometheusHistogram.java keeps the client's default buckets, which end
  at 10, whatever the unit. The gauge ``HandlerTime`` holds the last request's time in the handler, so each
  scrape draws one request: its quantile over the window is that of as many requests as scrapes.
- Triton: docs/user_guide/metrics.md of triton-inference-server/server. Summaries over Triton's own sliding
  window (prometheus-cpp's default: a minute), off unless asked for; the one histogram is of decoupled
  models' first responses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tailwise.api.serving_metrics import LatencyUnit, ServingPreset

_PODS = 'namespace="$namespace",pod=~"$pods"$matching'


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
    # Name of the series that is looked for, to tell when it is not there.
    metric: str = ""
    # Each scrape is one request: ``samples`` counts what the quantile is of.
    draws: bool = False
    # Matchers of one model's series by the name that stands for them above: {0} is the model's name, {1} a
    # regular expression of it. ``all_models`` are those where no model is named.
    one_model: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    all_models: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def matchers(self, model_name: str | None) -> dict[str, str]:
        """What stands for ``$matching`` and its like, with the comma before it."""
        if model_name is None:
            return {
                name: f",{self.all_models[name]}" if name in self.all_models else "" for name in _MATCHING
            }
        literal, pattern = quoted(model_name), quoted(re.escape(model_name))
        return {
            name: f",{self.one_model[name].format(literal, pattern)}" if name in self.one_model else ""
            for name in _MATCHING
        }


def quoted(text: str) -> str:
    """A text as it stands between the quotes of PromQL."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_MATCHING = ("matching", "handling")


def _histogram(
    name: str, unit: LatencyUnit, hint: str, one_model: str, all_models: str | None = None
) -> ServerMetrics:
    """A server with a histogram, classic (``_bucket``) or native; where a series is both, native counts."""
    selector = f"{{{_PODS}}}"
    return ServerMetrics(
        buckets=f"rate({name}{selector}[$window]) or ignoring (le) rate({name}_bucket{selector}[$window])",
        quantile=None,
        requests_per_second=None,
        sampled_at=f"timestamp({name}_count{selector}) or timestamp({name}{selector})",
        unit=unit,
        hint=hint,
        samples=_of_counter("count_over_time", f"{name}_count{selector}", f"{name}{selector}"),
        resets=_of_counter("resets", f"{name}_count{selector}", f"{name}{selector}"),
        metric=name,
        one_model={"matching": one_model},
        all_models={} if all_models is None else {"matching": all_models},
    )


def _of_counter(function: str, *series: str) -> str:
    return " or ".join(f"{function}({each}[$window])" for each in series)


# The gauge has the model under another label than the counters.
_HANDLER_TIME = f"HandlerTime{{{_PODS.replace('$matching', '$handling')}}}"

_SCRAPED = "check that Prometheus scrapes the pods and sets the labels namespace and pod"

SERVERS: Mapping[ServingPreset, ServerMetrics] = MappingProxyType(
    {
        ServingPreset.OPEN_INFERENCE: _histogram(
            "inference_request_duration_seconds", LatencyUnit.SECONDS, _SCRAPED, 'model="{0}"'
        ),
        ServingPreset.KSERVE: _histogram(
            "request_predict_seconds", LatencyUnit.SECONDS, _SCRAPED, 'model_name="{0}"'
        ),
        ServingPreset.VLLM: _histogram(
            "vllm:e2e_request_latency_seconds", LatencyUnit.SECONDS, _SCRAPED, 'model_name="{0}"'
        ),
        # Health checks of models are requests too.
        ServingPreset.MLSERVER: _histogram(
            "rest_server_request_duration_seconds",
            LatencyUnit.SECONDS,
            f"{_SCRAPED} (MLServer serves them at metrics_port)",
            # starlette_exporter may group paths by their pattern: all models are one series then.
            one_model='path=~".*/models/({1}|[{{]model_name[}}])(/versions/[^/]+)?/infer"',
            all_models='path=~".*/infer"',
        ),
        ServingPreset.TORCHSERVE: ServerMetrics(
            buckets=None,
            quantile=f"quantile_over_time($quantile, {_HANDLER_TIME}[$window])",
            requests_per_second=f"rate(ts_inference_requests_total{{{_PODS}}}[$window])",
            sampled_at=f"timestamp({_HANDLER_TIME})",
            unit=LatencyUnit.MILLISECONDS,
            samples=_of_counter("count_over_time", _HANDLER_TIME),
            resets=_of_counter("resets", f"ts_inference_requests_total{{{_PODS}}}"),
            hint="TorchServe exposes the gauge HandlerTime with metrics_mode=prometheus (its "
            "ts_inference_latency_microseconds is a counter, which has no quantile); check that Prometheus "
            "scrapes the pods often enough and sets the labels namespace and pod",
            metric="HandlerTime",
            draws=True,
            one_model={"matching": 'model_name="{0}"', "handling": 'ModelName="{0}"'},
        ),
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
            metric="nv_inference_request_summary_us",
            one_model={"matching": 'model="{0}"'},
        ),
    }
)
