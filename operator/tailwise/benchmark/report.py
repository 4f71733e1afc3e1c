"""The report of a run: results.json for machines, PNGs, one page of HTML that needs no other file, and text.

In: a run directory. Out: files in it, and the text that the command prints.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from tailwise.benchmark.figures import draw
from tailwise.benchmark.records import Competitor, RunDirectory, RunError, RunRecord, StepRecord
from tailwise.benchmark.results import Figure, PolicyResult, Results, results
from tailwise.training import html_page

PAGE_FILE = "report.html"
RESULTS_FILE = "results.json"
TABLE_THREE_FILE = "table-three.json"
_COMPETITORS = TypeAdapter(tuple[Competitor, ...])

HEADS = (
    "policy", "pods", "mean P90, ms", "worst pod, ms", "P50", "P99", "SLO missed", "queries over SLO, %",
    "queries/s", "placed within, s", "over default", "over oracle", "prediction error, %",
)  # fmt: skip


def write_report(directory: RunDirectory, told: Callable[[Path], object] = lambda _file: None) -> str:
    """Write all files of the report and return the text.

    Raises:
        RunError: nothing was measured in the directory.
    """
    run = directory.run()
    steps = directory.steps()
    if run is None or not steps:
        raise RunError(f"{directory.path}: no step was measured here")
    found = results(run, steps, read_table_three(directory))
    pictures = draw(run, steps, found)
    for name, content in pictures.items():
        _write(directory.path / f"{name}.png", content, told)
    _write(
        directory.path / RESULTS_FILE, (found.model_dump_json(by_alias=True, indent=1) + "\n").encode(), told
    )
    _write(directory.path / PAGE_FILE, page(run, steps, found, pictures).encode(), told)
    return text(found)


def _write(path: Path, content: bytes, told: Callable[[Path], object]) -> None:
    path.write_bytes(content)
    told(path)


def read_table_three(directory: RunDirectory) -> tuple[Competitor, ...]:
    """Of the last regressor that the policy Paper trained in this run; nothing where none was."""
    files = sorted(directory.path.glob(f"versions/*/{TABLE_THREE_FILE}"))
    return _COMPETITORS.validate_json(files[-1].read_bytes()) if files else ()


def write_table_three(path: Path, rows: Sequence[Competitor]) -> None:
    """Keep a regressor's competitors beside it."""
    (path / TABLE_THREE_FILE).write_bytes(_COMPETITORS.dump_json(tuple(rows), by_alias=True, indent=1))


def policy_cells(each: PolicyResult) -> tuple[str, ...]:
    """One line of the main table, in the order of HEADS."""
    delay = each.placement_seconds_worst
    return (
        each.policy,
        f"{each.measured}" if each.measured == each.pods else f"{each.measured} of {each.pods}",
        _interval(each.mean_p90_milliseconds, 1),
        f"{each.worst_p90_milliseconds:.1f}",
        f"{each.mean_p50_milliseconds:.1f}",
        f"{each.mean_p99_milliseconds:.1f}",
        str(each.slo_violations),
        f"{each.slow_queries_percent:.1f}",
        f"{each.queries_per_second:.1f}",
        "-" if delay is None else f"{delay:.1f}",
        _interval(each.over_default, 3),
        _interval(each.over_oracle, 3),
        "-" if each.prediction is None else f"{each.prediction.mean_absolute_percent:.1f}",
    )


def text(found: Results) -> str:
    """The tables as they are printed: all policies, AVG_NP90, and the machine's noise."""
    parts = [found.scenario, "", plain_table(HEADS, [policy_cells(each) for each in found.policies])]
    parts += ["", "AVG_NP90 (equation 16): mean P90, in ms, of the pods on a node; in brackets how many"]
    parts += [plain_table(*node_table(found))]
    recovered = recovery_table(found)
    if recovered is not None:
        parts += ["", "After a node slowed down", plain_table(*recovered)]
    parts += ["", *noise(found)]
    return "\n".join(parts)


