"""What the operator writes into an InferenceWorkload's status."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tailwise.api.conditions import Condition
from tailwise.api.document import StatusDocument, Timestamp
from tailwise.api.profile import ModelProfile
from tailwise.api.schema import list_map

MAX_PLACEMENTS = 100
MAX_REJECTIONS = 32
MAX_AVOIDED_NODES = 16


class PredictionSource(StrEnum):
    """Where a prediction comes from, and so how far it can be trusted."""

    LEARNED = "Learned"
    PRIOR = "Prior"
    STALE = "Stale"
    OUT_OF_DISTRIBUTION = "OutOfDistribution"


class PlacementResult(StrEnum):
    """How a pod left its gate."""

    PLACED = "Placed"
    FALLBACK = "Fallback"


class ProfileKey(StatusDocument):
    """What the profile in status was made from; a profile of another key is made anew."""

    url: str = Field("", max_length=2048, description="URL that was read.")
    digest: str = Field("", max_length=200, description="Digest of what was read.")
    inputs_hash: str = Field(
        "", max_length=64, description="Hash of format, input shapes, batch size, sha256 and override."
    )


class PodCounts(StatusDocument):
    """The workload's pods by where they stand; each pod counts once."""

    pending: int = Field(0, ge=0, description="Pods whose gate is closed.")
    placed: int = Field(0, ge=0, description="Pods let go to the node that was decided.")
    fallback: int = Field(0, ge=0, description="Pods let go without a decision.")


class Placement(StatusDocument):
    """One pod's placement and what was predicted for it."""

    pod: str = Field(max_length=253, description="Name of the pod.")
    node: str = Field("", max_length=253, description="Node that was decided; empty after fallback.")
    result: PlacementResult = Field(
        PlacementResult.PLACED, description="Placed on the node decided, or Fallback."
    )
    predicted_p50_milliseconds: int | None = Field(
        None, ge=0, description="Predicted median latency under the node's load of now."
    )
    predicted_p90_milliseconds: int | None = Field(
        None,
        ge=0,
        description="Predicted P90 latency under the node's load of now. What was predicted when the pod was "
        "placed stands in the pod's annotation tailwise.dev/predicted-p90-milliseconds.",
    )
    bound_milliseconds: int | None = Field(
        None,
        ge=0,
        description="Latency that the P90, or what spec.slo.percentile says, stays below at the promised "
        "confidence.",
    )
    source: PredictionSource | None = Field(
        None,
        description="Where the prediction comes from: Learned (a trained version), Prior (physics), Stale "
        "(utilisation too old to use), OutOfDistribution (unlike anything seen; the prior answered).",
    )
    latency_model_version: int | None = Field(
        None, ge=0, description="Version of the LatencyModel that answered; 0 is the prior."
    )
    data_age_seconds: int | None = Field(
        None, ge=0, description="Age of the node's utilisation when it was decided."
    )
    decided_at: Timestamp | None = Field(None, description="When it was decided.")
    observed_p90_milliseconds: int | None = Field(
        None,
        ge=0,
        description="P90 of this pod, or the percentile that spec.slo.percentile says, as last observed.",
    )


class Rejection(StatusDocument):
    """Nodes that were refused for one reason; each refused node counts under one reason only."""

    reason: str = Field(
        max_length=256, description="Why, in kube-scheduler's words where it would refuse too."
    )
    nodes: int = Field(ge=1, description="How many nodes.")


class CandidateSummary(StatusDocument):
    """The last decision's candidates: feasible nodes and all rejections add up to the nodes."""

    nodes: int = Field(0, ge=0, description="Nodes that were looked at.")
    feasible: int = Field(0, ge=0, description="Nodes that passed.")
    rejections: tuple[Rejection, ...] = Field(
        default=(),
        max_length=MAX_REJECTIONS,
        description="Nodes refused, counted by reason.",
        json_schema_extra=list_map("reason"),
    )
    message: str = Field(
        "", max_length=1024, description="The same as a sentence: 0/12 nodes fit: 7 Insufficient cpu, 5 SLO."
    )


class AvoidedNode(StatusDocument):
    """A node that the workload's pods keep off for a while."""

    node: str = Field(max_length=253, description="Name of the node.")
    until: Timestamp = Field(description="When it is a candidate again.")


class ServingLatencyModel(StatusDocument):
    """The LatencyModel that answers for the workload."""

    name: str = Field(
        "prior",
        max_length=253,
        description="Its name; prior, the built-in physics prior, if none is asked for or it is not there.",
    )
    version: int = Field(0, ge=0, description="Its active version; 0 is the prior.")


class InferenceWorkloadStatus(StatusDocument):
    """What the operator has seen and decided; nothing here changes without cause."""

    observed_generation: int | None = Field(
        None, ge=0, description="metadata.generation that this status was made for."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready, SpecSupported, ModelProfiled, Placed, SLOAttainable and Observed.",
        json_schema_extra=list_map("type"),
    )
    profile: ModelProfile | None = Field(None, description="The model's profile, override included.")
    profile_key: ProfileKey | None = Field(None, description="What the profile was made from.")
    replicas: int = Field(0, ge=0, description="Pods of the workload.")
    ready_replicas: int = Field(0, ge=0, description="Those that are ready.")
    selector: str = Field(
        "", max_length=512, description="Label selector of the workload's pods, for autoscalers."
    )
    pods: PodCounts = Field(default_factory=PodCounts, description="Pods by where they stand.")
    placements: tuple[Placement, ...] = Field(
        default=(),
        max_length=MAX_PLACEMENTS,
        description="The newest placements, at most 100, by pod.",
        json_schema_extra=list_map("pod"),
    )
    predicted_p90_milliseconds: int | None = Field(
        None, ge=0, description="Highest predicted P90 over the pods placed."
    )
    observed_p90_milliseconds: int | None = Field(
        None,
        ge=0,
        description="P90 of all pods together, or the percentile that spec.slo.percentile says, as last "
        "observed.",
    )
    candidates: CandidateSummary | None = Field(None, description="Candidates of the last decision.")
    latency_model: ServingLatencyModel | None = Field(None, description="LatencyModel that answers.")
    avoided_nodes: tuple[AvoidedNode, ...] = Field(
        default=(),
        max_length=MAX_AVOIDED_NODES,
        description="Nodes that refused a pod of the workload, or that one was moved off, of late.",
        json_schema_extra=list_map("node"),
    )
    last_moved_at: Timestamp | None = Field(
        None,
        description="When a pod was last moved; spec.placement.relocation.cooldownSeconds count from it.",
    )
