"""What the operator and its training Jobs say to each other; only documents, no training library.

The operator puts a ``RunRequest`` before the Job. The Job tells its ``RunProgress`` while it runs, a failure
included, and leaves a ``RunReport`` beside the version that it made.
"""

from __future__ import annotations

from pydantic import Field

from tailwise.api.document import Document, StatusDocument
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.latency_model_status import DatasetStatus

REQUEST_FILE = "run.json"
"""The file that holds a ``RunRequest`` in the directory that ``tailwise train --run`` is given."""

REPORT_KEY = "report.json"
"""Key of a version's index under which its ``RunReport`` stands."""

FAILED_FOR_GOOD = 3
"""Exit code of a run that would fail the same way again: its Job is not tried anew."""


class ServingVersion(Document):
    """The version that answers while a challenger is trained; both are judged on the same rows."""

    version: int = Field(ge=1)
    digest: str


class RunRequest(Document):
    """One training run. ``networks`` are those that dataset files may be read from though not public."""

    latency_model: str
    uid: str
    version: int = Field(ge=1, description="Number of the version that is to be made.")
    namespace: str
    job: str
    spec: LatencyModelSpec
    serving: ServingVersion | None = None
    prometheus_url: str | None = None
    networks: tuple[str, ...] = ()
    refused_networks: tuple[str, ...] = ()
    allow_files: bool = False
    volume: str | None = Field(None, description="Directory under which claims of pvc:// URLs are mounted.")


class Failure(StatusDocument):
    """Why there is no version; ``reason`` is that of a condition."""

    reason: str
    message: str


class RunProgress(StatusDocument):
    """Where a run is: ``done`` of ``total`` steps of a stage."""

    stage: str
    done: int = 0
    total: int | None = None
    what: str = ""
    rows: int | None = Field(None, description="Rows of the dataset, once they are counted.")
    remaining_seconds: int | None = Field(None, description="Of this stage, by its pace so far.")
    failure: Failure | None = None

    def words(self) -> str:
        """As a sentence: ``Search: 3 of 12 (LightGBM …), 600 rows, about 2 min left``."""
        of = "" if self.total is None else f" of {self.total}"
        count = f": {self.done}{of}" if self.done or of else ""
        parts = [f"{self.stage}{count}" + (f" ({self.what})" if self.what else "")]
        if self.rows is not None:
            parts.append(f"{self.rows} rows")
        if self.remaining_seconds is not None:
            parts.append(f"about {_duration(self.remaining_seconds)} of it left")
        return ", ".join(parts)


class JudgedVersion(StatusDocument):
    """A version on the held-out rows; ``error`` by the spec's ``search.metric``, ``coverage`` a fraction."""

    version: int = Field(ge=0)
    error: float
    coverage: float | None = None
    samples: int = Field(0, ge=0, description="Rows it learned from.")


class RunReport(StatusDocument):
    """What a run tells of the version it made, beside the manifest; the same data give the same bytes."""

    job: str
    dataset: DatasetStatus
    judged: tuple[JudgedVersion, ...] = Field(description="The prior, the serving version, the challenger.")
    faults: tuple[str, ...] = Field(default=(), description="Workloads that gave no rows, and why.")

    def of(self, version: int) -> JudgedVersion | None:
        """How a version did; None where it was not judged."""
        return next((each for each in self.judged if each.version == version), None)


def _duration(seconds: int) -> str:
    if seconds < 60:
        return "a minute" if seconds > 30 else "half a minute"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{round(seconds / 3600)} h"
