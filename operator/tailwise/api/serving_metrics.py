"""How a model server's own metrics tell the latency: by a preset, or by queries of one's own."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from tailwise.api.document import Document
from tailwise.api.schema import rule, rules


class ServingPreset(StrEnum):
    """A model server whose metrics are known by name."""

    TRITON = "Triton"
    KSERVE = "KServe"
    TORCHSERVE = "TorchServe"
    VLLM = "VLLM"
    MLSERVER = "MLServer"
    OPEN_INFERENCE = "OpenInference"
    CUSTOM = "Custom"


METRICS_AT_THE_SERVING_PORT = frozenset(
    {ServingPreset.KSERVE, ServingPreset.VLLM, ServingPreset.OPEN_INFERENCE, ServingPreset.CUSTOM}
)
"""Triton, TorchServe and MLServer have a port of their own for them."""


class LatencyUnit(StrEnum):
    """Unit of the latencies that a query answers with."""

    SECONDS = "Seconds"
    MILLISECONDS = "Milliseconds"
    MICROSECONDS = "Microseconds"


class LatencyQueries(Document):
    """PromQL for servers that no preset knows.

    ``$namespace``, ``$workload``, ``$model`` (``spec.serving.modelName``, else the workload's name),
    ``$pods`` (a regular expression of pod names) and ``$window`` are replaced before the query is sent.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.buckets) != has(self.quantile)",
                "give either queries.buckets (a histogram) or queries.quantile (a summary), not both",
            )
        )
    )

    buckets: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="PromQL whose answer is a latency histogram's rate by pod and le (or by pod, if native). "
        "$namespace, $workload, $model, $pods and $window are replaced.",
    )
    quantile: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="PromQL whose answer is the latency at spec.slo.percentile by pod, for servers that "
        "expose summaries. Such values are never averaged.",
    )
    unit: LatencyUnit = Field(LatencyUnit.SECONDS, description="Unit of the latencies in the answer.")
    requests_per_second: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="PromQL whose answer is the rate of requests by pod. Default: the histogram's own count.",
    )
    concurrency: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="PromQL whose answer is the number of requests in flight by pod.",
    )


class ServingMetrics(Document):
    """Where the latency of served requests is read."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(self.preset == 'Custom') == has(self.queries)",
                "queries belong to preset Custom: give queries with it, and leave them out with any other "
                "preset",
            )
        )
    )

    preset: ServingPreset = Field(
        description="The model server whose metrics are read: Triton, KServe, TorchServe, VLLM, MLServer, "
        "OpenInference (the server in Tailwise's own examples) or Custom, with queries."
    )
    queries: LatencyQueries | None = Field(None, description="PromQL of one's own, for preset Custom.")
    window_seconds: int = Field(
        300, ge=30, le=86_400, description="Window over which the latency is observed."
    )
