"""A dataset from Prometheus: what the join document asks for, read, joined, cleaned and counted.

In: a Prometheus, a join document, a span of windows. Out: rows that can be used, as a dataset and as raw rows
for a file; how many were dropped for which reason, here or there; what went wrong, by workload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tailwise.telemetry.history import Fault, FaultKind, Told, read_history
from tailwise.telemetry.join import DatasetJoin
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.ranges import Span
from tailwise.telemetry.served import served_of
from tailwise.training.cleaning import Cleaned, clean
from tailwise.training.rows import DropReason


@dataclass(frozen=True, slots=True)
class PrometheusDataset:
    """``cleaned`` counts all that was dropped; ``rows`` are the raw rows that stayed, as files hold them."""

    cleaned: Cleaned
    rows: tuple[Mapping[str, Any], ...]
    faults: Mapping[str, Fault]

    def fault(self) -> FaultKind | None:
        """The first of what went wrong, where nothing went right: None with a row."""
        if self.rows:
            return None
        kinds = {each.kind for each in self.faults.values()}
        return next((kind for kind in FaultKind if kind in kinds), FaultKind.NO_ROWS)


async def read_dataset(
    prometheus: Prometheus,
    join: DatasetJoin,
    span: Span,
    *,
    now: datetime,
    told: Told = lambda _what, _done, _of: None,
) -> PrometheusDataset:
    """Read the windows of ``span`` for all that the join document names.

    ``told`` hears what is being read, chunks done and of how many. Raises nothing for what Prometheus does or
    lacks: see ``faults``.
    """
    history = await read_history(
        prometheus,
        served_of(join),
        {each.node: each for each in join.hardware},
        join.utilisation.queries(int(span.step.total_seconds())),
        span,
        addresses=join.addresses,
        told=told,
    )
    ordered = sorted(history.rows, key=lambda row: (row["time"], row["workload"], row["pod"]))
    cleaned = clean(ordered, now=now, name="window")
    dropped: Counter[DropReason] = Counter(history.dropped)
    dropped.update(cleaned.dropped)
    examples = {reason: f"{count} windows" for reason, count in history.dropped.items() if count} | dict(
        cleaned.examples
    )
    return PrometheusDataset(
        replace(cleaned, dropped=dict(dropped), examples=examples),
        tuple(ordered[place] for place in cleaned.kept),
        history.faults,
    )
