"""Writes docs/accuracy.md from a stored dataset of measurements: every figure of it, by one command.

    python -m bench.accuracy DATASET.parquet [--out docs/accuracy.md] [--threads 2]

Both feature sets are trained by the same protocol on the same rows; families are left out one at a time. Rows
whose source says synthetic are refused: accuracy on them proves nothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.training_policy import FeatureSet
from tailwise.training.evaluation import FamilyLeftOut, leave_families_out
from tailwise.training.files import read_dataset
from tailwise.training.matrix import matrix
from tailwise.training.metrics import Errors, errors
from tailwise.training.progress import Shown
from tailwise.training.rows import Dataset
from tailwise.training.run import Trained, train

OUT = Path("docs/accuracy.md")


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that is wanted, and the one that came; fractions."""

    what: str
    figure: float
    least: float | None
    most: float | None

    @property
    def line(self) -> str:
        """A row of the table, with how far it falls short."""
        wanted = " and ".join(
            text
            for text in (
                f"at least {self.least:.2f}" if self.least is not None else "",
                f"at most {self.most:.2f}" if self.most is not None else "",
            )
            if text
        )
        short = max(
            (self.least - self.figure) if self.least is not None else 0.0,
            (self.figure - self.most) if self.most is not None else 0.0,
        )
        verdict = "reached" if short <= 0 else f"missed by {short:.3f}"
        return f"| {self.what} | {wanted} | {self.figure:.3f} | {verdict} |"


def main(arguments: list[str]) -> int:
    """Train, evaluate, write the page."""
    parser = argparse.ArgumentParser(description="Write docs/accuracy.md from measured rows.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    with Shown(sys.stderr) as shown:
        reading = shown.reading(options.dataset.name)
        read = read_dataset(options.dataset, now=datetime.now(UTC), progress=reading)
        dataset = read.dataset
        if any("synthetic" in str(source).lower() for source in dataset.source):
            print(
                f"{options.dataset}: holds synthetic rows; accuracy is measured on measured rows",
                file=sys.stderr,
            )
            return 1
        trained, families = {}, {}
        for feature_set in FeatureSet:
            spec = LatencyModelSpec(feature_set=feature_set)
            trained[feature_set] = train(dataset, spec, threads=options.threads, told=shown.told)
            families[feature_set] = leave_families_out(
                matrix(dataset, feature_set),
                trained[feature_set].searched.best.candidate,
                spec,
                threads=options.threads,
                told=shown.families,
            )
    dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(read.dropped.items())) or "none"
    text = page(options.dataset.name, dataset, dropped, trained, families)
    options.out.write_text(text, encoding="utf-8")
    print(f"written to {options.out}")
    return 0


def page(
    name: str,
    dataset: Dataset,
    dropped: str,
    trained: dict[FeatureSet, Trained],
    families: dict[FeatureSet, tuple[FamilyLeftOut, ...]],
) -> str:
    """The page in Markdown; the same dataset gives the same."""
    best = trained[FeatureSet.EXTENDED]
    lines = [
        "# Accuracy",
        "",
        f"Made by `python -m bench.accuracy {name}` from measured rows; nothing here is written by hand.",
        "",
        "## The dataset",
        *_dataset_lines(dataset, dropped),
        "",
        "## Held out by time",
        f"The newest {len(best.heldout.rows)} rows, which no version was trained on or calibrated with.",
        "",
        "| features | algorithm | RMSE ms | RMSLE | MAPE % | R2 | bound covers % |",
        "|---|---|---|---|---|---|---|",
        *_table_lines(trained),
        "",
        *_chosen_lines(trained),
        "",
        "## Families left out",
        "Each family of models is predicted by a version that never saw it. Where the version says "
        "out of distribution, the prior answers; coverage is of the rows it answers itself.",
        "",
        "| features | family | rows | MAPE % | prior's MAPE % | RMSLE | covered % | out of distribution % |",
        "|---|---|---|---|---|---|---|---|",
        *_family_lines(families),
        "",
        "## The prior alone",
        *_prior_lines(dataset),
        "",
        "## What was wanted",
        "| figure | wanted | came | |",
        "|---|---|---|---|",
        *(goal.line for goal in goals(best, families[FeatureSet.EXTENDED])),
        "",
    ]
    return "\n".join(lines)


