"""LatencyModel: what predicts latencies, how it learns and which version serves."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from tailwise.api.document import Document
from tailwise.api.latency_dataset import Dataset, Profiling
from tailwise.api.latency_model_status import MAX_HISTORY, LatencyModelStatus
from tailwise.api.metadata import ObjectMetadata
from tailwise.api.schema import Column, Kind, list_map, rule, rules
from tailwise.api.training_policy import (
    ALL_ALGORITHMS,
    AlgorithmSearch,
    Calibration,
    Drift,
    FeatureSet,
    Schedule,
    Search,
    Smoothing,
    TrainingJob,
)


class PromotionMode(StrEnum):
    """Who lets a version serve."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class RollbackMode(StrEnum):
    """Whether a version that serves badly is taken back."""

    AUTOMATIC = "Automatic"
    NEVER = "Never"


class Promotion(Document):
    """When a trained version takes the place of the one that serves."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.mode == 'Manual' || !has(self.pinnedVersion)",
                "spec.promotion.pinnedVersion belongs to mode Manual: set the mode, or leave the version out",
            )
        )
    )

    mode: PromotionMode = Field(
        PromotionMode.AUTOMATIC,
        description="Automatic: a version that is better serves. Manual: pinnedVersion decides.",
    )
    pinned_version: int | None = Field(
        None,
        ge=0,
        le=2_147_483_647,
        description="Version that serves, with mode Manual; 0 is the prior. Default: what serves now.",
    )
    min_gain_percent: int = Field(
        2, ge=0, le=100, description="By how much its error must be lower than the champion's."
    )
    min_coverage_percent: int = Field(
        88, ge=1, le=99, description="Share of held-out latencies that its bound must cover."
    )
    min_samples: int = Field(500, ge=50, le=5_000_000, description="Rows that it must have been trained on.")
    rollback: RollbackMode = Field(
        RollbackMode.AUTOMATIC,
        description="Automatic: when live coverage falls, the version before serves again. Never: not.",
    )


class ArtifactStoreType(StrEnum):
    """Where versions are kept."""

    CONFIG_MAP = "ConfigMap"
    URL = "URL"


class ArtifactStore(Document):
    """Where versions are kept."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(self.type == 'URL') == has(self.url)",
                "spec.artifactStore.url belongs to type URL: give it with URL, leave it out with ConfigMap",
            )
        )
    )

    type: ArtifactStoreType = Field(
        ArtifactStoreType.CONFIG_MAP,
        description="ConfigMap: immutable ConfigMaps of the operator's namespace. URL: files below url.",
    )
    url: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="Prefix below which versions are written, such as s3://bucket/tailwise. The training Job "
        "writes there and the operator reads, each by the cloud identity of its service account.",
        json_schema_extra=rules(
            rule(
                "self.matches('^(s3|gs|az|file)://.+')",
                "spec.artifactStore.url needs a scheme that can be written to: s3://, gs://, az://, or in "
                "development file://",
            )
        ),
    )


class LatencyModelSpec(Document):
    """How latencies are predicted; an empty spec is complete."""

    feature_set: FeatureSet = Field(
        FeatureSet.EXTENDED,
        description="Paper: effective cores, effective clock, model size and FLOPs, nothing else. Extended: "
        "also bytes moved, operator counts, load, threads, CPU limit, measured speed and the prior's answer.",
    )
    dataset: Dataset = Field(Dataset(), description="Which measurements are learned from.")
    profiling: Profiling | None = Field(
        None, description="Jobs that measure before there is traffic. Default: none."
    )
    smoothing: Smoothing = Field(Smoothing(), description="Smoothing of the latencies before training.")
    algorithms: tuple[AlgorithmSearch, ...] = Field(
        ALL_ALGORITHMS,
        min_length=1,
        max_length=4,
        description="Algorithms that compete. Default: all four.",
        json_schema_extra=list_map("name"),
    )
    search: Search = Field(Search(), description="How the best is found.")
    calibration: Calibration = Field(Calibration(), description="How the bound is set.")
    promotion: Promotion = Field(Promotion(), description="When a version takes over.")
    schedule: Schedule | None = Field(None, description="When training is due. Default: on demand only.")
    drift: Drift | None = Field(
        None, description="What makes training due before its time. Default: nothing does."
    )
    training_job: TrainingJob = Field(TrainingJob(), description="The Job that trains.")
    history_limit: int = Field(
        5, ge=1, le=MAX_HISTORY, description="Versions that are kept beside the one that serves."
    )
    artifact_store: ArtifactStore = Field(ArtifactStore(), description="Where versions are kept.")


class LatencyModel(Document):
    """What predicts latencies."""

    api_version: Literal["tailwise.dev/v1alpha1"] = "tailwise.dev/v1alpha1"
    kind: Literal["LatencyModel"] = "LatencyModel"
    metadata: ObjectMetadata
    spec: LatencyModelSpec = Field(LatencyModelSpec(), description="What is wanted.")
    status: LatencyModelStatus = Field(
        default_factory=LatencyModelStatus, description="What was learned, and what serves."
    )


LATENCY_MODEL = Kind(
    name="LatencyModel",
    plural="latencymodels",
    singular="latencymodel",
    short_names=("lm",),
    namespaced=False,
    model=LatencyModel,
    description="LatencyModel predicts the latency of models on nodes: from physics at first, from the "
    "cluster's own metrics as they come.",
    columns=(
        Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Answers predictions."),
        Column("Algorithm", "string", ".status.champion.algorithm", "What answers."),
        Column("RMSE", "string", ".status.champion.rmse", "Its error on held-out data, milliseconds."),
        Column(
            "Coverage", "string", ".status.champion.coveragePercent", "Share its bound covered, per cent."
        ),
        Column("Samples", "integer", ".status.champion.samples", "Rows it was trained on."),
        Column("Trained", "date", ".status.champion.trainedAt", "Time since its training."),
        Column("Version", "integer", ".status.activeVersion", "Version that answers.", 1),
        Column(
            "Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is (not) ready.", 1
        ),
        Column("Age", "date", ".metadata.creationTimestamp", "Time since it was made."),
    ),
)
