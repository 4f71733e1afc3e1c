"""Datasets at rest: Parquet, compressed, or JSON Lines, in the schema of docs/dataset.md."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as arrow
from pyarrow import parquet

from tailwise.training.cleaning import Cleaned, clean
from tailwise.training.rows import DatasetError
from tailwise.training.schema import COLUMNS, REQUIRED, SCHEMA_VERSION, ColumnKind

Progress = Callable[[int, int | None], None]
"""Rows read so far, and of how many where that is known."""

_TYPES = {
    ColumnKind.TIME: arrow.timestamp("ms", tz="UTC"),
    ColumnKind.TEXT: arrow.dictionary(arrow.int32(), arrow.string()),
    ColumnKind.DOCUMENT: arrow.dictionary(arrow.int32(), arrow.string()),
    ColumnKind.NUMBER: arrow.float64(),
    ColumnKind.INTEGER: arrow.int64(),
    ColumnKind.NUMBERS: arrow.list_(arrow.float32()),
}
_FORMATS = "a dataset is a .parquet or a .jsonl file"
_SCHEMA_KEY = b"tailwise.dataset"
_BATCH_ROWS = 4096


def read_dataset(path: Path, *, now: datetime, progress: Progress = lambda _done, _of: None) -> Cleaned:
    """Read and clean a file.

    Raises:
        DatasetError: there is no such file, it is neither Parquet nor JSON Lines, or a required column is
            missing. What is wrong with single rows is counted, not raised.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file; {_FORMATS}")
    rows = _parquet_rows(path, progress) if path.suffix == ".parquet" else _json_rows(path, progress)
    return clean(rows, now=now, name=f"{path.name} row")


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write raw rows, zstd-compressed; documents may be objects or their text."""
    columns = {}
    for column in COLUMNS:
        values = [_stored(column.kind, row.get(column.name)) for row in rows]
        if any(value is not None for value in values) or column.required:
            columns[column.name] = arrow.array(values, type=_TYPES[column.kind])
    table = arrow.table(columns).replace_schema_metadata({_SCHEMA_KEY: str(SCHEMA_VERSION)})
    parquet.write_table(table, path, compression="zstd", compression_level=19)


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write raw rows as one JSON object a line; columns that are null are left out."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            kept = {
                column.name: _plain(row[column.name])
                for column in COLUMNS
                if row.get(column.name) is not None
            }
            file.write(json.dumps(kept) + "\n")


def _parquet_rows(path: Path, progress: Progress) -> Iterator[Mapping[str, Any]]:
    try:
        file = parquet.ParquetFile(path)
    except (arrow.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path}: this is not Parquet ({error}); {_FORMATS}") from error
    with file:
        names = set(file.schema_arrow.names)
        _check_columns(path, names)
        known = [column.name for column in COLUMNS if column.name in names]
        done = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=known):
            yield from batch.to_pylist()
            done += batch.num_rows
            progress(done, file.metadata.num_rows)


def _json_rows(path: Path, progress: Progress) -> Iterator[Mapping[str, Any]]:
    done = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DatasetError(f"{path}: line {number} is no JSON object; {_FORMATS}")
                if not done:
                    _check_columns(path, set(row))
                done += 1
                yield row
                if not done % _BATCH_ROWS:
                    progress(done, None)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}: line {done + 1} is not JSON ({error.msg}); {_FORMATS}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: this is not text; {_FORMATS}") from error
    progress(done, done)


def _check_columns(path: Path, names: set[str]) -> None:
    if missing := sorted(REQUIRED - names):
        raise DatasetError(f"{path}: column {', '.join(missing)} is missing; docs/dataset.md has the schema")


def _stored(kind: ColumnKind, value: Any) -> Any:
    if value is None:
        return None
    if kind is ColumnKind.DOCUMENT and not isinstance(value, str):
        return json.dumps(value, sort_keys=True)
    if kind is ColumnKind.TIME:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    # JSON has no infinity; the last bound of a histogram is one.
    return "Infinity" if isinstance(value, float) and math.isinf(value) else value
