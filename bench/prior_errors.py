"""The prior against measured rows: its errors by circumstance, and those of its CPU times alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailwise.api.training_policy import FeatureSet
from tailwise.prediction.coefficients import coefficients
from tailwise.prediction.prediction import Serving
from tailwise.prediction.quota import FloatArray
from tailwise.training.matrix import matrix
from tailwise.training.rows import Dataset, IndexArray

MEASURED_MODELS = Path(__file__).parent / "prior" / "measured.json"
IDLE_BELOW = 0.1
"""A node whose others use less of it is called idle."""

_REFERENCE_CACHE_BYTES = 32 * 2**20
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PriorRows:
    """The prior against what was measured: relative errors of the P90, and what tells the rows apart."""

    off: FloatArray
    limited: BoolArray
    busy: BoolArray
    threads: IndexArray
    arrivals: BoolArray
    seen: BoolArray


def prior_rows(dataset: Dataset, seen_until: datetime) -> PriorRows:
    """The prior's error on every row, at the load that was measured."""
    rows = matrix(dataset, FeatureSet.PAPER)

    def served(value: Callable[[Serving], object]) -> np.ndarray[Any, Any]:
        return np.array([value(each) for each in dataset.servings])[dataset.serving_index]

    return PriorRows(
        off=np.abs(rows.prior / rows.measured - 1),
        limited=served(lambda each: bool(each.cpu_limit_millicores)),
        busy=dataset.cpu_utilisation >= IDLE_BELOW,
        threads=served(lambda each: each.threads),
        arrivals=served(lambda each: bool(each.requests_per_second)),
        seen=dataset.time <= seen_until.timestamp(),
    )


def prior_lines(dataset: Dataset, seen_until: datetime) -> list[str]:
    """Tables of the prior's errors: by circumstance, and by whether its author had seen the rows."""
    rows = prior_rows(dataset, seen_until)
    groups = [
        ("all rows", np.ones(len(dataset), dtype=bool)),
        ("no limit, idle node", ~rows.limited & ~rows.busy),
        ("limit, idle node", rows.limited & ~rows.busy),
        ("no limit, busy node", ~rows.limited & rows.busy),
        ("limit and busy node", rows.limited & rows.busy),
        ("a closed loop, one thread", ~rows.arrivals & (rows.threads == 1)),
        ("a closed loop, two threads", ~rows.arrivals & (rows.threads == 2)),
        ("arrivals at random", rows.arrivals),
    ]
    keys = dataset.workload
    groups += [(str(name), keys == name) for name in sorted(set(keys.tolist()))]
    lines = [
        "Error of the P90 at the load that was measured. Rows until "
        f"{seen_until:%H:%M} UTC were at hand while the prior's account of neighbours was written, later "
        "ones were not.",
        "",
        "| rows | until then | median % | mean % | since | median % | mean % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, chosen in groups:
        cells = [
            f"{(chosen & part).sum()} | {_percent(np.median, rows.off[chosen & part])} "
            f"| {_percent(np.mean, rows.off[chosen & part])}"
            for part in (rows.seen, ~rows.seen)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    models = model_errors()
    lines += [
        "",
        f"CPU time alone, without a server, a limit or neighbours: {len(models)} models of "
        "`bench/prior/measured.json` on which the coefficients were fitted: median error "
        f"{np.median(models):.1%}, mean {models.mean():.1%}. {coefficients().provenance}",
    ]
    return lines


def model_errors() -> FloatArray:
    """Relative errors of CPU time, shape (models,): what ships, on the models that it was fitted on."""
    known, hardware = coefficients(), _REFERENCE_CACHE_BYTES
    off = []
    for entry in json.loads(MEASURED_MODELS.read_text(encoding="utf-8")):
        work = dict(entry["work"])
        if entry["parameterBytes"] < 0.75 * hardware:
            work["cached_matrix_vector_bytes"] = work.pop("matrix_vector_bytes", 0)
        nanoseconds = sum(term.nanoseconds_per_unit * work.get(name, 0) for name, term in known.terms.items())
        off.append(abs(nanoseconds / 1e6 / entry["cpuMilliseconds"] - 1))
    return np.array(off)


def _percent(of: Callable[[FloatArray], Any], off: FloatArray) -> str:
    return f"{100 * float(of(off)):.1f}" if len(off) else "-"
