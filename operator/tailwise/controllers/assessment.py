"""Where a pod could go, and how well: everything that a decision is made from, ready in memory.

Collected in the background: nodes and pods (the view), hardware, utilisation. Worked out once: prediction
tables, one for each way of serving and class of nodes. A decision is then filters, a gather and an argmin
over arrays, with no request and no wait. ``tailwise explain`` asks the same question.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.placement_policy import Neighbours
from tailwise.api.profile import ModelProfile
from tailwise.cluster.reflector import Key
from tailwise.controllers.node_facts import NO_CLASS, NodeFacts, node_facts
from tailwise.controllers.prediction_tables import PredictionTables, asked
from tailwise.controllers.residents import NodeCapacity, Resident, Residents, Standing
from tailwise.controllers.serving import expected_millicores, serving_of
from tailwise.controllers.view import ClusterView
from tailwise.domain import assumption
from tailwise.domain.capacity import Floats, assumed_utilisation, known_load
from tailwise.domain.filtering import filter_nodes
from tailwise.domain.neighbours import FILLING, demanded
from tailwise.domain.objects import Pod
from tailwise.domain.scoring import (
    SOURCES,
    Decision,
    DecisionOutcome,
    NeighbourEffects,
    PredictedLatencies,
    Preferences,
    decide,
)
from tailwise.domain.snapshot import Bools, ClusterSnapshot, NodeTable
from tailwise.prediction.prediction import Serving
from tailwise.prediction.predictor import Predictor
from tailwise.telemetry.utilisation import Utilisation

_LONGEST_WAIT = timedelta(minutes=10)
_EXPECTATIONS_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class _Made:
    """Facts and what they were made from."""

    table: NodeTable
    utilisation: Utilisation | None
    facts: NodeFacts
    stale: bool = False

    def fits(self, table: NodeTable, utilisation: Utilisation | None) -> bool:
        """Whether nothing that the facts were made from has changed."""
        return not self.stale and self.table is table and self.utilisation is utilisation


@dataclass(frozen=True, slots=True)
class _Load:
    """Load of all nodes, each (nodes,): demand as far as samples show it, and what comes on top of it.

    Both are fractions of capacity; ``shown`` is NaN where unknown. ``age_seconds`` is the age of samples.
    """

    shown: Floats
    coming: Floats
    age_seconds: Floats
    # 0 for fresh samples to 1 for the oldest that count.
    doubt: Floats


@dataclass(frozen=True, slots=True)
class Assessment:
    """A decision with the numbers behind it, for one pod."""

    decision: Decision
    predicted: PredictedLatencies
    utilisation: Floats
    effects: NeighbourEffects | None
    table: NodeTable


class Assessor:
    """Answers where a pod could go. Everything but ``prepare`` and ``prepare_residents`` is immediate."""

    def __init__(self, view: ClusterView, predictor: Predictor) -> None:
        self.view = view
        self.predictor = predictor
        self.utilisation: Utilisation | None = None
        self.ledger = assumption.AssumedLoad()
        self.residents = Residents()
        self._tables = PredictionTables(
            predictor,
            lambda: self._node_facts(self.view.state.snapshot()).classes,
            self.residents.tables_changed,
        )
        self._expected: dict[Hashable, tuple[tuple[NodeHardware, ...], Floats]] = {}
        self._facts: _Made | None = None
        # Ways of serving whose pods stand on nodes and whose tables are not worked out.
        self._without_tables: dict[Hashable, tuple[ModelProfile, Serving]] = {}
        self._tables_wanted = asyncio.Event()

    # ---- what changes

    def hardware_changed(self) -> None:
        """Have the arrays made anew before the next decision."""
        if self._facts is not None:
            self._facts = replace(self._facts, stale=True)

    def sampled(self, utilisation: Utilisation) -> None:
        """Take newer samples; load that they show is no longer assumed."""
        self.utilisation = utilisation
        times = {
            name: known.cpu.sampled_at for name, known in utilisation.nodes.items() if known.cpu is not None
        }
        self.ledger = assumption.settle(
            self.ledger,
            datetime.now(UTC),
            sampled_at=times,
            rate_window=timedelta(seconds=utilisation.window_seconds),
            longest_wait=_LONGEST_WAIT,
        )

    def full_nodes(self) -> dict[str, tuple[Key, ...]]:
        """Residents of the nodes whose utilisation tells nothing more: what they use tells it better."""
        snapshot = self.view.state.snapshot()
        facts = self._node_facts(snapshot)
        with np.errstate(invalid="ignore"):
            full = [snapshot.names[place] for place in np.flatnonzero(facts.utilisation >= FILLING)]
        return {node: keys for node in full if (keys := tuple(each.key for each in self.residents.on(node)))}

    def used(self, by_pod: Mapping[Key, float]) -> None:
        """Take the cores that pods of full nodes use."""
        used_cores = {}
        for node in self.full_nodes():
            hardware = self.view.hardware_of(node)
            cores = self.utilisation.used_cores(hardware) if self.utilisation and hardware else None
            if cores is not None:
                used_cores[node] = cores
        self.residents.saw_used(used_cores, by_pod)

    def assume(
        self, pod: Pod, node: str, placed: tuple[InferenceWorkloadSpec, ModelProfile], at: datetime
    ) -> None:
        """Count a pod on a node before the API server and Prometheus show it."""
        self.view.state.assume(pod, node)
        resident = self._reside(pod, node, *placed)
        entry = assumption.Assumption(pod.uid, node, resident.millicores, at, pod.ready_at)
        self.ledger = assumption.assume(self.ledger, entry)

    def reside(self, pod: Pod, spec: InferenceWorkloadSpec, profile: ModelProfile) -> None:
        """Count a pod that stands on its node as one whose latency others add to."""
        self._reside(pod, pod.occupied_node, spec, profile)

    def take_back(self, uid: str) -> None:
        """The patch failed: the pod counts nowhere."""
        self.view.state.forget(uid)
        self.residents.remove(uid)
        self.ledger = assumption.discard(self.ledger, uid)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow pods that became ready, are ending (their load goes with them in seconds) or went."""
        ending = new is None or new.deleted_at is not None
        if old is not None and ending:
            self.residents.remove(old.uid)
            self.ledger = assumption.discard(self.ledger, old.uid)
        elif new is not None:
            if new.node_name:
                self.ledger = assumption.move(self.ledger, new.uid, new.node_name)
            if new.ready_at is not None:
                self.ledger = assumption.mark_ready(self.ledger, new.uid, new.ready_at)

    # ---- the question

    async def prepare(self, profile: ModelProfile, serving: Serving) -> None:
        """Work out the tables that are missing for this way of serving, off the event loop."""
        await self._tables.prepare(profile, serving)

    async def prepare_residents(self) -> None:
        """Work out tables of pods that stand on nodes already, one after another, until cancelled."""
        while True:
            await self._tables_wanted.wait()
            await self.prepare_missing(pause_seconds=0.05)

    async def prepare_missing(self, pause_seconds: float = 0.0) -> None:
        """Work out the tables that residents lack now, with a pause between, for placements come first."""
        self._tables_wanted.clear()
        while self._without_tables:
            _, (profile, serving) = self._without_tables.popitem()
            await self._tables.prepare(profile, serving)
            await asyncio.sleep(pause_seconds)

    def assess(
        self,
        pod: Pod,
        spec: InferenceWorkloadSpec,
        profile: ModelProfile,
        now: datetime,
        *,
        set_aside: frozenset[str] = frozenset(),
    ) -> Assessment:
        """Filter, predict and decide for one pod; a class without a table counts as not predictable."""
        snapshot = self.view.state.snapshot()
        facts = self._node_facts(snapshot)
        serving = serving_of(pod, spec)
        key = asked(profile, serving)
        load = self._load(snapshot.table, facts, now, spec.placement.max_data_age_seconds)
        predicted = self._predict(facts, key, load)
        expected = self._expected_cores(facts, profile, serving, key)
        effects = None
        if spec.placement.neighbours is not Neighbours.IGNORE:
            effects = self._effects(snapshot.table, facts, key, load, expected)
        decision = decide(
            filter_nodes(pod, snapshot, set_aside=set_aside),
            predicted,
            Preferences(
                workload_pods=snapshot.workload_pods(pod.namespace, pod.workload or ""),
                assumed_cores=load.coming * facts.capacity_cores,
                rotation=_rotation(pod),
            ),
            slo_milliseconds=spec.slo.latency_milliseconds,
            objective=spec.placement.objective,
            effects=effects,
        )
        total = load.shown + load.coming
        best = decision.best
        if decision.outcome is DecisionOutcome.OVER_NEIGHBOURS and best is not None:
            extra = float(expected[facts.class_index[best.position]] / facts.capacity_cores[best.position])
            now_there = float(self._taken(facts, key, load)[best.position])
            whose = self.residents.pushed_over(best.node, now_there, extra)
            decision = replace(decision, neighbours=tuple(str(each) for each in whose))
        if best is None:
            return Assessment(decision, predicted, total, effects, snapshot.table)
        table = self._tables.table(key, facts.classes[int(facts.class_index[best.position])])
        if table is not None:
            p50 = table.at(float(load.shown[best.position]), float(load.coming[best.position]))[0]
            decision = replace(decision, best=replace(best, p50_milliseconds=p50))
        return Assessment(decision, predicted, total, effects, snapshot.table)

    def standing(self, pods: Iterable[Pod], now: datetime, oldest_seconds: float) -> dict[str, Standing]:
        """What is predicted now for pods where they stand, by uid; one without a table is left out."""
        residents = [each for pod in pods if (each := self.residents.get(pod.uid)) is not None]
        if not residents:
            return {}
        snapshot = self.view.state.snapshot()
        facts = self._node_facts(snapshot)
        load = self._load(snapshot.table, facts, now, oldest_seconds)
        found = {}
        for each in residents:
            position = snapshot.table.index.get(each.node)
            hardware = facts.class_of(position) if position is not None else None
            table = self._tables.table(each.asked, hardware) if hardware is not None else None
            if position is None or hardware is None or table is None:
                continue
            own = each.millicores / 1000 / hardware.capacity_cores
            shown, coming = float(load.shown[position]), float(load.coming[position])
            unknown = math.isnan(shown)
            others = max(0.0, coming - own) if unknown else max(-shown, coming - own)
            age = float(load.age_seconds[position])
            p50, p90, bound = table.at(shown, others)
            found[each.uid] = Standing(
                p50,
                p90,
                bound * (1.0 + float(load.doubt[position]) * (table.unknown.bound_factor - 1.0)),
                source=PredictionSource.STALE if unknown else table.source,
                age_seconds=None if math.isnan(age) else age,
            )
        return found

    # ---- its parts

    def _reside(self, pod: Pod, node: str, spec: InferenceWorkloadSpec, profile: ModelProfile) -> Resident:
        serving = serving_of(pod, spec)
        key = asked(profile, serving)
        hardware = self.view.hardware_of(node)
        resident = Resident(
            uid=pod.uid,
            key=Key(pod.namespace, pod.name),
            workload=Key(pod.namespace, pod.workload or ""),
            node=node,
            asked=key,
            millicores=0 if hardware is None else expected_millicores(profile, serving, hardware),
            slo_milliseconds=spec.slo.latency_milliseconds,
        )
        self.residents.put(resident)
        if hardware is None or self._tables.table(key, hardware) is None:
            self._without_tables[key] = (profile, serving)
            self._tables_wanted.set()
        return resident

    def _load(self, table: NodeTable, facts: NodeFacts, now: datetime, oldest_seconds: float) -> _Load:
        ages = np.maximum(now.timestamp() - facts.sampled_at, 0.0)
        measured, doubt = known_load(facts.utilisation, ages, oldest_seconds)
        coming = self.ledger.cores(table)
        wanted, shown = self.residents.wanted_cores(table, coming)
        return _Load(
            shown=demanded(measured, assumed_utilisation(shown, facts.capacity_cores)),
            # Where nothing was measured, what residents want is known all the same.
            coming=assumed_utilisation(
                np.where(np.isnan(measured), np.maximum(wanted, coming), coming), facts.capacity_cores
            ),
            age_seconds=ages,
            doubt=doubt,
        )

    def _predict(self, facts: NodeFacts, key: Hashable, load: _Load) -> PredictedLatencies:
        count = len(facts.class_index)
        p90, bound = np.full(count, np.nan), np.full(count, np.nan)
        sources = np.zeros(count, dtype=np.int8)
        known: Bools = facts.class_index != NO_CLASS
        stacked = self._tables.stacked(key)
        # Hardware that came since prepare() has no table: no prediction this time, and the next asks anew.
        if stacked is not None and stacked.stack is not None:
            rows = facts.class_index[known]
            p90[known], bound[known] = stacked.stack.lookup(rows, load.shown[known], load.coming[known])
            # Old samples are worth less and less, at the end no more than none.
            bound[known] *= 1.0 + load.doubt[known] * (stacked.stack.unknown_bound_factor[rows] - 1.0)
            sources[known] = stacked.source_codes[rows]
            sources[known & np.isnan(load.shown)] = SOURCES.index(PredictionSource.STALE)
        return PredictedLatencies(
            # The median of the winner alone is of use: it is looked up then.
            p50_milliseconds=p90,
            p90_milliseconds=p90,
            bound_milliseconds=bound,
            age_seconds=load.age_seconds,
            source_codes=sources,
            has_hardware=known,
        )

    def _effects(
        self, table: NodeTable, facts: NodeFacts, key: Hashable, load: _Load, expected: Floats
    ) -> NeighbourEffects | None:
        stacked = self._tables.stacked(key)
        if not len(self.residents) or stacked is None or stacked.stack is None:
            return None

        def capacity(node: str) -> NodeCapacity | None:
            hardware = facts.class_of(table.index[node])
            if hardware is None:
                return None
            return NodeCapacity(hardware.capacity_cores, lambda its: self._tables.table(its, hardware))

        crowd = self.residents.crowd(table, capacity)
        now = self._taken(facts, key, load)
        extra = assumed_utilisation(expected[facts.class_index], facts.capacity_cores)
        return NeighbourEffects(crowd.added_milliseconds(now, extra), crowd.pushed_over(now, extra))

    def _taken(self, facts: NodeFacts, key: Hashable, load: _Load) -> Floats:
        """Load of all nodes (nodes,), as the predictor takes it where it is unknown."""
        stacked = self._tables.stacked(key)
        if stacked is None or stacked.stack is None:
            return load.shown + load.coming
        # A node without hardware has the last class's figures here, and no prediction that they could spoil.
        guessed = stacked.stack.unknown_utilisation[facts.class_index]
        taken: Floats = np.where(np.isnan(load.shown), guessed, load.shown) + load.coming
        return taken

    def _expected_cores(
        self, facts: NodeFacts, profile: ModelProfile, serving: Serving, key: Hashable
    ) -> Floats:
        """Cores that the pod will use on a node of each class, shape (classes,)."""
        known = self._expected.get(key)
        if known is None or known[0] is not facts.classes:
            cores = [expected_millicores(profile, serving, each) / 1000 for each in facts.classes]
            known = self._expected[key] = (facts.classes, np.array(cores, dtype=np.float64))
            while len(self._expected) > _EXPECTATIONS_KEPT:
                del self._expected[next(iter(self._expected))]
        return known[1]

    def _node_facts(self, snapshot: ClusterSnapshot) -> NodeFacts:
        made = self._facts
        if made is not None and made.fits(snapshot.table, self.utilisation):
            return made.facts
        hardware = {each.node: each for each in self.view.hardware.values()}
        facts = node_facts(snapshot.names, hardware, self.utilisation)
        if made is not None and made.facts.classes == facts.classes:
            # The same tuple, by which stacks of tables know that they still fit.
            facts = replace(facts, classes=made.facts.classes)
        else:
            self.residents.tables_changed(anywhere=True)
        self._facts = _Made(snapshot.table, self.utilisation, facts)
        return facts


def _rotation(pod: Pod) -> int:
    """Where the turn of equals begins for a workload; the same in each process."""
    return sum(f"{pod.namespace}/{pod.workload}".encode())
