"""Algorithm 1 of the paper, exactly: f(V_x, V_r) for every node that remains, and the least wins.

V_x is a model's size and FLOPs, V_r a node's effective cores and clock (equations 6 to 8) as Prometheus shows
them when the pod arrives. f is trained by the paper's protocol on what the run has measured so far. There is
no assumed load and no SLO in it: the paper has neither. Needs the training extra.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.latency_model_status import Algorithm
from tailwise.api.profile import ModelProfile
from tailwise.api.training_policy import FeatureSet
from tailwise.benchmark.records import Competitor, RunError
from tailwise.prediction.artefact import Artefact, load
from tailwise.prediction.features import features
from tailwise.prediction.learned import respond
from tailwise.prediction.prediction import NodeLoad, Question, Serving
from tailwise.training.candidates import CandidateError
from tailwise.training.files import read_dataset
from tailwise.training.rows import joined
from tailwise.training.run import TrainingError, default_spec, train


@dataclass(frozen=True, slots=True)
class Regressor:
    """f of equation (13)."""

    artefact: Artefact

    def p90(
        self, profile: ModelProfile, nodes: Sequence[tuple[NodeHardware, float]], serving: Serving
    ) -> tuple[float, ...]:
        """Predicted P90 in milliseconds on each node at its utilisation."""
        questions = [Question(profile, serving, hardware, NodeLoad(used)) for hardware, used in nodes]
        answers = self.artefact.run(features(questions, FeatureSet.PAPER))
        ones = np.ones(len(questions))
        response = respond(self.artefact.manifest, answers, ones, np.zeros(len(questions)))
        return tuple(float(value) for value in response.p90)

    def choose(
        self, profile: ModelProfile, nodes: Mapping[str, tuple[NodeHardware, float]], serving: Serving
    ) -> tuple[str, float]:
        """The node of least P90 and that P90; by name where several are equal."""
        order = sorted(nodes)
        predicted = self.p90(profile, [nodes[name] for name in order], serving)
        place = min(range(len(order)), key=lambda each: predicted[each])
        return order[place], predicted[place]


def trained(files: Iterable[Path], out: Path, threads: int) -> Regressor:
    """Train on these rows by the paper's protocol and keep the version in ``out``.

    Raises:
        RunError: there are no rows, or too few.
    """
    way_out = "put policy Paper after others that are measured, or ask for more queries"
    now = datetime.now(UTC)
    read = [read_dataset(file, now=now).dataset for file in files if file.exists()]
    if not read:
        raise RunError(f"policy Paper: no rows to train on; {way_out}")
    dataset = joined(read)
    spec = default_spec(FeatureSet.PAPER)
    # The paper's three; the product's own fourth is no part of it.
    algorithms = tuple(each for each in spec.algorithms if each.name.value != Algorithm.LIGHTGBM.value)
    try:
        version = train(dataset, spec.model_copy(update={"algorithms": algorithms}), threads=threads)
    except (TrainingError, CandidateError) as error:
        raise RunError(f"policy Paper: {error}; {way_out}") from error
    out.mkdir(parents=True, exist_ok=True)
    for name, content in version.files.items():
        (out / name).write_bytes(content)
    return Regressor(load(version.files, str(out)))


def competitors(regressor: Regressor) -> tuple[Competitor, ...]:
    """Table III: what each algorithm erred on the held-out rows."""
    manifest = regressor.artefact.manifest
    return tuple(
        Competitor(
            algorithm=str(each.algorithm),
            rmsle=None if each.rmsle is None else float(each.rmsle),
            rmse_milliseconds=float(each.rmse) if each.rmse is not None else None,
            rows=manifest.provenance.heldout_rows,
        )
        for each in manifest.evaluations
    )