def _dataset_lines(dataset: Dataset, dropped: str) -> list[str]:
    limits = sorted({each.cpu_limit_millicores or 0 for each in dataset.servings})
    told = ", ".join("none" if not limit else f"{limit}m" for limit in limits)
    low, high = float(dataset.cpu_utilisation.min()), float(dataset.cpu_utilisation.max())
    begin, end = (datetime.fromtimestamp(float(t), UTC) for t in (dataset.time.min(), dataset.time.max()))
    sources = ", ".join(sorted({str(each) for each in dataset.source if each})) or "not told"
    return [
        f"- {len(dataset)} rows of {len(set(dataset.profile_key.tolist()))} models in "
        f"{len(set(dataset.family.tolist()))} families on {len(set(dataset.node.tolist()))} nodes of "
        f"{len(set(dataset.node_class.tolist()))} classes; dropped: {dropped}",
        f"- CPU limits {told}; load of others {low:.0%} to {high:.0%}; "
        f"P90 {dataset.p90_milliseconds.min():.3g} to {dataset.p90_milliseconds.max():.4g} ms",
        f"- measured {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC; sources: {sources}; "
        f"fingerprint `{dataset.fingerprint()}`",
    ]


def _table_lines(trained: dict[FeatureSet, Trained]) -> list[str]:
    lines = []
    for feature_set, made in trained.items():
        for each in made.manifest.evaluations:
            cells = (each.rmse, each.rmsle, each.mape_percent, each.r2, each.coverage_percent)
            shown = " | ".join(text if text is not None else "-" for text in cells)
            lines.append(f"| {feature_set} | {each.algorithm} | {shown} |")
    return lines


def _chosen_lines(trained: dict[FeatureSet, Trained]) -> list[str]:
    lines = []
    for feature_set, made in trained.items():
        held = made.manifest.heldout
        lines.append(
            f"- {feature_set}: {made.searched.best.candidate}; its bound covers {held.coverage or 0:.1%} "
            f"(95 % interval {held.coverage_low or 0:.1%} to {held.coverage_high or 0:.1%}) of the rows it "
            f"answers, {held.out_of_distribution_share or 0:.1%} are out of distribution"
        )
    return lines


def _family_lines(families: dict[FeatureSet, tuple[FamilyLeftOut, ...]]) -> list[str]:
    return [
        f"| {feature_set} | {each.family} | {each.rows} "
        f"| {100 * each.mape:.1f} | {100 * each.prior_mape:.1f} "
        f"| {each.rmsle:.3f} | {100 * each.coverage:.1f} | {100 * each.out_of_distribution_share:.1f} |"
        for feature_set, results in families.items()
        for each in results
    ]


def _prior_lines(dataset: Dataset) -> list[str]:
    rows = matrix(dataset, FeatureSet.PAPER)
    limited = np.array([bool(each.cpu_limit_millicores) for each in dataset.servings])[dataset.serving_index]
    lines = []
    for name, chosen in (("without a CPU limit", ~limited), ("with a CPU limit", limited)):
        if chosen.any():
            off = np.abs(rows.prior[chosen] / rows.measured[chosen] - 1)
            lines.append(
                f"- {name}: {chosen.sum()} rows, median error {np.median(off):.1%}, mean {off.mean():.1%}"
            )
    return lines


def goals(best: Trained, families: tuple[FamilyLeftOut, ...]) -> list[Goal]:
    """What the project asks of itself, against what came."""
    held = best.heldout
    off: Errors = errors(held.rows.measured, held.p90)
    coverage = best.manifest.heldout.coverage
    made = [
        Goal("MAPE, held out by time", off.mape, None, 0.10),
        Goal("RMSLE, held out by time", off.rmsle, None, 0.10),
        Goal("coverage of the 0.90 bound", 0.0 if coverage is None else coverage, 0.90, 0.95),
    ]
    if families:
        rows = np.array([each.rows for each in families], dtype=np.float64)
        mape = float(np.average([each.mape for each in families], weights=rows))
        covered = float(np.average([each.coverage for each in families], weights=rows))
        made += [
            Goal("MAPE, families left out", mape, None, 0.15),
            Goal("coverage, families left out", covered, 0.85, None),
        ]
    return made


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
