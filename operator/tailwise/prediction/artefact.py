"""A version's artefact, read and checked: only what is whole, ours and fits this operator is run.

The graph runs in ONNX Runtime on one thread. It was written by a training Job, but may have been changed
since: digests are compared before anything of it is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import ValidationError

from tailwise.api.training_policy import FeatureSet
from tailwise.prediction.features import feature_names
from tailwise.prediction.manifest import (
    FORMAT_VERSION,
    INPUT,
    MANIFEST_FILE,
    MODEL_FILE,
    OUTPUTS,
    Manifest,
    digest,
    prior_digest,
)
from tailwise.prediction.quota import FloatArray

MOST_BYTES = 64 * 2**20


class Refusal(StrEnum):
    """Why an artefact is not run."""

    MISSING = "Missing"
    TAMPERED = "Tampered"
    FOREIGN = "Foreign"


class ArtefactError(ValueError):
    """An artefact is refused; the message names it, what is wrong, and the way out."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Answers:
    """What the graph says, each of shape (rows,): see ``manifest.OUTPUTS``."""

    target: FloatArray
    upper: FloatArray
    distance: FloatArray


@dataclass(frozen=True, slots=True)
class Artefact:
    """A version that can be run. ``digest`` is the manifest's."""

    manifest: Manifest
    digest: str
    session: Any

    def run(self, values: NDArray[np.floating[Any]]) -> Answers:
        """Answers to features, shape (rows, features), NaN where unknown."""
        asked = np.ascontiguousarray(values, dtype=np.float32)
        target, upper, distance = (
            np.asarray(each, dtype=np.float64).reshape(-1)
            for each in self.session.run(list(OUTPUTS), {INPUT: asked})
        )
        return Answers(target, upper, distance)


def load_directory(directory: Path, expected_digest: str | None = None) -> Artefact:
    """Read an artefact from a directory, as ``tailwise train --out`` writes it. Raises ArtefactError."""
    files = {}
    for name in (MANIFEST_FILE, MODEL_FILE):
        path = directory / name
        if not path.is_file():
            way_out = "name a directory that tailwise train --out wrote"
            raise ArtefactError(Refusal.MISSING, f"{directory}: there is no {name}; {way_out}")
        files[name] = path.read_bytes()
    return load(files, str(directory), expected_digest)


def load(files: Mapping[str, bytes], name: str, expected_digest: str | None = None) -> Artefact:
    """Check and open an artefact.

    ``files``: by name, MANIFEST_FILE and MODEL_FILE. ``name`` is what errors call it. ``expected_digest`` is
    what was noted when it was made.

    Raises:
        ArtefactError: a file is missing; a digest is another than it should be; it was made for other
            features, another prior or another format than this operator's.
    """
    missing = [each for each in (MANIFEST_FILE, MODEL_FILE) if each not in files]
    if missing:
        raise ArtefactError(Refusal.MISSING, f"{name}: {', '.join(missing)} is missing; train a new version")
    document, model = files[MANIFEST_FILE], files[MODEL_FILE]
    found = digest(document)
    if expected_digest is not None and found != expected_digest:
        told = f"{name}: the manifest's digest is {found}, {expected_digest} was noted when it was made"
        raise ArtefactError(Refusal.TAMPERED, f"{told}; train a new version")
    manifest = _manifest(document, name)
    if digest(model) != manifest.model_digest:
        told = f"{name}: {MODEL_FILE} has digest {digest(model)}, the manifest says {manifest.model_digest}"
        raise ArtefactError(Refusal.TAMPERED, f"{told}; train a new version")
    return Artefact(manifest, found, _session(model, manifest, name))


def _manifest(document: bytes, name: str) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        told = f"{name}: {MANIFEST_FILE} is not of this version: {where}: {first['msg']}"
        raise ArtefactError(Refusal.FOREIGN, f"{told}; train a new version") from error
    reasons = []
    if manifest.format_version != FORMAT_VERSION:
        reasons.append(f"its format is {manifest.format_version}, this operator reads {FORMAT_VERSION}")
    if manifest.features != feature_names(manifest.feature_set):
        reasons.append("its features are not those of this operator")
    if manifest.feature_set is FeatureSet.EXTENDED and manifest.prior_digest != prior_digest():
        reasons.append("it corrects another prior than this operator's")
    if reasons:
        raise ArtefactError(Refusal.FOREIGN, f"{name}: {'; '.join(reasons)}; train a new version")
    return manifest


def _session(model: bytes, manifest: Manifest, name: str) -> Any:
    if len(model) > MOST_BYTES:
        told = f"{name}: {MODEL_FILE} has {len(model) / 2**20:.0f} MiB, {MOST_BYTES / 2**20:.0f} are read"
        raise ArtefactError(Refusal.FOREIGN, f"{told}; train a smaller version")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has no class of its own for its errors
        told = f"{name}: ONNX Runtime cannot open {MODEL_FILE}: {' '.join(str(error).split())[:300]}"
        raise ArtefactError(Refusal.FOREIGN, f"{told}; train a new version") from error
    inputs = [(each.name, each.shape[-1]) for each in session.get_inputs()]
    outputs = {each.name for each in session.get_outputs()}
    if inputs != [(INPUT, len(manifest.features))] or not outputs.issuperset(OUTPUTS):
        told = f"{name}: {MODEL_FILE} takes {inputs} and gives {sorted(outputs)}"
        raise ArtefactError(Refusal.FOREIGN, f"{told}, which is no Tailwise version; train a new one")
    return session
