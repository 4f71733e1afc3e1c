"""Load that is coming: what pods placed a moment ago will use of their nodes before Prometheus can show it.

Without it a burst of pods sees the same idle node and herds onto it. A pod's expected cores count from its
placement; as the node's utilisation comes to include the pod, they are handed over to it in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil

import numpy as np

from tailwise.domain.capacity import Floats
from tailwise.domain.snapshot import NodeTable


def expected_millicores(
    *,
    cpu_seconds_per_query: float | None,
    requests_per_second: float | None,
    concurrency: int,
    threads: int,
    cpu_limit_millicores: int | None,
    cpu_request_millicores: int,
) -> int:
    """Thousandths of a core that one pod will use, by the best that is known of it.

    CPU time of a query times the rate of queries; for a closed loop (``requests_per_second`` None) as many
    cores as the clients keep busy; else what the pod requests. The CPU limit caps each of them.
    """
    if requests_per_second is None:
        cores = float(concurrency * threads)
    elif cpu_seconds_per_query is not None:
        cores = cpu_seconds_per_query * requests_per_second
    else:
        cores = cpu_request_millicores / 1000
    expected = ceil(round(cores * 1000, 6))
    return expected if cpu_limit_millicores is None else min(expected, cpu_limit_millicores)


@dataclass(frozen=True, slots=True)
class Assumption:
    """One pod's expected load on its node. ``ready_at`` is None until the pod is ready."""

    uid: str
    node: str
    millicores: int
    placed_at: datetime
    ready_at: datetime | None = None


@dataclass(slots=True)
class _Column:
    table: NodeTable | None = None
    cores: Floats = field(default_factory=lambda: np.zeros(0))

    def with_node(self, node: str, millicores: int) -> _Column:
        """The column after one node's sum changed."""
        position = self.table.index.get(node) if self.table is not None else None
        if position is None:
            # A copy all the same: the two ledgers may come to be asked for another table.
            return _Column(self.table, self.cores)
        cores = self.cores.copy()
        cores[position] = millicores / 1000
        cores.flags.writeable = False
        return _Column(self.table, cores)


def _cores(by_node: Mapping[str, int], table: NodeTable) -> Floats:
    cores = np.zeros(len(table), dtype=np.float64)
    for name, millicores in by_node.items():
        position = table.index.get(name)
        if position is not None:
            cores[position] = millicores / 1000
    cores.flags.writeable = False
    return cores


@dataclass(frozen=True, slots=True)
class AssumedLoad:
    """The ledger of assumptions, by pod uid, and its sum for each node in whole millicores."""

    by_pod: Mapping[str, Assumption] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)
    by_node: Mapping[str, int] = field(default_factory=dict)
    # The sums as a column of the table that was asked for last: one placement changes one of its entries.
    _column: _Column = field(default_factory=_Column, repr=False, compare=False)

    def cores(self, table: NodeTable) -> Floats:
        """Cores that are assumed on each node, shape (nodes,); not to be written to."""
        column = self._column
        if column.table is not table:
            column.table, column.cores = table, _cores(self.by_node, table)
        return column.cores


def assume(ledger: AssumedLoad, assumption: Assumption) -> AssumedLoad:
    """The ledger with one more pod; an earlier entry of the same pod is replaced."""
    return _with(ledger, assumption.uid, assumption, assumption.millicores)


def discard(ledger: AssumedLoad, uid: str) -> AssumedLoad:
    """The ledger without a pod that is gone, or was never placed after all."""
    return _with(ledger, uid, None, 0) if uid in ledger.by_pod else ledger


def move(ledger: AssumedLoad, uid: str, node: str) -> AssumedLoad:
    """The ledger after a pod was bound: its load comes where it is, if that is not where it was expected."""
    entry = ledger.by_pod.get(uid)
    if entry is None or entry.node == node:
        return ledger
    return _with(ledger, uid, replace(entry, node=node), ledger.counted[uid])


def mark_ready(ledger: AssumedLoad, uid: str, ready_at: datetime) -> AssumedLoad:
    """The ledger after a pod became ready: from now on samples may include it."""
    entry = ledger.by_pod.get(uid)
    if entry is None or entry.ready_at == ready_at:
        return ledger
    # The sums stay: nothing else is copied.
    return replace(ledger, by_pod={**ledger.by_pod, uid: replace(entry, ready_at=ready_at)})


def settle(
    ledger: AssumedLoad,
    now: datetime,
    *,
    sampled_at: Mapping[str, datetime],
    rate_window: timedelta,
    longest_wait: timedelta,
) -> AssumedLoad:
    """The ledger after new samples: what they show is no longer assumed.

    ``sampled_at`` gives the time of each node's utilisation sample, which is a mean over the ``rate_window``
    before it: of a pod that was ready for a third of the window it shows a third. A pod that is not ready
    ``longest_wait`` after its placement (pending, crashing, out of image) is no longer counted on. Without a
    sample newer than the pod its assumption stands, however old: absent data must not read as idle.
    """
    remaining = {
        uid: _remaining(entry, now, sampled_at.get(entry.node), rate_window, longest_wait)
        for uid, entry in ledger.by_pod.items()
    }
    if remaining == ledger.counted:
        return ledger
    return _ledger((ledger.by_pod[uid], left) for uid, left in remaining.items() if left > 0)


def _remaining(
    entry: Assumption,
    now: datetime,
    sampled_at: datetime | None,
    rate_window: timedelta,
    longest_wait: timedelta,
) -> int:
    if entry.ready_at is None:
        return entry.millicores if now - entry.placed_at <= longest_wait else 0
    if sampled_at is None or sampled_at <= entry.ready_at:
        return entry.millicores
    if rate_window <= timedelta(0):
        return 0
    shown = min((sampled_at - entry.ready_at) / rate_window, 1.0)
    return ceil(entry.millicores * (1.0 - shown))


def _ledger(entries: Iterable[tuple[Assumption, int]]) -> AssumedLoad:
    by_pod: dict[str, Assumption] = {}
    counted: dict[str, int] = {}
    by_node: dict[str, int] = {}
    for entry, millicores in entries:
        by_pod[entry.uid] = entry
        counted[entry.uid] = millicores
        by_node[entry.node] = by_node.get(entry.node, 0) + millicores
    return AssumedLoad(by_pod, counted, by_node)


def _with(ledger: AssumedLoad, uid: str, entry: Assumption | None, millicores: int) -> AssumedLoad:
    by_pod, counted, by_node = dict(ledger.by_pod), dict(ledger.counted), dict(ledger.by_node)
    column = ledger._column
    before = by_pod.pop(uid, None)
    if before is not None:
        left = by_node[before.node] - counted.pop(uid)
        by_node[before.node] = left
        if left == 0:
            del by_node[before.node]
        column = column.with_node(before.node, left)
    if entry is not None:
        by_pod[uid] = entry
        counted[uid] = millicores
        by_node[entry.node] = by_node.get(entry.node, 0) + millicores
        column = column.with_node(entry.node, by_node[entry.node])
    return AssumedLoad(by_pod, counted, by_node, column)
