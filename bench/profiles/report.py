"""Writes the tables of docs/model-profiles.md: ``python -m bench.profiles.report FIGURES.json``.

FIGURES.json is what ``python -m bench profiles --json FIGURES.json`` wrote. Only what stands between the
markers of the document is replaced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.profiles.counters import COUNTERS

DOCUMENT = Path(__file__).parents[2] / "docs" / "model-profiles.md"
_BEGIN, _END = "<!-- {name}: written by bench.profiles.report -->", "<!-- end of {name} -->"

Row = dict[str, Any]


def tables(document: dict[str, Any]) -> dict[str, str]:
    """The Markdown of each table, by the name of its markers."""
    result = document["results"]["profiles"]
    rows: list[Row] = result["figures"]
    return {
        "reference": "\n".join(_reference(rows)),
        "errors": "\n".join(_errors(rows)),
        "speed": "\n".join(_speed(rows)),
        "machine": _machine(document["machine"], result),
    }


def written(text: str, made: dict[str, str]) -> str:
    """The document with every table between its markers."""
    for name, table in made.items():
        begin, end = _BEGIN.format(name=name), _END.format(name=name)
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the document has no markers for {name}: {begin} ... {end}")
        text = f"{head}{begin}\n{table}\n{end}{tail}"
    return text


def _reference(rows: list[Row]) -> Iterable[str]:
    """Ours against the reference."""
    yield "| model | file, MB | convolution + matmul FLOPs, counted | reference | deviation |"
    yield "|---|---:|---:|---:|---:|"
    for row in _of(rows, "tailwise"):
        yield (
            f"| {row['model']} | {row['file_bytes'] / 1e6:.1f} | {row['flops']:,} | "
            f"{row['expected_flops']:,} | {row['error_percent']:+z.4f} % |"
        )


def _errors(rows: list[Row]) -> Iterable[str]:
    """Every counter's error; a failure in words."""
    yield "| model | " + " | ".join(COUNTERS) + " |"
    yield "|---|" + "---:|" * len(COUNTERS)
    for model in _models(rows):
        cells = [_error(_one(rows, model, counter)) for counter in COUNTERS]
        yield f"| {model} | " + " | ".join(cells) + " |"


def _error(row: Row | None) -> str:
    if row is None:
        return ""
    if row["flops"] is None:
        return f"fails: {row['failure'].split(':')[0]}"
    free = row["as_exported_flops"]
    untold = "" if not row["free_batch"] or free == row["flops"] else f" ({_untold(free)})"
    return f"{row['error_percent']:+z.2f} %{untold}"


def _untold(flops: int | None) -> str:
    """What a counter says of a free batch axis whose size it is not told."""
    if flops is None:
        return "fails untold"
    return f"{flops / 1e9:.2g} GFLOP untold" if flops else "0 untold"


def _speed(rows: list[Row]) -> Iterable[str]:
    """Milliseconds and the most memory of each counter."""
    yield "| model | " + " | ".join(f"{name}, ms | MiB" for name in COUNTERS) + " |"
    yield "|---|" + "---:|---:|" * len(COUNTERS)
    for model in _models(rows):
        cells = []
        for counter in COUNTERS:
            row = _one(rows, model, counter)
            done = row is not None and row["flops"] is not None
            cells += (
                [f"{row['seconds'] * 1000:.0f}", f"{row['peak_mebibytes']:.0f}"] if done and row else ["", ""]
            )
        yield f"| {model} | " + " | ".join(cells) + " |"


def _machine(machine: dict[str, Any], result: dict[str, Any]) -> str:
    return (
        f"{machine['cores']} cores ({machine['architecture']}), load {result['loadBefore']:.1f} before and "
        f"{result['loadAfter']:.1f} after the run."
    )


def _of(rows: list[Row], counter: str) -> list[Row]:
    return [row for row in rows if row["counter"] == counter]


def _models(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))


def _one(rows: list[Row], model: str, counter: str) -> Row | None:
    return next((row for row in rows if (row["model"], row["counter"]) == (model, counter)), None)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.profiles.report FIGURES.json")
    figures = json.loads(Path(sys.argv[1]).read_text())
    DOCUMENT.write_text(written(DOCUMENT.read_text(), tables(figures)))
