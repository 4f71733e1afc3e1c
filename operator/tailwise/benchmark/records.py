"""What a run writes: one file when it begins, one for each step that ended; and where they are kept.

Times are Unix seconds, latencies milliseconds. Raw latencies are in the Parquet file beside a step's record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tailwise.api.document import Document, StatusDocument
from tailwise.api.hardware import NodeHardware
from tailwise.benchmark.scenario import PolicyKind, Scenario

PERCENTILES = tuple(range(1, 100))


class RunError(RuntimeError):
    """A run cannot begin or go on; the message says why and the way out."""


class PodRecord(StatusDocument):
    """One pod of one step: where it was placed, what was predicted for it, what was measured."""

    slot: str
    workload: str
    node: str
    slo_milliseconds: int
    placement_seconds: float | None = Field(None, description="From its creation until it had a node.")
    predicted_p90_milliseconds: float | None = Field(
        None, description="With all pods placed; what prediction error is taken from."
    )
    decided_p90_milliseconds: float | None = Field(None, description="When its own node was decided.")
    prediction_source: str | None = None
    queries: int = 0
    valid: bool = False
    begin: float | None = None
    end: float | None = None
    percentiles_milliseconds: tuple[float, ...] = Field((), description="1st to 99th, by nearest rank.")
    slow_queries: int = Field(0, description="Queries over the SLO.")
    error: str | None = None

    @property
    def measured(self) -> bool:
        """Whether LoadGen got its answers."""
        return bool(self.percentiles_milliseconds)

    def percentile(self, percent: int) -> float:
        """Latency by nearest rank, equation (10)."""
        return self.percentiles_milliseconds[percent - 1]


class WindowRecord(StatusDocument):
    """One pod's queries in a few seconds of a step in which a node slowed down."""

    slot: str
    node: str = Field(description="Where the pod was when the window ended; empty while it had no place.")
    end_seconds: float = Field(description="End of the window, since the clients began.")
    queries: int
    p90_milliseconds: float | None = Field(None, description="None: no query was answered.")


class MoveRecord(StatusDocument):
    """A pod that went to another node while it was asked."""

    slot: str
    source: str
    target: str
    at_seconds: float = Field(description="When its successor served, since the clients began.")


class StepRecord(StatusDocument):
    """One policy in one round."""

    round: int
    policy: str
    kind: PolicyKind
    begin: float
    end: float
    measured_seconds: float
    pods: tuple[PodRecord, ...]
    utilisation: dict[str, float] = Field(
        default_factory=dict, description="Share of each node in use while it was measured."
    )

    changed_at_seconds: float | None = Field(None, description="When the node slowed down.")
    windows: tuple[WindowRecord, ...] = ()
    moves: tuple[MoveRecord, ...] = ()

    @property
    def name(self) -> str:
        """Name of its files."""
        return step_name(self.round, self.policy)


class Competitor(StatusDocument):
    """One line of the paper's Table III: an algorithm's error on held-out rows."""

    algorithm: str
    rmsle: float | None
    rmse_milliseconds: float | None
    rows: int


class RunRecord(StatusDocument):
    """What does not change in a run."""

    scenario: Scenario
    digest: str
    release: str
    began: float
    context: str
    kubernetes: str = ""
    machine: str = Field("", description="Of the machine that ran the benchmark.")
    hardware: tuple[NodeHardware, ...] = ()


def step_name(number: int, policy: str) -> str:
    """``round-01-default``."""
    return f"round-{number:02d}-{policy}"


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """Element ceil(p n) of the sorted list, equation (10)."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def percentiles(latencies: Sequence[float]) -> tuple[float, ...]:
    """The 1st to the 99th percentile, rounded to a microsecond."""
    ordered = sorted(latencies)
    return tuple(round(nearest_rank(ordered, percent), 3) for percent in PERCENTILES)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def steps_path(self) -> Path:
        """Where each step's record and rows are."""
        return self.path / "steps"

    def rows_path(self, step: str) -> Path:
        """A step's rows, in the schema of docs/dataset.md."""
        return self.steps_path / f"{step}.parquet"

    def version_path(self, number: int) -> Path:
        """The regressor of the policy Paper, as trained in a round."""
        return self.path / "versions" / f"round-{number:02d}"

    def run(self) -> RunRecord | None:
        """What was begun here; None where nothing was."""
        file = self.path / "run.json"
        return _read(file, RunRecord) if file.exists() else None

    def begin(self, record: RunRecord) -> None:
        """Write the run's own record.

        Raises:
            RunError: the directory holds a run of another scenario.
        """
        before = self.run()
        if before is not None and before.digest != record.digest:
            raise RunError(
                f"{self.path} holds a run of another scenario ({before.digest}, this is {record.digest}): "
                "name another directory with --out, or remove it"
            )
        self.steps_path.mkdir(parents=True, exist_ok=True)
        if before is not None:
            kept = {"began": before.began, "hardware": record.hardware or before.hardware}
            record = record.model_copy(update=kept)
        _write(self.path / "run.json", record)

    def step(self, name: str) -> StepRecord | None:
        """A step that ended; None where it has not."""
        file = self.steps_path / f"{name}.json"
        return _read(file, StepRecord) if file.exists() else None

    def steps(self) -> tuple[StepRecord, ...]:
        """All steps that ended, in order of time."""
        found = [_read(file, StepRecord) for file in self.steps_path.glob("*.json")]
        return tuple(sorted(found, key=lambda step: step.begin))

    def finish(self, step: StepRecord) -> None:
        """Write a step's record; it counts from then on."""
        _write(self.steps_path / f"{step.name}.json", step)


def _read(file: Path, kind: Any) -> Any:
    try:
        return kind.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RunError(f"{file}: this is no record of this version ({error}); remove it") from error


def _write(file: Path, record: Document) -> None:
    temporary = file.with_suffix(".new")
    temporary.write_text(record.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)
