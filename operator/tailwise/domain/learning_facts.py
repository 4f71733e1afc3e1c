"""What a LatencyModel's life is decided from, and what follows: frozen values, no decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tailwise.api.conditions import EventReason, Reason
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.latency_model_status import (
    Algorithm,
    DatasetStatus,
    Evaluation,
    LatencyModelStatus,
    ModelVersion,
    TrainingRun,
    VersionOutcome,
)
from tailwise.domain.drift import DriftVerdict, LiveWindow
from tailwise.domain.promotion import PRIOR_VERSION, PromotionVerdict, Standing
from tailwise.domain.schedule import Trigger


class JobState(StrEnum):
    """Where a training Job is."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A training Job. ``number`` is that of the version it makes; ``message`` Kubernetes' words at its end.

    ``trigger``, ``request`` (the annotation's value) and ``scheduled_for`` are what it answers.
    """

    latency_model: str
    name: str
    uid: str
    number: int
    state: JobState
    message: str
    trigger: str
    request: str
    scheduled_for: datetime | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """A version that is stored whole, as its index tells. ``mape`` is that on held-out rows, a fraction.

    ``standings``: by version, on the rows that this one was held to.
    """

    latency_model: str
    version: int
    algorithm: Algorithm
    digest: str
    artifact: str
    trained_at: datetime
    samples: int
    rmse: str | None = None
    coverage_percent: str | None = None
    mape: float | None = None
    evaluations: tuple[Evaluation, ...] = ()
    dataset: DatasetStatus | None = None
    faults: tuple[str, ...] = ()
    standings: Mapping[int, Standing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run made no version: a condition's reason, and what to do about it."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a step looks at. ``annotation`` is the value of the one that asks for a run.

    ``failures`` by number of the run: what the Job itself told. ``progress`` is where the run under way is.
    ``cannot_train`` says why there can be no run, empty where there can. ``refused`` says by version why its
    artefact cannot be run. ``live`` by version.
    """

    spec: LatencyModelSpec
    status: LatencyModelStatus
    created_at: datetime
    now: datetime
    annotation: str = ""
    jobs: tuple[JobFacts, ...] = ()
    versions: Mapping[int, VersionFacts] = field(default_factory=dict)
    failures: Mapping[int, RunFailure] = field(default_factory=dict)
    progress: str = ""
    cannot_train: str = ""
    refused: Mapping[int, str] = field(default_factory=dict)
    live: Mapping[int, LiveWindow] = field(default_factory=dict)
    new_rows: int = 0


@dataclass(frozen=True, slots=True)
class RunToStart:
    """A run that is due; ``number`` is that of its version."""

    number: int
    trigger: Trigger
    request: str = ""
    scheduled_for: datetime | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Something that an event tells; ``alarming`` as a Warning."""

    reason: EventReason
    message: str
    key: str
    alarming: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from the facts.

    ``made``, ``promotion`` and ``failure`` are None where there is no news of them: conditions stay.
    ``serve`` is the version that answers from now on.
    """

    status: LatencyModelStatus
    serve: int
    drift: DriftVerdict
    made: VersionFacts | None = None
    promotion: PromotionVerdict | None = None
    failure: RunFailure | None = None
    schedule_fault: str = ""
    told: tuple[Told, ...] = ()
    start: RunToStart | None = None
    end_jobs: tuple[JobFacts, ...] = ()
    delete_versions: tuple[int, ...] = ()
    due_again_at: datetime | None = None


def prior_version() -> ModelVersion:
    """Version 0, which needs no training."""
    return ModelVersion(version=PRIOR_VERSION, algorithm=Algorithm.PRIOR, outcome=VersionOutcome.CHAMPION)


def run_number(run: TrainingRun | None) -> int:
    """The version that a run makes or was to make; 0 where there was none."""
    digits = run.job.rpartition("-v")[2] if run is not None else ""
    return int(digits) if digits.isdigit() else 0
