"""The report's pictures: Fig. 2 of the paper, means, distributions, placements, predictions, calibration."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib.figure import Figure

from tailwise.benchmark.records import RunRecord, StepRecord
from tailwise.benchmark.results import Results

_COLOURS = (
    "#1f6fb4", "#d9822b", "#3a9a5b", "#b04a6f", "#7a6bb5",
    "#888888", "#c2a83e", "#4aa6b0", "#5b4636", "#222222",
)  # fmt: skip

Drawing = Callable[[RunRecord, Sequence[StepRecord], Results], Figure | None]


def draw(run: RunRecord, steps: Sequence[StepRecord], results: Results) -> dict[str, bytes]:
    """PNG of each picture that the run has figures for, by name."""
    found = {}
    for name, drawing in _PICTURES.items():
        figure = drawing(run, steps, results)
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
            found[name] = buffer.getvalue()
    return found


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _names(results: Results) -> dict[str, str]:
    """Colour of each policy."""
    return {each.policy: _COLOURS[place % len(_COLOURS)] for place, each in enumerate(results.policies)}


def node_averages(run: RunRecord, _steps: Sequence[StepRecord], results: Results) -> Figure:
    """Fig. 2 of the paper: AVG_NP90 of each node as bars, one picture a model."""
    workloads = [each.name for each in run.scenario.workloads]
    nodes = sorted(
        {each.node for policy in results.policies for each in policy.node_averages}, key=_capacity(run)
    )
    figure, all_axes = _figure(max(6.0, 4.2 * len(workloads)), 4.2, len(workloads))
    width = 0.8 / len(results.policies)
    for axes, workload in zip(all_axes, workloads, strict=True):
        for place, policy in enumerate(results.policies):
            values = {
                each.node: each.average_p90_milliseconds
                for each in policy.node_averages
                if each.workload == workload
            }
            offsets = [
                index + (place - (len(results.policies) - 1) / 2) * width for index in range(len(nodes))
            ]
            heights = [values.get(node, 0.0) for node in nodes]
            axes.bar(offsets, heights, width, color=_names(results)[policy.policy], label=policy.policy)
        axes.set_xticks(range(len(nodes)), nodes)
        axes.set(title=workload, ylabel="AVG_NP90, ms")
    all_axes[0].legend(fontsize=7)
    figure.suptitle("AVG_NP90 by node (equation 16); no bar: no pod")
    return figure


def _capacity(run: RunRecord) -> Callable[[str], tuple[float, str]]:
    cores = {each.node: each.capacity_cores for each in run.hardware}
    return lambda node: (cores.get(node, 0.0), node)


def means(_run: RunRecord, _steps: Sequence[StepRecord], results: Results) -> Figure:
    """Mean P90 over all pods with its interval, and the worst pod."""
    figure, (left, right) = _figure(9, 1.4 + 0.4 * len(results.policies), 2)
    names = [each.policy for each in results.policies]
    colours = [_names(results)[name] for name in names]
    values = [each.mean_p90_milliseconds for each in results.policies]
    bars = [[each.value - each.low for each in values], [each.high - each.value for each in values]]
    left.barh(names, [each.value for each in values], xerr=bars, color=colours, capsize=3)
    left.set(xlabel="mean P90 over all pods, ms (bar: 95 % interval)")
    right.barh(names, [each.worst_p90_milliseconds for each in results.policies], color=colours)
    right.set(xlabel="P90 of the worst pod, ms")
    right.set_yticks([])
    left.invert_yaxis()
    right.invert_yaxis()
    return figure


def distributions(run: RunRecord, steps: Sequence[StepRecord], results: Results) -> Figure:
    """Share of queries answered within a time, one picture a model."""
    workloads = [each.name for each in run.scenario.workloads]
    figure, all_axes = _figure(max(6.0, 4.2 * len(workloads)), 4.2, len(workloads))
    for axes, workload in zip(all_axes, workloads, strict=True):
        for policy, colour in _names(results).items():
            values = np.sort(
                [
                    value
                    for step in steps
                    for pod in step.pods
                    if step.policy == policy and pod.workload == workload
                    for value in pod.percentiles_milliseconds
                ]
            )
            if len(values):
                shares = np.arange(1, len(values) + 1) / len(values)
                axes.plot(values, shares, color=colour, label=policy, linewidth=1.2)
        axes.axvline(
            run.scenario.workload(workload).slo_milliseconds, color="black", linestyle=":", linewidth=0.9
        )
        axes.axhline(0.9, color="black", linewidth=0.4)
        axes.set(
            title=workload, xscale="log", xlabel="latency, ms", ylabel="share of queries", ylim=(0, 1.01)
        )
    all_axes[0].legend(fontsize=7)
    figure.suptitle("Latencies of all pods (dotted: SLO)")
    return figure


def placements(run: RunRecord, steps: Sequence[StepRecord], results: Results) -> Figure:
    """How many pods of each model went to each node, a picture a policy; means over rounds."""
    policies = [each.policy for each in results.policies]
    nodes = sorted({pod.node for step in steps for pod in step.pods}, key=_capacity(run))
    workloads = [each.name for each in run.scenario.workloads]
    columns = min(5, len(policies))
    rows = -(-len(policies) // columns)
    figure = Figure(figsize=(2.4 * columns + 1, (0.35 * len(nodes) + 1.4) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(policies):
            axes.set_visible(False)
            continue
        mine = [step for step in steps if step.policy == policies[place]]
        counts = Counter((pod.node, pod.workload) for step in mine for pod in step.pods)
        table = [[counts[node, workload] / len(mine) for workload in workloads] for node in nodes]
        axes.imshow(table, cmap="Blues", vmin=0, vmax=max(each.replicas for each in run.scenario.workloads))
        for row, values in enumerate(table):
            for column, value in enumerate(values):
                if value:
                    axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=8)
        axes.set_title(policies[place], fontsize=9)
        axes.set_xticks(range(len(workloads)), workloads, rotation=30, ha="right", fontsize=7)
        axes.set_yticks(range(len(nodes)), nodes if place % columns == 0 else [""] * len(nodes), fontsize=8)
    figure.suptitle("Pods by node and model, mean of the rounds")
    return figure


def predictions(_run: RunRecord, steps: Sequence[StepRecord], results: Results) -> Figure | None:
    """Predicted over measured P90 of each pod that had a prediction."""
    figure, (axes,) = _figure(6, 6)
    seen = []
    for policy, colour in _names(results).items():
        pairs = [
            (pod.percentile(90), pod.predicted_p90_milliseconds)
            for step in steps
            for pod in step.pods
            if step.policy == policy and pod.measured and pod.predicted_p90_milliseconds is not None
        ]
        if pairs:
            seen += pairs
            axes.scatter(*zip(*pairs, strict=True), s=18, color=colour, label=policy, alpha=0.7)
    if not seen:
        return None
    ends = [min(min(pair) for pair in seen), max(max(pair) for pair in seen)]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="measured P90, ms", ylabel="predicted P90, ms")
    axes.set_title("Predicted against measured")
    axes.legend()
    return figure


def calibration(_run: RunRecord, _steps: Sequence[StepRecord], results: Results) -> Figure | None:
    """Latency of pods alone on their node, relative to the fastest node, over how much less the node has."""
    workloads = sorted({each.workload for each in results.calibration})
    sets = {
        workload: [each for each in results.calibration if each.workload == workload]
        for workload in workloads
    }
    sets = {workload: each for workload, each in sets.items() if len({point.node for point in each}) > 1}
    if not sets:
        return None
    figure, (axes,) = _figure(6, 5)
    longest = 1.0
    for place, (workload, points) in enumerate(sets.items()):
        fastest = max(points, key=lambda each: each.capacity_cores)
        slower = [fastest.capacity_cores / each.capacity_cores for each in points]
        longest = max(longest, *slower)
        colour = _COLOURS[place % len(_COLOURS)]
        for name, marker, values, base in (
            ("P50", "o", [each.p50_milliseconds for each in points], fastest.p50_milliseconds),
            ("P90", "^", [each.p90_milliseconds for each in points], fastest.p90_milliseconds),
        ):
            axes.scatter(
                slower,
                [value / base for value in values],
                marker=marker,
                color=colour,
                label=f"{workload}, {name}",
            )
    axes.plot([1, longest], [1, longest], color="black", linewidth=0.8)
    axes.set(xlabel="times less CPU than the largest node", ylabel="times slower")
    axes.set_title("Pods alone on their node: does an x times slower node serve x times slower?")
    axes.title.set_fontsize(9)
    axes.legend(fontsize=8)
    return figure


def recoveries(run: RunRecord, steps: Sequence[StepRecord], results: Results) -> Figure | None:
    """P90 over its SLO of the slowest pod over time, when a node slowed down."""
    if run.scenario.change is None:
        return None
    figure, (axes,) = _figure(8, 4.5)
    for policy, colour in _names(results).items():
        for step in (each for each in steps if each.policy == policy):
            slo = {pod.slot: pod.slo_milliseconds for pod in step.pods}
            worst: dict[float, float] = {}
            for window in step.windows:
                # No answer is worse than any: drawn at the top.
                over = 10.0 if window.p90_milliseconds is None else window.p90_milliseconds / slo[window.slot]
                worst[window.end_seconds] = max(worst.get(window.end_seconds, 0.0), over)
            axes.plot(list(worst), list(worst.values()), color=colour, label=f"{policy} {step.round}")
    axes.axhline(1.0, color="black", linestyle=":")
    axes.axvline(run.scenario.change.after_seconds, color="black", linewidth=0.5)
    axes.set(yscale="log", xlabel="seconds since the clients began", ylabel="P90 over SLO, worst pod")
    axes.set_title(f"Node {run.scenario.change.node} slows down (line); dotted: SLO; 10: no answer")
    axes.legend(fontsize=7)
    return figure


def table_three(_run: RunRecord, _steps: Sequence[StepRecord], results: Results) -> Figure | None:
    """Table III of the paper as bars: errors of the regressors on held-out rows."""
    rows = results.table_three
    if not rows:
        return None
    figure, (left, right) = _figure(8, 1.4 + 0.4 * len(rows), 2)
    names = [each.algorithm for each in rows]
    left.barh(names, [each.rmsle or 0.0 for each in rows], color=_COLOURS[0])
    left.set(xlabel="RMSLE")
    right.barh(names, [each.rmse_milliseconds or 0.0 for each in rows], color=_COLOURS[1])
    right.set(xlabel="RMSE, ms")
    right.set_yticks([])
    figure.suptitle("The paper's features: errors on held-out rows (Table III)")
    return figure


_PICTURES: Mapping[str, Drawing] = {
    "mean-p90": means,
    "avg-np90": node_averages,
    "latencies": distributions,
    "placements": placements,
    "predictions": predictions,
    "calibration": calibration,
    "recovery": recoveries,
    "table-three": table_three,
}
