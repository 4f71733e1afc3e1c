"""The workloads' pods that stand on nodes: what they want of them, and what a newcomer would do to them.

Kept as arrays over the nodes and renewed row by row: a placement changes one node, and asks about all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.cluster.reflector import Key
from tailwise.controllers.prediction_tables import Asked
from tailwise.domain.capacity import Floats
from tailwise.domain.neighbours import Crowd, ResidentCurve, resident_curve, seen_demand
from tailwise.domain.snapshot import NodeTable
from tailwise.prediction.prior import UTILISATION_GRID
from tailwise.prediction.tables import PredictionTable


@dataclass(frozen=True, slots=True)
class Resident:
    """A pod on its node: ``asked`` says which tables are its own, ``millicores`` what it may keep busy."""

    uid: str
    key: Key
    workload: Key
    node: str
    asked: Asked
    millicores: int
    slo_milliseconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What is predicted for a pod where it stands, under the load that its node has now."""

    p50_milliseconds: float
    p90_milliseconds: float
    bound_milliseconds: float
    source: PredictionSource
    version: int
    age_seconds: float | None


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """What curves need to know of a node: its cores, and the tables of one way of serving on it."""

    cores: float
    table: Callable[[Asked], PredictionTable | None]


_CURVES_KEPT = 10_000  # of about 300 bytes each
_NO_RESIDENTS: Mapping[str, Resident] = {}


