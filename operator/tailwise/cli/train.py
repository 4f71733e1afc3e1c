"""``tailwise train --dataset FILE --out DIR``: a version from measurements, by the code that Jobs run.

Exit codes: 0 a version stands in DIR, 1 the dataset or the spec cannot be used, 2 wrong usage. Needs the
training extra; it is imported when the command runs, so that the operator's image can still show its help.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.training_policy import FeatureSet

if TYPE_CHECKING:
    from tailwise.training.run import Trained

EXTRA_MISSING = "{error}; install the training extra (pip install 'tailwise[training]'), or use its image"


def add_parser(subparsers: Any) -> None:
    """Add ``train`` and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a version from a dataset",
        description="Train a version: the best algorithm by its error on blocks of time, then its grid, then "
        "calibrated bounds, exported to ONNX. The same data give the same version.",
    )
    parser.add_argument(
        "--dataset", action="append", default=[], type=Path, metavar="FILE",
        help="measurements, .parquet or .jsonl (docs/dataset.md); may be repeated",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the version is written")
    parser.add_argument("--spec", type=Path, metavar="FILE", help="a LatencyModel, whose spec is used")
    parser.add_argument(
        "--feature-set", choices=[each.value for each in FeatureSet], help="instead of the spec's (Extended)"
    )
    parser.add_argument("--seed", type=int, help="instead of the spec's (0)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="threads of training (all)"
    )
    parser.add_argument(
        "--leave-families-out",
        action="store_true",
        help="also predict each family of models by a version that never saw it",
    )
    parser.add_argument(
        "--run",
        dest="training_run",
        type=Path,
        metavar="DIR",
        help="train what the operator asks for in DIR and write it to the cluster, as training Jobs do; the "
        "dataset, the spec and where the version goes are part of that",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train and write; returns the exit code."""
    try:
        if arguments.training_run is not None:
            from tailwise.cli.training_run import run_training  # noqa: PLC0415 - needs the training extra

            return run_training(arguments.training_run, arguments.threads)
        if not arguments.dataset or arguments.out is None:
            print("tailwise train: give --dataset and --out", file=sys.stderr)
            return 2
        return _train(arguments)
    except ImportError as error:
        print(f"tailwise train: {EXTRA_MISSING.format(error=error)}", file=sys.stderr)
    except _UsageError as error:
        print(f"tailwise train: {error}", file=sys.stderr)
    return 1


class _UsageError(ValueError):
    """The message names the option or file and the way out."""


def _train(arguments: argparse.Namespace) -> int:
    from tailwise.training.candidates import CandidateError  # noqa: PLC0415 - see above
    from tailwise.training.cleaning import Cleaned  # noqa: PLC0415
    from tailwise.training.evaluation import EVALUATION_FILE, run_evaluation  # noqa: PLC0415
    from tailwise.training.files import read_dataset  # noqa: PLC0415
    from tailwise.training.progress import Shown  # noqa: PLC0415
    from tailwise.training.rows import DatasetError, joined  # noqa: PLC0415
    from tailwise.training.run import TrainingError, train  # noqa: PLC0415

    spec = _spec(arguments)
    began = time.monotonic()
    try:
        with Shown(sys.stderr) as shown:
            read: list[Cleaned] = []
            for path in arguments.dataset:
                now = datetime.now(UTC)
                read.append(read_dataset(path, now=now, progress=shown.reading(path.name)))
            dropped = _dropped(read)
            dataset = joined([each.dataset for each in read])
            trained = train(dataset, spec, threads=arguments.threads, told=shown.told)
            families: Any = ()
            if arguments.leave_families_out:
                families = _families(trained, dataset, spec, arguments.threads, shown)
    except (DatasetError, TrainingError, CandidateError) as error:
        reason = getattr(error, "reason", "")
        raise _UsageError(f"{reason}: {error}" if reason else str(error)) from error
    evaluation = run_evaluation(trained, families, dropped)
    document = evaluation.model_dump_json(by_alias=True, indent=1) + "\n"
    _write(arguments.out, {**trained.files, EVALUATION_FILE: document.encode()})
    _report(trained, evaluation, arguments.out, time.monotonic() - began)
    return 0


def _families(trained: Trained, dataset: Any, spec: LatencyModelSpec, threads: int, shown: Any) -> Any:
    from tailwise.training.evaluation import leave_families_out  # noqa: PLC0415
    from tailwise.training.matrix import matrix  # noqa: PLC0415

    rows = matrix(dataset, spec.feature_set)
    best = trained.searched.best.candidate
    return leave_families_out(rows, best, spec, threads=threads, told=shown.families)


def _spec(arguments: argparse.Namespace) -> LatencyModelSpec:
    spec = LatencyModelSpec() if arguments.spec is None else read_spec(arguments.spec)
    if arguments.feature_set is not None:
        spec = spec.model_copy(update={"feature_set": FeatureSet(arguments.feature_set)})
    if arguments.seed is not None:
        spec = spec.model_copy(update={"search": spec.search.model_copy(update={"seed": arguments.seed})})
    return spec


def read_spec(path: Path) -> LatencyModelSpec:
    """The spec of a LatencyModel in a YAML file; raises _UsageError."""
    way_out = "give the LatencyModel as kubectl apply takes it"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _UsageError(f"--spec {path}: {getattr(error, 'strerror', None) or error}; {way_out}") from error
    except yaml.YAMLError as error:
        raise _UsageError(f"--spec {path}: this is not YAML; {way_out}") from error
    if not isinstance(document, dict) or document.get("kind") != "LatencyModel":
        raise _UsageError(f"--spec {path}: kind is not LatencyModel; {way_out}")
    try:
        return LatencyModelSpec.model_validate(document.get("spec") or {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _UsageError(f"--spec {path}: spec.{field}: {first['msg']}") from error


def _dropped(read: list[Any]) -> dict[Any, int]:
    """All that cleaning left out, told with the first row of each reason."""
    counts: dict[Any, int] = {}
    for each in read:
        for reason, count in each.dropped.items():
            counts[reason] = counts.get(reason, 0) + count
            print(f"tailwise train: {count} rows dropped, {reason}: {each.examples[reason]}", file=sys.stderr)
    return counts


def _write(directory: Path, files: dict[str, bytes]) -> None:
    """Write all files; the manifest goes first and comes last, so that a directory with one is whole."""
    from tailwise.prediction.manifest import MANIFEST_FILE  # noqa: PLC0415

    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MANIFEST_FILE).unlink(missing_ok=True)
        for name in sorted(files, key=lambda each: each == MANIFEST_FILE):
            (directory / name).write_bytes(files[name])
    except OSError as error:
        raise _UsageError(
            f"--out {directory}: {error.strerror or error}; name a directory to write to"
        ) from error


def _report(trained: Trained, evaluation: Any, out: Path, seconds: float) -> None:
    manifest, heldout = trained.manifest, trained.manifest.heldout
    print(f"{'algorithm':14s} {'RMSE ms':>9} {'RMSLE':>8} {'MAPE %':>8} {'R2':>8} {'covered %':>10}")
    for each in manifest.evaluations:
        figures = (each.rmse, each.rmsle, each.mape_percent, each.r2, each.coverage_percent)
        cells = [text if text is not None else "-" for text in figures]
        print(f"{each.algorithm:14s} {cells[0]:>9} {cells[1]:>8} {cells[2]:>8} {cells[3]:>8} {cells[4]:>10}")
    if (
        heldout.coverage is not None
        and heldout.coverage_low is not None
        and heldout.coverage_high is not None
    ):
        print(
            f"\nheld out {heldout.rows} rows: bound covers {heldout.coverage:.1%} "
            f"(95 % interval {heldout.coverage_low:.1%} to {heldout.coverage_high:.1%}), asked "
            f"{manifest.calibration.coverage_percent} %; out of distribution "
            f"{heldout.out_of_distribution_share or 0:.1%}"
        )
    for family in evaluation.families:
        print(
            f"family {family.family} left out: MAPE {family.mape:.1%} (prior {family.prior_mape:.1%}), "
            f"covered {family.coverage:.1%}, out of distribution {family.out_of_distribution_share:.1%}, "
            f"{family.rows} rows"
        )
    print(f"\n{manifest.algorithm} in {out} after {seconds:.0f} s, digest {trained.digest}")
