"""``tailwise report DIR``: pictures of how good a version is, and one page of HTML that holds them.

Exit codes: 0 written, 1 DIR holds no whole version. Needs the training extra.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tailwise.cli.train import EXTRA_MISSING


def add_parser(subparsers: Any) -> None:
    """Add ``report`` and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "report",
        help="draw how good a version is",
        description="Draw a version's held-out rows, coverage, errors by class of nodes, what it goes by "
        "and all that competed: PNGs, and report.html, which needs no other file.",
    )
    parser.add_argument("version", type=Path, metavar="DIR", help="what tailwise train --out wrote")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the same)")


def run(arguments: argparse.Namespace) -> int:
    """Write the report; returns the exit code."""
    try:
        from tailwise.prediction.artefact import ArtefactError  # noqa: PLC0415 - help needs none of these
        from tailwise.training.report import write_report  # noqa: PLC0415
        from tailwise.training.rows import DatasetError  # noqa: PLC0415
    except ImportError as error:
        print(f"tailwise report: {EXTRA_MISSING.format(error=error)}", file=sys.stderr)
        return 1
    try:
        write_report(arguments.version, arguments.out or arguments.version, print)
    except (ArtefactError, DatasetError) as error:
        print(f"tailwise report: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"tailwise report: --out: {error.filename}: {error.strerror}; name a directory to write to",
            file=sys.stderr,
        )
        return 1
    return 0