class Residents:
    """All residents, by node."""

    def __init__(self) -> None:
        self._node_of: dict[str, str] = {}
        self._by_node: dict[str, dict[str, Resident]] = {}
        # Cores that the pods of a full node were seen to want, strangers included.
        self._seen: dict[str, float] = {}
        self._names: tuple[str, ...] = ()
        self._summed: Floats = np.zeros((0, len(UTILISATION_GRID)))
        self._reached: Floats = np.zeros((0, 1))
        self._wanted: Floats = np.zeros(0)
        self._changed: set[str] = set()
        # With their tables, which keeps the ids of these from being given to others.
        self._curves: dict[tuple[int, float, float], tuple[PredictionTable, ResidentCurve]] = {}
        # The load at which each resident of a node comes to miss its SLO, by workload.
        self._reached_by: dict[str, tuple[tuple[float, Key], ...]] = {}
        # Nodes with a resident whose tables are not worked out yet.
        self._incomplete: set[str] = set()

    def __len__(self) -> int:
        return len(self._node_of)

    def put(self, resident: Resident) -> None:
        """A pod stands on its node, or is on its way there."""
        node = self._node_of.get(resident.uid)
        if node is not None and node != resident.node:
            self.remove(resident.uid)
        elif node is not None and self._by_node[node][resident.uid] == resident:
            return
        self._node_of[resident.uid] = resident.node
        self._by_node.setdefault(resident.node, {})[resident.uid] = resident
        self._changed.add(resident.node)

    def remove(self, uid: str) -> None:
        """A pod went, or did not come after all."""
        node = self._node_of.pop(uid, None)
        if node is None:
            return
        del self._by_node[node][uid]
        if not self._by_node[node]:
            del self._by_node[node]
            self._seen.pop(node, None)
        self._changed.add(node)

    def get(self, uid: str) -> Resident | None:
        """The resident of this uid."""
        node = self._node_of.get(uid)
        return None if node is None else self._by_node[node][uid]

    def on(self, node: str) -> Iterator[Resident]:
        """Residents of a node."""
        return iter(tuple(self._by_node.get(node, _NO_RESIDENTS).values()))

    def tables_changed(self, anywhere: bool = False) -> None:
        """Tables were worked out (curves that were missing can be made now), or all are others now."""
        self._changed |= set(self._names) if anywhere else self._incomplete

    def saw_used(self, used_cores: Mapping[str, float], by_pod: Mapping[Key, float]) -> None:
        """Take what the residents of the nodes that are full now were seen to use of ``used_cores``."""
        self._seen = {}
        for node, cores in used_cores.items():
            pods = [
                (each.millicores / 1000, by_pod[each.key]) for each in self.on(node) if each.key in by_pod
            ]
            seen = seen_demand(cores, pods)
            if seen is not None:
                self._seen[node] = seen

    def wanted_cores(self, table: NodeTable, coming: Floats) -> tuple[Floats, Floats]:
        """Cores that residents want, each (nodes,): of all of them, and of those that samples include.

        ``coming`` are the cores of pods that no sample shows yet. The second counts strangers too, where the
        usage of pods was read.
        """
        self._follow(table)
        shown = np.maximum(self._wanted - coming, 0.0)
        for node, cores in self._seen.items():
            position = table.index.get(node)
            if position is not None:
                shown[position] = cores
        return self._wanted, shown

    def crowd(self, table: NodeTable, capacity: Callable[[str], NodeCapacity | None]) -> Crowd:
        """Curves of all residents, summed for each node."""
        self._follow(table)
        for node in self._changed:
            position = table.index.get(node)
            if position is not None:
                self._renew(node, position, capacity(node))
        self._changed.clear()
        return Crowd(UTILISATION_GRID, self._summed, self._reached)

    def pushed_over(self, node: str, load: float, extra: float) -> tuple[Key, ...]:
        """Workloads that hold their SLO on a node now and would not with ``extra`` on top of ``load``."""
        reached = self._reached_by.get(node, ())
        return tuple(dict.fromkeys(key for at, key in reached if load <= at < load + extra))

    # ---- the arrays

    def _follow(self, table: NodeTable) -> None:
        if table.names is not self._names:
            self._names = table.names
            self._summed = np.zeros((len(table), len(UTILISATION_GRID)))
            self._reached = np.full((len(table), 1), np.inf)
            self._wanted = np.zeros(len(table))
            self._incomplete.clear()
            self._changed = set(self._by_node)
        for node in self._changed:
            position = table.index.get(node)
            if position is not None:
                residents = self._by_node.get(node, _NO_RESIDENTS).values()
                self._wanted[position] = sum(each.millicores for each in residents) / 1000

    def _curve(self, table: PredictionTable, demand: float, slo_milliseconds: float) -> ResidentCurve:
        """Replicas of one workload have few curves between them: one for each class of nodes."""
        key = (id(table), demand, slo_milliseconds)
        known = self._curves.get(key)
        if known is None or known[0] is not table:
            if len(self._curves) >= _CURVES_KEPT:
                self._curves.clear()
            curve = resident_curve(UTILISATION_GRID, table.p90, table.bound, demand, slo_milliseconds)
            known = self._curves[key] = (table, curve)
        return known[1]

    def _renew(self, node: str, position: int, capacity: NodeCapacity | None) -> None:
        curves: list[ResidentCurve] = []
        owners: list[Key] = []
        residents = self._by_node.get(node, _NO_RESIDENTS).values()
        for each in residents:
            table = capacity.table(each.asked) if capacity is not None else None
            if capacity is not None and table is not None:
                curves.append(
                    self._curve(table, each.millicores / 1000 / capacity.cores, each.slo_milliseconds)
                )
                owners.append(each.workload)
        if len(curves) < len(residents):
            self._incomplete.add(node)
        else:
            self._incomplete.discard(node)
        self._reached_by[node] = tuple(
            (curve.slo_reached_at, owner)
            for curve, owner in zip(curves, owners, strict=True)
            if np.isfinite(curve.slo_reached_at)
        )
        self._summed[position] = sum((curve.p90_milliseconds for curve in curves), np.zeros(()))
        reached = sorted(at for at, _ in self._reached_by[node])
        if len(reached) > self._reached.shape[1]:
            more = len(reached) - self._reached.shape[1]
            self._reached = np.pad(self._reached, ((0, 0), (0, more)), constant_values=np.inf)
        self._reached[position] = np.inf
        self._reached[position, : len(reached)] = reached
