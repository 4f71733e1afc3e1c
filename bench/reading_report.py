"""Writes the tables of docs/model-reading.md from a run: python -m bench.reading_report FIGURES.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[1] / "docs" / "model-reading.md"
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


def tables(document: dict[str, Any]) -> str:
    """The figures in Markdown."""
    result = document["results"]["reading"]
    here, figures = document["machine"], result["figures"]
    lines = [
        _BEGIN,
        f"Measured on {here['cores']} cores ({here['architecture']}) at a load of {result['loadBefore']:.1f} "
        f"before and {result['loadAfter']:.1f} after; medians.",
        "",
        "On loopback, in the process that reads, imports apart:",
        "",
        "| model | file, MB | read, MB | requests | graph read, ms | read and counted, ms | resident, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each['model']} | {each['file_bytes'] / 1e6:.1f} | {each['bytes_read'] / 1e6:.2f} "
        f"| {each['requests']} | {each['read_milliseconds']:.0f} "
        f"| {each['read_and_count_milliseconds']:.0f} | {each['resident_mebibytes']:.0f} |"
        for each in figures["near"]
    ]
    for link in dict.fromkeys(each["link"] for each in figures["far"]):
        lines += ["", f"From a server that answers after {link}, beside the download of the whole file:", ""]
        lines += [
            "| model | file, MB | read, MB | read, ms | whole, ms | times faster |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {each['model']} | {each['file_bytes'] / 1e6:.1f} | {each['bytes_read'] / 1e6:.2f} "
            f"| {each['read_milliseconds']:.0f} | {each['whole_milliseconds']:.0f} | {each['speedup']:.2f} |"
            for each in figures["far"]
            if each["link"] == link
        ]
    return "\n".join([*lines, _END])


def main() -> int:
    """Replace the page's figures."""
    page = _PAGE.read_text()
    begin, end = page.index(_BEGIN), page.index(_END) + len(_END)
    _PAGE.write_text(page[:begin] + tables(json.loads(Path(sys.argv[1]).read_text())) + page[end:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
