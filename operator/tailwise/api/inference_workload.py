"""InferenceWorkload: a model, its objective, its load, and the pods that serve it."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from tailwise.api.document import Document
from tailwise.api.inference_workload_status import InferenceWorkloadStatus
from tailwise.api.metadata import NAME_PATTERN, ObjectMetadata
from tailwise.api.model_source import ModelSource
from tailwise.api.placement_policy import PlacementPolicy
from tailwise.api.pod_template import PodTemplate
from tailwise.api.schema import Column, Kind, Scale, rule, rules
from tailwise.api.serving_metrics import ServingMetrics


class Slo(Document):
    """The latency that is promised."""

    latency_milliseconds: int = Field(
        ge=1,
        le=3_600_000,
        description="Latency that the given percentile of queries must not exceed, in milliseconds.",
    )
    percentile: Literal[50, 90, 95, 99] = Field(
        90,
        description="Percentile that the latency is promised for: 50, 90, 95 or 99. Bounds are those of this "
        "percentile, and it is what is observed. Versions of a LatencyModel learn P90s: for the others the "
        "prior answers.",
    )


class Load(Document):
    """What one pod is expected to be asked."""

    batch_size: int = Field(1, ge=1, le=65_536, description="Items in one query.")
    concurrency: int = Field(
        1, ge=1, le=65_536, description="Queries that clients keep in flight at one pod at a time."
    )
    requests_per_second: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Rate of queries to one pod, arriving at random. Default: a closed loop of concurrency "
        "clients, each sending its next query when the last is answered.",
    )


class Serving(Document):
    """How the pod serves the model."""

    container: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Container that runs the model server: its CPU limit is the one that counts. Default: "
        "the first container of the pod.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Threads that the server computes one query with. Default: the container's CPU limit "
        "rounded up, or its request, or 1. More threads than the limit allows make long tails.",
    )
    overhead_microseconds: int | None = Field(
        None,
        ge=0,
        le=60_000_000,
        description="CPU time that the server spends on a query beside the model's own: HTTP, decoding, "
        "copies. Measured as the server's CPU time a query less that of the model run without a server. "
        "Default: 0, right for large models; of a model of a few milliseconds it can be half.",
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="Port that the server answers at, for profiling Jobs; default there: the first named. "
        "Presets KServe, VLLM and OpenInference, and Custom, have their metrics there too: pods made from "
        "template are then annotated for Prometheus (prometheus.io/scrape, port and path), unless the "
        "template has prometheus.io/scrape itself.",
    )
    model_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="Name of the model at the server: of a server of several models its latency alone is "
        "observed. Default: all that the server serves; profiling Jobs ask for the workload's name.",
    )


class LatencyModelReference(Document):
    """Names a LatencyModel."""

    name: str = Field(min_length=1, max_length=253, pattern=NAME_PATTERN, description="Its name.")


class InferenceWorkloadSpec(Document):
    """What is served, how fast it must be, and by which pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.template) || self.replicas == 1",
                "spec.replicas has no effect without spec.template: scale what owns the pods, or give a "
                "template",
                path=".replicas",
            ),
            rule(
                "has(self.template) == has(oldSelf.template)",
                "spec.template can neither be added nor removed: the pods would change their owner. Create "
                "another InferenceWorkload",
                path=".template",
            ),
            rule(
                "!has(self.serving) || !has(self.serving.container) || !has(self.template) || "
                "self.template.spec.containers.exists(c, c.name == self.serving.container)",
                "spec.serving.container names no container of spec.template.spec.containers",
                path=".serving",
            ),
        )
    )

    model: ModelSource = Field(description="The model that is served.")
    slo: Slo = Field(description="The latency that is promised.")
    load: Load = Field(Load(), description="What one pod is expected to be asked.")
    serving: Serving | None = Field(None, description="How the pods serve the model.")
    replicas: int = Field(
        1,
        ge=0,
        le=100_000,
        description="Pods that the Deployment made from template keeps. Stays 1 without a template.",
    )
    template: PodTemplate | None = Field(
        None,
        description="Template of the pods: the operator then owns a Deployment of the workload's name. "
        "Default: the pods of the namespace labelled tailwise.dev/workload with the workload's name, "
        "whatever made them.",
    )
    placement: PlacementPolicy = Field(PlacementPolicy(), description="How the pods' nodes are chosen.")
    latency_model_ref: LatencyModelReference | None = Field(
        None,
        description="LatencyModel that predicts. Default: the one named default if there is one, else the "
        "physics prior.",
    )
    metrics: ServingMetrics | None = Field(
        None, description="Where the latency of served queries is read. Default: it is not observed."
    )


class InferenceWorkload(Document):
    """A model that is served under a latency objective, and the placement of its pods."""

    api_version: Literal["tailwise.dev/v1alpha1"] = "tailwise.dev/v1alpha1"
    kind: Literal["InferenceWorkload"] = "InferenceWorkload"
    metadata: ObjectMetadata
    spec: InferenceWorkloadSpec = Field(description="What is wanted.")
    status: InferenceWorkloadStatus = Field(
        default_factory=InferenceWorkloadStatus, description="What the operator has seen and decided."
    )


INFERENCE_WORKLOAD = Kind(
    name="InferenceWorkload",
    plural="inferenceworkloads",
    singular="inferenceworkload",
    short_names=("iw",),
    namespaced=True,
    model=InferenceWorkload,
    description="InferenceWorkload is a model served under a latency objective: Tailwise places its pods "
    "on the nodes where their tail latency is predicted to meet it.",
    scale=Scale(".spec.replicas", ".status.replicas", ".status.selector"),
    columns=(
        Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Placed and serving."),
        Column("Replicas", "integer", ".status.replicas", "Pods of the workload."),
        Column("Placed", "integer", ".status.pods.placed", "Pods on the node that was decided."),
        Column("SLO(ms)", "integer", ".spec.slo.latencyMilliseconds", "Latency promised."),
        Column("Predicted(ms)", "integer", ".status.predictedP90Milliseconds", "Highest predicted P90."),
        Column(
            "Observed(ms)",
            "integer",
            ".status.observedP90Milliseconds",
            "slo.percentile, read from Prometheus.",
        ),
        Column(
            "Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is (not) ready.", 1
        ),
        Column("Candidates", "string", ".status.candidates.message", "Nodes that fit, and why not.", 1),
        Column("Age", "date", ".metadata.creationTimestamp", "Time since it was made."),
    ),
)
