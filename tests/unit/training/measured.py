"""Rows of MEASURED times: what bench/prior holds of 123 models, one thread each, alone on the reference node.

The table keeps one figure a model, the median CPU time of a query. Alone and without a limit the P90 is
within 5 % of it; it stands for the P90 here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.prior.fit import family
from tailwise.api.profile import FlopsByKind, ModelProfile, WorkTerms
from tailwise.training.rows import Dataset, Row, dataset_of
from tests.unit.prediction.builders import node
from tests.unit.training.builders import row

MEASURED = Path(__file__).parents[3] / "bench/prior/measured.json"


def measured() -> Dataset:
    """One row a model, in an order that does not follow families."""
    entries = json.loads(MEASURED.read_text())
    hardware = node(2, l3_cache_bytes=32 * 2**20)
    rows: list[Row] = []
    for minute, place in enumerate(np.random.default_rng(0).permutation(len(entries))):
        entry = entries[int(place)]
        profile = ModelProfile(
            flops=entry["flops"],
            flops_by_kind=FlopsByKind(),
            parameters=entry["parameterBytes"] // 4,
            parameter_bytes=entry["parameterBytes"],
            work=WorkTerms(**entry["work"]),
        )
        made = row(
            minute,
            entry["cpuMilliseconds"],
            profile=profile,
            hardware=hardware,
            workload=f"bench/{entry['name']}",
            family=family(entry["name"]),
            source="bench/prior",
        )
        rows.append(made)
    return dataset_of(rows)
