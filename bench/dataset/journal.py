"""What was measured so far, one line a window: the file that a broken run goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.dataset.plan import FAMILIES, Window
from tailwise.api.hardware import NodeHardware
from tailwise.models.inspection import InspectionRequest, inspect
from tests.models import rehydrate

SERVER_OVERHEAD_MILLISECONDS = 1.9
"""CPU time the example's server spends beside the model; examples/*.yaml say the same."""

LEAST_ARRIVALS = 100

SOURCE = "LoadGen"


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a window. ``cpu_utilisation``: share of the node's capacity that others used before it.

    The ``pod_`` and ``node_cpu_seconds`` figures are of the window; they explain, and are not in the dataset.
    """

    window: Window
    ended: float
    seconds: float
    cpu_utilisation: float
    requests_per_second: float | None
    latencies_milliseconds: tuple[float, ...]
    request_millicores: int
    pod: str
    pod_cpu_seconds: float
    node_cpu_seconds: float
    periods: int
    throttled_periods: int


def append(path: Path, hardware: NodeHardware, measured: Measured) -> None:
    """Add a window; what it says of the node is kept with it."""
    window = measured.window
    line = {
        "key": window.key,
        "node": window.node,
        "model": window.model,
        "load": window.load,
        "limit": window.limit.millicores,
        "request": measured.request_millicores,
        "threads": window.limit.threads,
        "rateShare": window.rate_share,
        "ended": measured.ended,
        "seconds": round(measured.seconds, 3),
        "utilisation": round(measured.cpu_utilisation, 4),
        "rate": measured.requests_per_second,
        "pod": measured.pod,
        "podCpuSeconds": round(measured.pod_cpu_seconds, 4),
        "nodeCpuSeconds": round(measured.node_cpu_seconds, 4),
        "periods": measured.periods,
        "throttledPeriods": measured.throttled_periods,
        "latencies": measured.latencies_milliseconds,
        "hardware": json.loads(hardware.model_dump_json(by_alias=True, exclude_none=True)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> tuple[Mapping[str, Any], ...]:
    """All windows; a line that a killed run left half is dropped."""
    if not path.exists():
        return ()
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return tuple(lines)


def rows(windows: Sequence[Mapping[str, Any]], directory: Path) -> list[dict[str, Any]]:
    """Windows as rows of docs/dataset.md; models are made again in ``directory`` to be profiled.

    Arrivals at random that were fewer than LEAST_ARRIVALS are left out: their P90 is that of chance.
    """
    windows = [each for each in windows if not each["rate"] or len(each["latencies"]) >= LEAST_ARRIVALS]
    profiles = {}
    for model in sorted({window["model"] for window in windows}):
        path = directory / f"{model}.onnx"
        if not path.exists():
            rehydrate.write(model, path)
        profile = inspect(InspectionRequest(url=path.absolute().as_uri(), allow_files=True))
        profiles[model] = profile.model_dump_json(by_alias=True, exclude_none=True)
    return [_row(window, profiles[window["model"]]) for window in windows]


def _row(window: Mapping[str, Any], profile: str) -> dict[str, Any]:
    periods = window["periods"]
    return {
        "time": datetime.fromtimestamp(window["ended"], UTC),
        "profile": profile,
        "hardware": json.dumps(window["hardware"], sort_keys=True),
        "workload": f"dataset/{window['model']}",
        "pod": window["pod"],
        "family": FAMILIES[window["model"]],
        "source": SOURCE,
        "window_seconds": window["seconds"],
        "cpu_utilisation": min(1.0, window["utilisation"]),
        "cpu_limit_millicores": window["limit"],
        "cpu_request_millicores": window["request"],
        "threads": window["threads"],
        "server_overhead_milliseconds": SERVER_OVERHEAD_MILLISECONDS,
        "concurrency": None if window["rate"] else 1,
        "requests_per_second": window["rate"],
        "throttled_share": window["throttledPeriods"] / periods if periods else None,
        "queries": len(window["latencies"]),
        "latencies_milliseconds": window["latencies"],
    }
