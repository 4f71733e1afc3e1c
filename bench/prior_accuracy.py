"""How far the prior is off on this machine: predicted against ONNX Runtime, for the models of the tests.

    python -m bench prior [--models resnet50 …] [--seconds 4] [--full]

The agent's probe measures this machine, the graph reader counts each model, and the model then runs back to
back on one thread, with and without a CPU limit. Limits need root and writable cgroups; without them CPU time
of an unlimited query is compared instead, and that is said.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.prior.limited import can_limit
from bench.prior.measure import cpu_milliseconds
from bench.prior.validate import compare
from tailwise.agent import probe
from tailwise.agent.reading import Roots, online_cores, read_hardware
from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.models.inspection import InspectionRequest, inspect
from tailwise.prediction.prediction import NodeLoad, Question, Serving
from tailwise.prediction.predictor import PriorPredictor
from tests.models import rehydrate

_QUICK = ("mobilenet_v2", "resnet18", "resnet50", "distilbert_seq128")
_QUICK_LIMITS, _FULL_LIMITS = (0, 500), (0, 1000, 500, 250)
_QUICK_SECONDS, _FULL_SECONDS = 4.0, 8.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One run against its prediction. ``limit_millicores`` is 0 without a limit; ``clock`` what was measured:
    ``wall`` of back-to-back queries, or ``cpu`` time where no limits can be set."""

    model: str
    limit_millicores: int
    clock: str
    measured_p50_milliseconds: float
    measured_p90_milliseconds: float
    predicted_p50_milliseconds: float
    predicted_p90_milliseconds: float
    bound_milliseconds: float

    @property
    def p90_error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_p90_milliseconds / self.measured_p90_milliseconds - 1

    @property
    def covered(self) -> bool:
        """Whether the measured P90 kept below the bound."""
        return self.measured_p90_milliseconds <= self.bound_milliseconds


def measure(
    models: Sequence[str] | None, seconds: float | None, full: bool, write: Callable[[str], object]
) -> list[Accuracy]:
    """Run the models, write each run as it ends, and last what they come to."""
    names = _names(models, full)
    limits: tuple[int, ...] = _FULL_LIMITS if full else _QUICK_LIMITS
    if not can_limit():
        write("NO LIMITS: they need root and a writable cgroup tree; CPU time without a limit is compared")
        limits = (0,)
    hardware = _this_machine()
    write(_HEADER)
    runs = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="tailwise-bench-") as directory:
            path = rehydrate.write(name, Path(directory) / f"{name}.onnx")
            profile = inspect(InspectionRequest(url=path.as_uri(), allow_files=True))
            for limit in limits:
                length = seconds or (_FULL_SECONDS if full else _QUICK_SECONDS)
                runs.append(_run(path, profile, hardware, limit, length))
                write(_row(runs[-1]))
    for line in _summary(runs):
        write(line)
    return runs


def _names(models: Sequence[str] | None, full: bool) -> Sequence[str]:
    known = rehydrate.names()
    if unknown := sorted(set(models or ()) - set(known)):
        raise SystemExit(f"--models: no {', '.join(unknown)} in tests/models; there are {', '.join(known)}")
    return models or (known if full else _QUICK)


def _this_machine() -> NodeHardware:
    roots = Roots()
    measured = probe.measure(online_cores(roots))
    return read_hardware(platform.node(), roots, measured, datetime.now(UTC))


def _run(path: Path, profile: ModelProfile, hardware: NodeHardware, limit: int, seconds: float) -> Accuracy:
    serving = Serving(limit or None, threads=1)
    if can_limit():
        compared = compare(path, profile, hardware, serving, seconds)
        clock, p50, p90, predicted = "wall", compared.p50, compared.p90, compared.predicted
    else:
        clock, (p50, p90) = "cpu", cpu_milliseconds(path)
        predicted = PriorPredictor().predict(Question(profile, serving, hardware, NodeLoad(cpu=0.0)))
    return Accuracy(
        model=path.stem,
        limit_millicores=limit,
        clock=clock,
        measured_p50_milliseconds=p50,
        measured_p90_milliseconds=p90,
        predicted_p50_milliseconds=predicted.p50_milliseconds,
        predicted_p90_milliseconds=predicted.p90_milliseconds,
        bound_milliseconds=predicted.bound_milliseconds,
    )


_HEADER = (
    "                            limit  clock |  P50, ms            |  P90, ms                    |\n"
    "model                      mcores        | measured  predicted | measured  predicted   error | bound, ms"
)


def _row(run: Accuracy) -> str:
    return (
        f"{run.model:26s} {run.limit_millicores or '-':>6} {run.clock:>6} | "
        f"{run.measured_p50_milliseconds:8.1f}  {run.predicted_p50_milliseconds:9.1f} | "
        f"{run.measured_p90_milliseconds:8.1f}  {run.predicted_p90_milliseconds:9.1f} {run.p90_error:+7.1%} "
        f"| {run.bound_milliseconds:9.1f}"
    )


def _summary(runs: Sequence[Accuracy]) -> list[str]:
    lines = []
    for limit in sorted({run.limit_millicores for run in runs}):
        chosen = [run for run in runs if run.limit_millicores == limit]
        errors = np.abs([run.p90_error for run in chosen])
        covered = sum(run.covered for run in chosen)
        lines.append(
            f"{f'limit {limit}m' if limit else 'no limit':12s} P90 error: median {np.median(errors):.1%}, "
            f"largest {errors.max():.1%}; below the bound {covered} of {len(chosen)}"
        )
    return lines
