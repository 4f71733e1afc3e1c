"""A version's report: five pictures and one page of HTML that holds them all.

In: a directory of ``tailwise train --out``. Out: PNGs and ``report.html``, which needs no other file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from pydantic import ValidationError

mpl.use("Agg")
from matplotlib.figure import Figure

from tailwise.api.latency_model_status import Evaluation
from tailwise.prediction.artefact import load_directory
from tailwise.prediction.manifest import Manifest
from tailwise.prediction.quota import FloatArray
from tailwise.training import html_page
from tailwise.training.evaluation import EVALUATION_FILE, RunEvaluation
from tailwise.training.rows import DatasetError

PAGE_FILE = "report.html"
_LEAST_SHARE, _BARS = 0.002, 20
_BLUE, _ORANGE, _GREY = "#1f6fb4", "#d9822b", "#888888"


def write_report(
    directory: Path, out: Path, told: Callable[[str], object] = lambda _file: None
) -> list[Path]:
    """Draw everything; the files that were written, the page last.

    Raises:
        ArtefactError: the version is not whole.
        DatasetError: ``evaluation.json`` is missing or not of this version.
    """
    manifest = load_directory(directory).manifest
    evaluation = _read_evaluation(directory)
    out.mkdir(parents=True, exist_ok=True)
    written, pictures = [], {}
    for name, draw in _PICTURES.items():
        figure = draw(manifest, evaluation)
        buffer = io.BytesIO()
        # No time and no version in the file: the same version gives the same picture.
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        pictures[name] = buffer.getvalue()
        path = out / f"{name}.png"
        path.write_bytes(pictures[name])
        written.append(path)
        told(str(path))
    page = out / PAGE_FILE
    page.write_text(page_text(manifest, evaluation, pictures), encoding="utf-8")
    told(str(page))
    return [*written, page]


def _read_evaluation(directory: Path) -> RunEvaluation:
    path = directory / EVALUATION_FILE
    way_out = "write it with tailwise train --out"
    try:
        return RunEvaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}; {way_out}") from error
    except ValidationError as error:
        raise DatasetError(f"{path}: this is no evaluation of this version; {way_out}") from error


def _axes(width: float = 7.0, height: float = 4.5) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _columns(evaluation: RunEvaluation) -> tuple[FloatArray, FloatArray, FloatArray]:
    held = evaluation.heldout
    return np.array(held.measured), np.array(held.predicted), np.array(held.bound)


def predicted_against_measured(manifest: Manifest, evaluation: RunEvaluation) -> Figure:
    """Held-out rows: predicted over measured, both logarithmic, and the prior beside."""
    figure, axes = _axes(6, 6)
    measured, predicted, _ = _columns(evaluation)
    axes.scatter(measured, evaluation.heldout.prior, s=8, color=_GREY, alpha=0.4, label="prior")
    axes.scatter(measured, predicted, s=8, color=_BLUE, alpha=0.7, label=str(manifest.algorithm))
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    for share in (0.9, 1.1):
        axes.plot(ends, [share * end for end in ends], color="black", linewidth=0.5, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="measured P90, ms", ylabel="predicted P90, ms")
    axes.set_title("Predicted against measured (dotted: 10 % off)")
    axes.legend()
    return figure


def calibration_curve(manifest: Manifest, evaluation: RunEvaluation) -> Figure:
    """Share of held-out rows below the bound when it is moved: what is asked, and what comes."""
    figure, axes = _axes(6, 5)
    measured, _, bound = _columns(evaluation)
    factors = np.linspace(0.6, 1.6, 101)
    covered = [float(np.mean(measured <= factor * bound)) for factor in factors]
    axes.plot(factors, covered, color=_BLUE)
    asked = manifest.calibration.coverage_percent / 100
    axes.axhline(asked, color="black", linewidth=0.8, linestyle=":")
    held = manifest.heldout
    if held.coverage is not None and held.coverage_low is not None and held.coverage_high is not None:
        interval = [[held.coverage - held.coverage_low], [held.coverage_high - held.coverage]]
        axes.errorbar([1.0], [held.coverage], interval, color=_ORANGE, marker="o", capsize=4)
    axes.set(xlabel="measured over bound", ylabel="share of held-out rows at or below", ylim=(0, 1.02))
    axes.set_title(f"Coverage of the bound ({asked:.0%} asked; bar: 95 % interval)")
    return figure


def residuals_by_node_class(_manifest: Manifest, evaluation: RunEvaluation) -> Figure:
    """Relative errors of each class of nodes, as boxes from the 10th to the 90th percentile."""
    measured, predicted, _ = _columns(evaluation)
    off = 100 * (predicted / measured - 1)
    classes = np.array(evaluation.heldout.node_class)
    names = sorted(set(classes.tolist()))
    figure, axes = _axes(7, 1.5 + 0.6 * len(names))
    axes.boxplot([off[classes == name] for name in names], orientation="horizontal", whis=(10, 90), sym="")
    axes.set_yticks(range(1, len(names) + 1), [_short(name) for name in names])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="predicted over measured, less one, per cent")
    axes.set_title("Errors by class of nodes (whiskers: 10 % and 90 %)")
    return figure


def _short(node_class: str) -> str:
    model, architecture, cores, quotas = (node_class.split("|") + [""] * 4)[:4]
    limited = f", limited {quotas}" if quotas else ""
    return f"{model or architecture or 'node'}, {cores} cores{limited}"[:60]


def feature_importance(manifest: Manifest, _evaluation: RunEvaluation) -> Figure:
    """How much the squared error grows when a feature is shuffled."""
    ranked = sorted(manifest.importance.items(), key=lambda each: each[1])[-_BARS:]
    ranked = [each for each in ranked if each[1] >= _LEAST_SHARE] or ranked[-1:]
    figure, axes = _axes(7, 1.2 + 0.25 * len(ranked))
    axes.barh([name for name, _ in ranked], [100 * share for _, share in ranked], color=_BLUE)
    axes.set(xlabel="share of the growth of the squared error when shuffled, per cent")
    axes.set_title("What the version goes by")
    return figure


def table_three(manifest: Manifest, _evaluation: RunEvaluation) -> Figure:
    """The paper's Table III as bars: RMSLE and MAPE of all that competed."""
    rows = manifest.evaluations
    figure = Figure(figsize=(8, 1.4 + 0.4 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [str(each.algorithm) for each in rows]
    for axes, figures, label in (
        (left, [float(each.rmse) for each in rows], "RMSE, ms"),
        (right, [float(each.rmsle or "nan") for each in rows], "RMSLE"),
    ):
        colours = [
            _GREY if name == "Prior" else _ORANGE if name == manifest.algorithm else _BLUE for name in names
        ]
        axes.barh(names, figures, color=colours)
        axes.set(xlabel=label)
        for place, value in enumerate(figures):
            axes.text(value, place, f" {value:.3g}", va="center", fontsize=8)
        axes.margins(x=0.15)
    left.invert_yaxis()
    figure.suptitle("All that competed, on the same held-out rows")
    return figure


_PICTURES: Mapping[str, Callable[[Manifest, RunEvaluation], Figure]] = {
    "predicted-against-measured": predicted_against_measured,
    "calibration": calibration_curve,
    "residuals-by-node-class": residuals_by_node_class,
    "feature-importance": feature_importance,
    "table-three": table_three,
}


def page_text(manifest: Manifest, evaluation: RunEvaluation, pictures: Mapping[str, bytes]) -> str:
    """The page: figures in words, tables, and the pictures within."""
    provenance, held = manifest.provenance, manifest.heldout
    parameters = ", ".join(f"{name}={value}" for name, value in provenance.parameters.items())
    facts = {
        "Algorithm": f"{manifest.algorithm} ({parameters})",
        "Features": f"{manifest.feature_set}, {len(manifest.features)}",
        "Rows": f"{provenance.training_rows} learned from, {provenance.calibration_rows} calibrated, "
        f"{provenance.heldout_rows} held out (the newest)",
        "Data": f"{provenance.oldest_at:%Y-%m-%d %H:%M} to {provenance.newest_at:%Y-%m-%d %H:%M} UTC, "
        f"{provenance.dataset_fingerprint}",
        "Held out": f"MAPE {_percent(held.mape)}, RMSLE {_number(held.rmsle)}, "
        f"RMSE {_number(held.rmse_milliseconds)} ms, R2 {_number(held.r2)}",
        "Bound": f"covers {_percent(held.coverage)} (95 % interval {_percent(held.coverage_low)} to "
        f"{_percent(held.coverage_high)}), {manifest.calibration.coverage_percent} % asked",
        "Out of distribution": f"{_percent(held.out_of_distribution_share)} of held-out rows; "
        "the prior answers them",
        "Dropped": ", ".join(f"{reason} {rows}" for reason, rows in evaluation.dropped.items()) or "nothing",
        "Digest": evaluation.artefact_digest,
    }
    parts = [
        "<h1>Tailwise: a trained version</h1>",
        html_page.table(("", ""), list(facts.items())),
        "<h2>All that competed, on the same held-out rows</h2>",
        html_page.table(
            ("algorithm", "RMSE, ms", "RMSLE", "MAPE, %", "R2", "covered, %"),
            [_evaluation_cells(each) for each in manifest.evaluations],
        ),
    ]
    if evaluation.families:
        rows = [
            (
                each.family, str(each.rows), _percent(each.mape), _percent(each.prior_mape),
                _number(each.rmsle), _percent(each.coverage), _percent(each.out_of_distribution_share),
            )
            for each in evaluation.families
        ]  # fmt: skip
        heads = (
            "family left out",
            "rows",
            "MAPE",
            "MAPE of the prior",
            "RMSLE",
            "covered",
            "out of distribution",
        )
        parts += ["<h2>Families that the version never saw</h2>", html_page.table(heads, rows)]
    parts += [html_page.picture(name, data) for name, data in pictures.items()]
    tried = sorted(evaluation.tried, key=lambda each: each.rmse_milliseconds)
    cells = [
        (
            each.candidate,
            f"{each.rmse_milliseconds:.3f}",
            _number(each.rmsle),
            _percent(each.mape),
            str(each.rows),
        )
        for each in tried
    ]
    parts += [
        "<h2>Candidates of the search</h2>",
        html_page.table(("candidate", "RMSE, ms", "RMSLE", "MAPE", "rows"), cells),
    ]
    return html_page.page("Tailwise: a trained version", parts, width_rem=60)


def _evaluation_cells(each: Evaluation) -> tuple[str, ...]:
    figures = (each.rmse, each.rmsle, each.mape_percent, each.r2, each.coverage_percent)
    return (str(each.algorithm), *(text if text is not None else "-" for text in figures))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
