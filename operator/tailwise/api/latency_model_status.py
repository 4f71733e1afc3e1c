"""What the operator writes into a LatencyModel's status."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tailwise.api.conditions import Condition
from tailwise.api.document import StatusDocument, Timestamp
from tailwise.api.schema import list_map

MAX_HISTORY = 20
MAX_REQUEST = 256

# A figure with decimals, as text: the API holds no floats, whose last digits differ between writers.
Decimal = Annotated[str, Field(max_length=32, pattern=r"^-?[0-9]+(\.[0-9]+)?$")]


class Algorithm(StrEnum):
    """What answers predictions; Prior is physics and needs no training."""

    PRIOR = "Prior"
    RANDOM_FOREST = "RandomForest"
    LIGHTGBM = "LightGBM"
    XGBOOST = "XGBoost"
    MLP = "MLP"


class VersionOutcome(StrEnum):
    """What became of a trained version."""

    CHAMPION = "Champion"
    CHALLENGER = "Challenger"
    REJECTED = "Rejected"
    RETIRED = "Retired"
    ROLLED_BACK = "RolledBack"


class RunResult(StrEnum):
    """How a training run ended."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class Evaluation(StatusDocument):
    """How one algorithm did on held-out data: a row of the paper's Table III, and more."""

    algorithm: Algorithm = Field(
        description="What was evaluated: Prior, RandomForest, LightGBM, XGBoost or MLP."
    )
    rmse: Decimal = Field(description="Root mean squared error, in milliseconds.")
    rmsle: Decimal | None = Field(
        None, description="Root mean squared logarithmic error, of latencies in milliseconds."
    )
    mape_percent: Decimal | None = Field(None, description="Mean absolute error in per cent of the measured.")
    r2: Decimal | None = Field(None, description="Coefficient of determination.")
    coverage_percent: Decimal | None = Field(
        None, description="Share of held-out latencies that the bound covered."
    )
    samples: int = Field(0, ge=0, description="Held-out rows.")


class ModelVersion(StatusDocument):
    """A version that can answer predictions."""

    version: int = Field(ge=0, description="Its number; 0 is the physics prior.")
    algorithm: Algorithm = Field(description="What it is: Prior, RandomForest, LightGBM, XGBoost or MLP.")
    outcome: VersionOutcome = Field(
        description="Champion serves, Challenger is weighed against it, Rejected lost, Retired served "
        "before, RolledBack was taken back."
    )
    rmse: Decimal | None = Field(None, description="Root mean squared error on held-out data, milliseconds.")
    coverage_percent: Decimal | None = Field(
        None, description="Share of held-out latencies that its bound covered."
    )
    samples: int = Field(0, ge=0, description="Rows that it was trained on.")
    artifact: str = Field("", max_length=2048, description="ConfigMap or URL that holds it.")
    digest: str = Field("", max_length=200, description="Digest of the artefact, checked on each load.")
    trained_at: Timestamp | None = Field(None, description="When its training ended.")
    promoted_at: Timestamp | None = Field(None, description="When it began to serve.")


class DroppedRows(StatusDocument):
    """Rows that were left out of the dataset for one reason."""

    reason: str = Field(max_length=128, description="Why: Gap, Reset, NotANumber, Duplicate, ClockSkew …")
    rows: int = Field(ge=1, description="How many.")


class DatasetStatus(StatusDocument):
    """What there is to train on."""

    rows: int = Field(0, ge=0, description="Rows that can be used.")
    workloads: int = Field(0, ge=0, description="Workloads they come from.")
    node_classes: int = Field(0, ge=0, description="Classes of nodes they come from.")
    dropped: tuple[DroppedRows, ...] = Field(
        default=(), max_length=16, description="Rows left out.", json_schema_extra=list_map("reason")
    )
    newest_at: Timestamp | None = Field(None, description="Time of the newest row.")
    fingerprint: str = Field("", max_length=200, description="Digest of the rows.")


class TrainingRun(StatusDocument):
    """The last training run."""

    job: str = Field("", max_length=253, description="Its Job.")
    result: RunResult = Field(description="Running, Succeeded, Failed or Skipped.")
    message: str = Field("", max_length=1024, description="Stage and progress, or why it failed.")
    started_at: Timestamp | None = Field(None, description="When it began.")
    finished_at: Timestamp | None = Field(None, description="When it ended.")


class LiveAccuracy(StatusDocument):
    """The serving version against what was observed after its placements."""

    samples: int = Field(0, ge=0, description="Placements whose latency was observed.")
    exceedances: int = Field(0, ge=0, description="Those whose latency exceeded the bound.")
    coverage_percent: Decimal | None = Field(None, description="Share of them that the bound covered.")
    mape_percent: Decimal | None = Field(None, description="Mean absolute error in per cent of the observed.")
    since: Timestamp | None = Field(None, description="Start of the window.")


class LatencyModelStatus(StatusDocument):
    """What the operator has learned, and what serves."""

    observed_generation: int | None = Field(
        None, ge=0, description="metadata.generation that this status was made for."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="Ready, SpecSupported, DatasetSufficient, Trained, Promoted and Drifting (True is bad).",
        json_schema_extra=list_map("type"),
    )
    active_version: int = Field(0, ge=0, description="Version that answers; 0 is the physics prior.")
    champion: ModelVersion | None = Field(None, description="The version that answers.")
    challenger: ModelVersion | None = Field(None, description="The version that is weighed against it.")
    evaluations: tuple[Evaluation, ...] = Field(
        default=(),
        max_length=8,
        description="All algorithms of the last run on the same held-out data.",
        json_schema_extra=list_map("algorithm"),
    )
    dataset: DatasetStatus | None = Field(None, description="What there is to train on.")
    last_run: TrainingRun | None = Field(None, description="The last training run.")
    live: LiveAccuracy | None = Field(None, description="The serving version against what was observed.")
    history: tuple[ModelVersion, ...] = Field(
        default=(),
        max_length=MAX_HISTORY,
        description="The newest versions, at most 20.",
        json_schema_extra=list_map("version"),
    )
    last_schedule_time: Timestamp | None = Field(None, description="When the schedule last asked for a run.")
    next_schedule_time: Timestamp | None = Field(None, description="When it asks for the next.")
    last_retrain_request: str = Field(
        "", max_length=MAX_REQUEST, description="Value of the annotation that was last answered."
    )
