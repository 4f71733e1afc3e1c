"""Writes docs/accuracy.md from a stored dataset of measurements: every figure of it, by one command.

    python -m bench.accuracy DATASET.parquet [--out docs/accuracy.md] [--threads 2] [--prior-seen-until TIME]

The prior was looked at beside the dataset's first rows while it was made; --prior-seen-until says which, so
that its figures stand for rows before and after. Both feature sets are trained by the same protocol on the
same rows; families are left out one at a time. Rows whose source says synthetic are refused: accuracy on them
proves nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pyarrow import parquet

from bench.prior_errors import model_errors, prior_lines, prior_rows
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.training_policy import FeatureSet, Search
from tailwise.prediction.quota import nearest_rank
from tailwise.training.evaluation import FamilyLeftOut, leave_families_out
from tailwise.training.files import read_dataset
from tailwise.training.matrix import matrix
from tailwise.training.metrics import Errors, errors
from tailwise.training.progress import Shown
from tailwise.training.rows import Dataset
from tailwise.training.run import Trained, train

OUT = Path("docs/accuracy.md")
NOTES = Path(__file__).parent / "accuracy_notes.md"
"""What is behind the figures that fall short; written by hand, put under the page."""

PRIOR_SEEN_UNTIL = datetime.fromisoformat("2026-11-25T10:05:00+00:00")
"""Rows until then were at hand while the prior's account of neighbours was written; later ones were not."""


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
    parser.add_argument("--prior-seen-until", type=datetime.fromisoformat, default=PRIOR_SEEN_UNTIL)
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
        seen_until = options.prior_seen_until
        trained, families = {}, {}
        for feature_set in FeatureSet:
            spec = LatencyModelSpec(
                feature_set=feature_set, search=Search(holdout_percent=_share_since(dataset, seen_until))
            )
            trained[feature_set] = train(dataset, spec, threads=options.threads, told=shown.told)
            families[feature_set] = leave_families_out(
                matrix(dataset, feature_set),
                trained[feature_set].searched.best.candidate,
                spec,
                threads=options.threads,
                told=shown.families,
            )
    halves = halves_apart(options.dataset) if options.dataset.suffix == ".parquet" else {}
    dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(read.dropped.items())) or "none"
    text = page(options.dataset.name, dataset, dropped, trained, families, seen_until, halves)
    if NOTES.exists():
        text += "\n" + NOTES.read_text(encoding="utf-8")
    options.out.write_text(text, encoding="utf-8")
    print(f"written to {options.out}")
    return 0


def _share_since(dataset: Dataset, moment: datetime) -> int:
    """Per cent of the rows that came later: they judge, for nothing and nobody has seen them."""
    share = round(100 * float(np.mean(dataset.time > moment.timestamp())))
    return min(50, max(5, share)) if share else Search().holdout_percent


def page(
    name: str,
    dataset: Dataset,
    dropped: str,
    trained: dict[FeatureSet, Trained],
    families: dict[FeatureSet, tuple[FamilyLeftOut, ...]],
    prior_seen_until: datetime = PRIOR_SEEN_UNTIL,
    halves: Mapping[float, float] | None = None,
) -> str:
    """The page in Markdown; the same dataset gives the same."""
    best = trained[FeatureSet.EXTENDED]
    lines = [
        "# Accuracy",
        "",
        f"Made by `python -m bench.accuracy {name}` from measured rows; only the last section "
        "is written by hand.",
        "",
        "## The dataset",
        *_dataset_lines(dataset, dropped),
        "",
        "## Held out by time",
        f"The newest {len(best.heldout.rows)} rows, which no version was trained on or calibrated with "
        f"({best.manifest.provenance.training_rows} rows trained, "
        f"{best.manifest.provenance.calibration_rows} calibrated): the second of two windows, on all nodes.",
        "",
        "| features | algorithm | RMSE ms | RMSLE | MAPE % | R2 | bound covers % |",
        "|---|---|---|---|---|---|---|",
        *_table_lines(trained),
        "",
        *_chosen_lines(trained),
        "",
        "Extended by circumstance, and what chance alone does to a P90 of so few queries: a window's first "
        "half against its second tells twice the error of the whole.",
        "",
        "| rows | how many | MAPE % | RMSLE | chance: MAPE % | RMSLE |",
        "|---|---|---|---|---|---|",
        *_circumstance_lines(best, halves or {}),
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
        *prior_lines(dataset, prior_seen_until),
        "",
        "## What was wanted",
        "| figure | wanted | came | |",
        "|---|---|---|---|",
        *(goal.line for goal in (*goals(best, families[FeatureSet.EXTENDED]), *prior_goals(dataset))),
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


def _circumstance_lines(best: Trained, halves: Mapping[float, float]) -> list[str]:
    held = best.heldout
    threads, rate = (
        held.rows.values[:, held.rows.names.index(name)] for name in ("threads", "requests_per_second")
    )
    arrivals = ~np.isnan(rate)
    chance = np.array([halves.get(round(float(time), 3), np.nan) for time in held.rows.time])
    lines = []
    for name, chosen in (
        ("all held out", np.ones(len(threads), dtype=bool)),
        ("a closed loop, one thread", ~arrivals & (threads == 1)),
        ("a closed loop, two threads", ~arrivals & (threads > 1)),
        ("arrivals at random", arrivals),
    ):
        if not chosen.any():
            continue
        off = errors(held.rows.measured[chosen], held.p90[chosen])
        known = chance[chosen & ~np.isnan(chance)]
        by_chance = (
            f"{100 * np.abs(known).mean() / 2:.1f} | {np.sqrt(np.mean(known**2)) / 2:.3f}"
            if len(known)
            else "- | -"
        )
        lines.append(f"| {name} | {chosen.sum()} | {100 * off.mape:.1f} | {off.rmsle:.3f} | {by_chance} |")
    return lines


def halves_apart(path: Path) -> dict[float, float]:
    """Logarithm of the P90 of each window's first half over that of its second, by the row's Unix time."""
    table = parquet.read_table(path, columns=["time", "latencies_milliseconds"]).to_pylist()
    apart = {}
    for row in table:
        values = np.asarray(row["latencies_milliseconds"] or (), dtype=np.float64)
        middle = len(values) // 2
        if middle:
            first, second = (nearest_rank(half, 0.9) for half in (values[:middle], values[middle:]))
            apart[round(row["time"].timestamp(), 3)] = float(np.log(first / second))
    return apart


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


def prior_goals(dataset: Dataset, seen_until: datetime = PRIOR_SEEN_UNTIL) -> list[Goal]:
    """What is asked of the prior alone; of rows its author had not seen, where there are such."""
    models, rows = model_errors(), prior_rows(dataset, seen_until)
    made = [
        Goal("prior, CPU time of models: median error", float(np.median(models)), None, 0.05),
        Goal("prior, CPU time of models: mean error", float(models.mean()), None, 0.10),
    ]
    new = ~rows.seen if (~rows.seen).any() else np.ones(len(dataset), dtype=bool)
    chosen = new & (rows.limited | rows.busy)
    if chosen.any():
        figure = float(np.median(rows.off[chosen]))
        made.append(Goal("prior, P90 under limits and load: median error", figure, None, 0.10))
    return made


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
