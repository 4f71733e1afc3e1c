"""``python -m tests.benchmark.document``: writes the tables of docs/evaluation.md from the runs beside it.

A part between ``<!-- results: RUN -->`` and ``<!-- end -->`` is what docs/evaluation/RUN says.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from tailwise.benchmark.records import RunDirectory
from tailwise.benchmark.report import (
    HEADS,
    markdown_table,
    node_table,
    noise,
    policy_cells,
    read_table_three,
    recovery_table,
)
from tailwise.benchmark.results import results

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"
RUNS = DOCUMENT.with_suffix("")
_PART = re.compile(r"<!-- results: (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def written(text: str) -> str:
    """The document with each part made anew."""
    return _PART.sub(lambda found: part(found[1]), text)


def part(name: str) -> str:
    """One run's tables and pictures."""
    directory = RunDirectory(RUNS / name)
    run = directory.run()
    assert run is not None, f"docs/evaluation/{name} holds no run"
    found = results(run, directory.steps(), read_table_three(directory))
    day = datetime.fromtimestamp(run.began, UTC)
    load = run.scenario.load
    lines = [
        f"<!-- results: {name} -->",
        f"{found.scenario} {run.scenario.pods} pods, {load.kind}, {load.queries} queries at each; rounds: "
        f"{found.rounds}. Measured on {day:%Y-%m-%d} on {found.machine}; Kubernetes {found.kubernetes}.",
        "",
        markdown_table(HEADS, [policy_cells(each) for each in found.policies]),
        "",
        *(f"{line}\n" for line in noise(found)),
    ]
    recovered = recovery_table(found)
    if recovered is not None:
        lines += [markdown_table(*recovered), ""]
    lines += [
        "AVG_NP90 (equation 16), ms; in brackets the pods it is of:",
        "",
        markdown_table(*node_table(found)),
        "",
    ]
    if found.table_three:
        rows = [
            (
                each.algorithm,
                "-" if each.rmsle is None else f"{each.rmsle:.3f}",
                "-" if each.rmse_milliseconds is None else f"{each.rmse_milliseconds:.1f}",
            )
            for each in found.table_three
        ]
        lines += ["The paper's features on held-out rows of this run (Table III):", ""]
        lines += [markdown_table(("algorithm", "RMSLE", "RMSE, ms"), rows), ""]
    pictures = sorted(path.name for path in directory.path.glob("*.png"))
    lines += [f"![{Path(each).stem}](evaluation/{name}/{each})" for each in pictures]
    return "\n".join([*lines, "<!-- end -->"])


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
    sys.exit(0)
