"""``tailwise dataset --prometheus URL --join FILE --out FILE``: a dataset from a cluster's Prometheus.

Exit codes: 0 rows stand in the file, 1 the join document or another file cannot be used, 2 wrong usage; and
where there is no row: 3 Prometheus refused a query, 4 it gave no answer, 5 it has no usable window. Needs the
training extra, which reads and writes Parquet.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailwise.cli.argument_types import positive_number, whole_number
from tailwise.cli.train import EXTRA_MISSING
from tailwise.telemetry.history import FaultKind
from tailwise.telemetry.join import DatasetJoin, JoinError, read_join
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.ranges import Span, windows_before

if TYPE_CHECKING:
    from tailwise.telemetry.dataset import PrometheusDataset

EXIT_CODES = {FaultKind.REFUSED: 3, FaultKind.UNREACHABLE: 4}
EXIT_NO_ROWS = 5

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FORMATS = (".parquet", ".jsonl")


def add_parser(subparsers: Any) -> None:
    """Add ``dataset`` and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "dataset",
        help="read a dataset from a cluster's Prometheus",
        description="Reads latency, load and limits of every pod in every window from Prometheus, joined "
        "with the models and nodes that a join document names (docs/dataset.md). What cannot be used is "
        "dropped and counted by reason.",
        epilog="Exit codes: 0 rows were written; 1 a file cannot be used; 2 wrong usage; without any row: "
        "3 Prometheus refused a query, 4 it gave no answer, 5 it has no usable window.",
    )
    parser.add_argument("--prometheus", required=True, type=_http_url, metavar="URL", help="where it answers")
    parser.add_argument(
        "--join", required=True, type=Path, metavar="FILE",
        help="what names in Prometheus stood for: JSON or YAML, gzipped or not",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, type=_dataset_file, metavar="FILE", help="rows: .parquet or .jsonl"
    )
    parser.add_argument(
        "--from", dest="begin", type=_time, default="7d", metavar="TIME",
        help="RFC 3339, or how long before --to: 90m, 12h, 7d (the default)",
    )  # fmt: skip
    parser.add_argument(
        "--to", dest="end", type=_time, default="0s", metavar="TIME",
        help="RFC 3339, or how long ago (default: now)",
    )  # fmt: skip
    parser.add_argument(
        "--window", type=_window, default="300s", metavar="TIME", help="time that makes one row: 300, 5m (5m)"
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="bearer token for Prometheus")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="authorities that verify Prometheus")
    parser.add_argument(
        "--timeout-seconds", type=positive_number, default=60.0, metavar="SECONDS",
        help="time that one query has, with its retries (60)",
    )  # fmt: skip
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write counts and faults as JSON too, for programs"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read and write; returns the exit code."""
    try:
        return _read(arguments)
    except ImportError as error:
        print(f"tailwise dataset: {EXTRA_MISSING.format(error=error)}", file=sys.stderr)
    except (JoinError, _UsageError) as error:
        print(f"tailwise dataset: {error}", file=sys.stderr)
    return 1


class _UsageError(ValueError):
    """The message names the option or file and the way out."""


def _read(arguments: argparse.Namespace) -> int:
    from tailwise.training.files import write_json_lines, write_parquet  # noqa: PLC0415 - see above
    from tailwise.training.progress import Shown  # noqa: PLC0415

    join = read_join(arguments.join)
    now = datetime.now(UTC)
    span = _span(arguments, now)
    with Shown(sys.stderr) as shown:

        def told(what: str, done: int, of: int) -> None:
            shown.reading(what)(done, of)

        dataset = asyncio.run(_ask(arguments, join, span, now, told))
    _tell(dataset)
    if arguments.report is not None:
        _written(arguments.report, lambda path: path.write_text(_report(dataset), encoding="utf-8"))
    if (fault := dataset.fault()) is not None:
        print("tailwise dataset: no rows; nothing was written", file=sys.stderr)
        return EXIT_CODES.get(fault, EXIT_NO_ROWS)
    write = write_parquet if arguments.out.suffix == ".parquet" else write_json_lines
    _written(arguments.out, lambda path: write(path, dataset.rows))
    found = dataset.cleaned.dataset
    print(
        f"{len(found)} rows of {len(set(found.workload.tolist()))} workloads, {len(found.profiles)} models "
        f"and {len({each.node_class for each in found.hardware})} classes of nodes in {arguments.out}"
    )
    return 0


async def _ask(
    arguments: argparse.Namespace,
    join: DatasetJoin,
    span: Span,
    now: datetime,
    told: Callable[[str, int, int], None],
) -> PrometheusDataset:
    from tailwise.telemetry.dataset import read_dataset  # noqa: PLC0415

    prometheus = Prometheus(
        arguments.prometheus,
        timeout_seconds=arguments.timeout_seconds,
        token_file=arguments.token_file,
        ca_file=arguments.ca_file,
    )
    try:
        return await read_dataset(prometheus, join, span, now=now, told=told)
    finally:
        prometheus.close()


def _span(arguments: argparse.Namespace, now: datetime) -> Span:
    """Whole windows between the two times; a duration counts back from the later one."""
    end = arguments.end if isinstance(arguments.end, datetime) else now - arguments.end
    begin = arguments.begin if isinstance(arguments.begin, datetime) else end - arguments.begin
    if end > now:
        raise _UsageError(f"--to {end.isoformat()} lies in the future")
    if end - begin < timedelta(seconds=arguments.window):
        raise _UsageError(
            f"there is no whole window of {arguments.window} s between --from {begin.isoformat()} and "
            f"--to {end.isoformat()}"
        )
    return windows_before(end, arguments.window, end - begin)


def _tell(dataset: PrometheusDataset) -> None:
    for reason, count in sorted(dataset.cleaned.dropped.items()):
        example = dataset.cleaned.examples.get(reason, "")
        print(f"tailwise dataset: {count} windows dropped, {reason}: {example}", file=sys.stderr)
    for name, fault in sorted(dataset.faults.items()):
        print(f"tailwise dataset: {name}: {fault.kind}: {fault.message}", file=sys.stderr)


def _report(dataset: PrometheusDataset) -> str:
    document = {
        "rows": len(dataset.rows),
        "dropped": {reason.value: count for reason, count in sorted(dataset.cleaned.dropped.items())},
        "faults": {
            name: {"kind": fault.kind.value, "message": fault.message}
            for name, fault in sorted(dataset.faults.items())
        },
    }
    return json.dumps(document, indent=1) + "\n"


def _written(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file and put it in its place: a run that is killed leaves no half of one."""
    beside = path.with_name(f".{path.name}.new")
    try:
        write(beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _UsageError(f"{path}: {error.strerror or error}; name a file that can be written") from error


def _http_url(word: str) -> str:
    if not word.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{word!r} is no http:// or https:// URL")
    return word


def _dataset_file(word: str) -> Path:
    if not word.endswith(_FORMATS):
        raise argparse.ArgumentTypeError(f"{word!r} is neither a .parquet nor a .jsonl file")
    return Path(word)


def _time(word: str) -> datetime | timedelta:
    """A time with its zone, UTC where it tells none; or a duration before another."""
    if (seconds := _seconds(word)) is not None:
        return timedelta(seconds=seconds)
    try:
        time = datetime.fromisoformat(word)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{word!r} is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 90m, 12h or 7d"
        ) from None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _window(word: str) -> int:
    seconds = _seconds(word)
    return whole_number(1, 86_400)(word if seconds is None else str(seconds))


def _seconds(word: str) -> int | None:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", word)
    return int(found[1]) * _UNITS[found[2]] if found else None
