"""The dataset's schema: what each column of a row means, in which unit, and which may be left out.

One list serves the readers (``files``), the cleaning (``cleaning``) and docs/dataset.md, which a test
compares with it. Names are those of the Parquet columns and of the JSON Lines' keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SCHEMA_VERSION = 1


class ColumnKind(StrEnum):
    """What a column holds."""

    TIME = "time"
    TEXT = "text"
    DOCUMENT = "document"
    NUMBER = "number"
    INTEGER = "integer"
    NUMBERS = "list of numbers"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``required``: a row without it is dropped; others may be null, or missing altogether."""

    name: str
    kind: ColumnKind
    required: bool
    meaning: str


COLUMNS = (
    Column("time", ColumnKind.TIME, True, "End of the window that the row is for. UTC; RFC 3339 in JSON."),
    Column(
        "profile",
        ColumnKind.DOCUMENT,
        True,
        "The model, as `tailwise inspect MODEL --output json` prints it; a JSON object, or its text.",
    ),
    Column(
        "hardware",
        ColumnKind.DOCUMENT,
        True,
        "The node, as `tailwise agent --print` prints it (as JSON); its `node` is the row's node.",
    ),
    Column("workload", ColumnKind.TEXT, False, "NAMESPACE/NAME of what was served, or any name of the run."),
    Column("pod", ColumnKind.TEXT, False, "Name of the pod."),
    Column("family", ColumnKind.TEXT, False, "Family of the model (`resnet`); left out whole in evaluation."),
    Column(
        "source", ColumnKind.TEXT, False, "Where the row comes from: `LoadGen`, `KServe`, a file's name …"
    ),
    Column("window_seconds", ColumnKind.NUMBER, False, "Length of the window, in seconds."),
    Column(
        "cpu_utilisation",
        ColumnKind.NUMBER,
        True,
        "U_C of equation (6): share of the node's capacity in use over the window, 0 to 1, the pod included "
        "when `pod_cpu_cores` is given, without it otherwise.",
    ),
    Column(
        "pod_cpu_cores",
        ColumnKind.NUMBER,
        False,
        "CPU that the pod itself used, in cores; it is taken off U_C.",
    ),
    Column("frequency_utilisation", ColumnKind.NUMBER, False, "U_F of equation (7), 0 to 1."),
    Column("cpu_limit_millicores", ColumnKind.INTEGER, False, "The pod's CPU limit; null or 0: none."),
    Column("cpu_request_millicores", ColumnKind.INTEGER, False, "The pod's CPU request; null: 0."),
    Column("threads", ColumnKind.INTEGER, False, "Threads that one query runs on; null: 1."),
    Column(
        "server_overhead_milliseconds",
        ColumnKind.NUMBER,
        False,
        "CPU time of a query that the server spends beside the model, on the reference node; null: 0.",
    ),
    Column("concurrency", ColumnKind.INTEGER, False, "Queries in flight in a closed loop; null: 1."),
    Column(
        "requests_per_second",
        ColumnKind.NUMBER,
        False,
        "Rate at which queries arrived of themselves; null: a closed loop of `concurrency` clients.",
    ),
    Column(
        "throttled_share", ColumnKind.NUMBER, False, "Share of CFS periods in which the pod was throttled."
    ),
    Column("queries", ColumnKind.INTEGER, False, "Queries answered in the window."),
    Column(
        "latencies_milliseconds",
        ColumnKind.NUMBERS,
        False,
        "Latency of each query; the P90 is the nearest rank of equations (9) and (10).",
    ),
    Column(
        "bucket_bounds_milliseconds",
        ColumnKind.NUMBERS,
        False,
        "Upper bounds of a histogram's buckets, ascending; the last may be infinite: a text in JSON.",
    ),
    Column(
        "bucket_counts",
        ColumnKind.NUMBERS,
        False,
        "Queries at or below each bound, of all pods summed: cumulative, as Prometheus' `le`.",
    ),
    Column(
        "p90_milliseconds",
        ColumnKind.NUMBER,
        False,
        "The P90 itself, where neither latencies nor buckets exist (a summary of one pod). Never an average.",
    ),
)

REQUIRED = frozenset(column.name for column in COLUMNS if column.required)
"""Columns without which a row says nothing; beside them one of the three forms of latency is needed."""
