"""A trained version's manifest: what its ONNX graph was trained on, what its answers mean, how good it was.

An artefact is two files, ``manifest.json`` and ``model.onnx``. The manifest holds the graph's digest; the
artefact's digest is the manifest's. Neither holds a time of its making: the same data give the same bytes.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from importlib import resources

from pydantic import Field

from tailwise.api.document import Document
from tailwise.api.latency_model_status import Algorithm, Evaluation
from tailwise.api.training_policy import FeatureSet

FORMAT_VERSION = 1
MANIFEST_FILE, MODEL_FILE = "manifest.json", "model.onnx"
INPUT, OUTPUTS = "features", ("target", "upper", "distance")


class Target(StrEnum):
    """What the graph's output ``target`` is."""

    LOG_RATIO_TO_PRIOR = "LogRatioToPrior"
    MILLISECONDS = "Milliseconds"


class BoundCalibration(Document):
    """One-sided split-conformal calibration: what is added to the logarithm of the predicted quantile.

    ``by_node_class`` holds classes with samples enough (Mondrian), ``pooled`` serves the others. ``unseen``
    is the least for models that were not among those trained on, from families left out in turn; so few
    families may all be alike, so that ``unseen_factor`` times the P90 is the least too: what the prior's own
    bound allows for, from the many families it was validated on.
    """

    coverage_percent: int = Field(ge=50, le=99)
    pooled: float
    by_node_class: dict[str, float] = Field(default_factory=dict)
    unseen: float
    unseen_factor: float = Field(ge=1)

    def offset(self, node_class: str, *, seen: bool) -> float:
        """What to add for a node of this class and a model that was seen or was not."""
        known = self.by_node_class.get(node_class, self.pooled)
        return known if seen else max(known, self.unseen)


class Provenance(Document):
    """What a version was made from and with."""

    dataset_fingerprint: str
    training_rows: int = Field(ge=1)
    calibration_rows: int = Field(ge=0)
    heldout_rows: int = Field(ge=0)
    oldest_at: datetime
    newest_at: datetime
    seed: int
    parameters: dict[str, str] = Field(default_factory=dict, description="Hyperparameters.")
    libraries: dict[str, str] = Field(default_factory=dict, description="Versions of what trained it.")


class HeldOut(Document):
    """The version on rows that are newer than any it was trained on."""

    rows: int = Field(ge=0)
    rmse_milliseconds: float | None = None
    rmsle: float | None = None
    mape: float | None = None
    r2: float | None = None
    coverage: float | None = None
    coverage_low: float | None = Field(None, description="Lower end of the exact 95 % interval.")
    coverage_high: float | None = None
    out_of_distribution_share: float | None = None


class Manifest(Document):
    """A version's manifest."""

    format_version: int = FORMAT_VERSION
    algorithm: Algorithm
    feature_set: FeatureSet
    features: tuple[str, ...] = Field(description="Columns of the input; units are in the names.")
    target: Target
    target_range: tuple[float, float] = Field(description="Least and most that was trained on.")
    utilisation_range: tuple[float, float] = Field(description="Loads that were seen; the prior goes beyond.")
    calibration: BoundCalibration
    known_profiles: tuple[str, ...] = Field(description="Models that were seen, by profile_key.")
    prior_digest: str = Field(description="Digest of the prior's coefficients that ratios refer to.")
    provenance: Provenance
    heldout: HeldOut
    evaluations: tuple[Evaluation, ...] = Field(default=(), description="All that competed: Table III.")
    importance: dict[str, float] = Field(
        default_factory=dict,
        description="Growth of the squared error when a feature is shuffled, as a share.",
    )
    model_digest: str = Field(description="sha256 of model.onnx.")

    def document(self) -> bytes:
        """The manifest as a file's bytes; the same manifest gives the same."""
        return (self.model_dump_json(by_alias=True, indent=1, exclude_none=True) + "\n").encode()


def digest(data: bytes) -> str:
    """``sha256:…``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def prior_digest() -> str:
    """Digest of the coefficients that ship with this version."""
    return digest(resources.files(__package__).joinpath("coefficients.json").read_bytes())
