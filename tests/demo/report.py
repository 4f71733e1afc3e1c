"""From measured latencies to the demonstration's tables: pure, no input or output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class PodResult:
    """One pod's way: where it ran, what was predicted for it and what was measured, in milliseconds."""

    workload: str
    pod: str
    node: str
    slo_milliseconds: int
    predicted_p90_milliseconds: float | None
    measured_p90_milliseconds: float | None
    latencies_milliseconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a policy achieved over all pods that were measured."""

    pods: int
    measured: int
    mean_p90_milliseconds: float | None
    worst_p90_milliseconds: float | None
    slo_violations: int
    mean_absolute_prediction_error_percent: float | None


def node_averages(results: Iterable[PodResult]) -> dict[tuple[str, str], float]:
    """AVG_NP90 by equation (16): for each (workload, node), the mean P90 of the pods on it."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        if result.measured_p90_milliseconds is not None:
            groups[result.workload, result.node].append(result.measured_p90_milliseconds)
    return {key: fmean(values) for key, values in sorted(groups.items())}


def summarise(results: Sequence[PodResult]) -> Summary:
    """The figures that AVG_NP90 hides: over all pods, not over nodes."""
    measured = [r for r in results if r.measured_p90_milliseconds is not None]
    p90s = [r.measured_p90_milliseconds for r in measured if r.measured_p90_milliseconds is not None]
    errors = [
        abs(r.predicted_p90_milliseconds - r.measured_p90_milliseconds) / r.measured_p90_milliseconds * 100
        for r in measured
        if r.predicted_p90_milliseconds is not None and r.measured_p90_milliseconds
    ]
    return Summary(
        pods=len(results),
        measured=len(measured),
        mean_p90_milliseconds=fmean(p90s) if p90s else None,
        worst_p90_milliseconds=max(p90s) if p90s else None,
        slo_violations=sum(p90 > r.slo_milliseconds for r, p90 in zip(measured, p90s, strict=True)),
        mean_absolute_prediction_error_percent=fmean(errors) if errors else None,
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain table; numbers to the right, None as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]
    numeric = [all(_is_number(row[i]) for row in cells) if cells else False for i in range(len(headers))]
    lines = [
        "  ".join(
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [list(headers), *cells]
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).replace("-", "", 1).isdigit()


def pods_table(results: Sequence[PodResult]) -> str:
    """Each pod: node, predicted and measured P90, SLO."""
    return table(
        ["WORKLOAD", "POD", "NODE", "PREDICTED P90 (ms)", "MEASURED P90 (ms)", "SLO (ms)", "MET"],
        (
            (
                r.workload,
                r.pod,
                r.node,
                r.predicted_p90_milliseconds,
                r.measured_p90_milliseconds,
                r.slo_milliseconds,
                _met(r),
            )
            for r in sorted(results, key=lambda r: (r.workload, r.node, r.pod))
        ),
    )


def _met(result: PodResult) -> str | None:
    if result.measured_p90_milliseconds is None:
        return None
    return "yes" if result.measured_p90_milliseconds <= result.slo_milliseconds else "no"


def comparison_table(default: Sequence[PodResult], tailwise: Sequence[PodResult]) -> str:
    """AVG_NP90 (equation 16) of both policies, for each workload and node; a dash where no pod ran."""
    before, after = node_averages(default), node_averages(tailwise)
    counts_before, counts_after = _counts(default), _counts(tailwise)
    return table(
        ["WORKLOAD", "NODE", "DEFAULT (ms)", "PODS", "TAILWISE (ms)", "PODS"],
        (
            (
                key[0],
                key[1],
                before.get(key),
                counts_before.get(key, 0),
                after.get(key),
                counts_after.get(key, 0),
            )
            for key in sorted(counts_before.keys() | counts_after.keys())
        ),
    )


def _counts(results: Iterable[PodResult]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for result in results:
        counts[result.workload, result.node] += 1
    return counts


def summary_table(summaries: dict[str, Summary]) -> str:
    """Both policies beside each other, over all pods."""
    return table(
        ["POLICY", "PODS", "MEAN P90 (ms)", "WORST POD (ms)", "SLO MISSED", "PREDICTION ERROR (%)"],
        (
            (
                name,
                s.measured,
                s.mean_p90_milliseconds,
                s.worst_p90_milliseconds,
                s.slo_violations,
                s.mean_absolute_prediction_error_percent,
            )
            for name, s in summaries.items()
        ),
    )