def recovery_table(found: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """After a node slowed down; None where none did."""
    rows: list[tuple[str, ...]] = [
        (
            each.policy,
            str(each.recovery.moves),
            "-" if each.recovery.recovery_seconds is None else f"{each.recovery.recovery_seconds:.0f}",
            f"{each.recovery.recovered_rounds} of {each.rounds}",
            f"{each.recovery.slo_held_percent:.1f}",
        )
        for each in found.policies
        if each.recovery is not None
    ]
    heads = ("policy", "pods moved", "s until all SLOs held again", "rounds", "SLO held after, %")
    return (heads, rows) if rows else None


def pods_table(steps: Sequence[StepRecord]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Each pod of each step: where it went, what was predicted for it, what it served."""
    heads = (
        "round", "policy", "pod", "node", "predicted P90, ms", "when decided", "measured P90, ms", "off, %",
        "SLO, ms",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for step in sorted(steps, key=lambda each: (each.round, each.policy)):
        for pod in sorted(step.pods, key=lambda each: each.slot):
            predicted, measured = pod.predicted_p90_milliseconds, None
            off = None
            if pod.measured:
                measured = pod.percentile(90)
                off = None if predicted is None else 100 * (predicted / measured - 1)
            rows.append(
                (
                    str(step.round), step.policy, pod.slot, pod.node, _digits(predicted, 1),
                    _digits(pod.decided_p90_milliseconds, 1), _digits(measured, 1), _digits(off, 1),
                    str(pod.slo_milliseconds),
                )
            )  # fmt: skip
    return heads, rows


def noise(found: Results) -> list[str]:
    """What two measurements of one placement differ by, in words."""
    return [
        f"A/A: {again} is the placement of {first} once more; its mean P90 was {_interval(figure, 3)} of it."
        for again, first, figure in found.same_placement
    ] or ["A/A: no placement was measured twice."]


def node_table(found: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """AVG_NP90 by workload and node, a column a policy."""
    cells = {
        (each.workload, each.node, policy.policy): f"{each.average_p90_milliseconds:.1f} ({each.pods})"
        for policy in found.policies
        for each in policy.node_averages
    }
    names = [policy.policy for policy in found.policies]
    rows = sorted({key[:2] for key in cells})
    return (
        ("workload", "node", *names),
        [(*row, *(cells.get((*row, name), "-") for name in names)) for row in rows],
    )


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same for a document."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width."""
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _interval(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return "-"
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def page(run: RunRecord, steps: Sequence[StepRecord], found: Results, pictures: Mapping[str, bytes]) -> str:
    """The page of HTML."""
    scenario = run.scenario
    facts = [
        ("Scenario", scenario.description),
        ("Held out", f"since {scenario.held_out_since}" if scenario.held_out_since else "no"),
        ("Load", f"{scenario.load.kind}, {scenario.load.queries} queries at each of {scenario.pods} pods"),
        ("Rounds", f"{found.rounds}, {len(steps)} steps"),
        ("Machine", run.machine),
        ("Kubernetes, Tailwise", f"{run.kubernetes}, {run.release}"),
        *((f"Node {each.node}", f"{each.capacity_cores:g} cores, {each.cpu_model}") for each in run.hardware),
    ]
    parts = ["<h1>Tailwise: placement policies compared</h1>", html_page.table(("", ""), facts)]
    parts += [
        "<h2>All policies</h2>",
        html_page.table(HEADS, [policy_cells(each) for each in found.policies]),
    ]
    parts += [f"<p>{html.escape(line)}</p>" for line in noise(found)]
    parts += ["<h2>AVG_NP90, equation (16)</h2>", html_page.table(*node_table(found))]
    recovered = recovery_table(found)
    if recovered is not None:
        parts += ["<h2>After a node slowed down</h2>", html_page.table(*recovered)]
    if found.table_three:
        rows = [
            (each.algorithm, _digits(each.rmsle, 3), _digits(each.rmse_milliseconds, 1), str(each.rows))
            for each in found.table_three
        ]
        heads = ("algorithm", "RMSLE", "RMSE, ms", "held-out rows")
        parts += ["<h2>The paper's features (Table III)</h2>", html_page.table(heads, rows)]
    parts += [html_page.picture(name, data) for name, data in pictures.items()]
    parts += ["<details><summary>Every pod</summary>", html_page.table(*pods_table(steps)), "</details>"]
    return html_page.page("Tailwise: placement policies compared", parts, width_rem=75)


def _digits(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
