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
from tailwise.api.labels import DEFAULT_LATENCY_MODEL
from tailwise.api.placement_policy import Neighbours
from tailwise.api.profile import ModelProfile
from tailwise.cluster.reflector import Key
from tailwise.controllers.node_facts import NO_CLASS, NodeFacts, node_facts
from tailwise.controllers.node_load import LoadOfNodes, load_of_nodes
from tailwise.controllers.prediction_tables import Asked, PredictionTables, asked, latency_model_of
from tailwise.controllers.residents import NodeCapacity, Resident, Residents, Standing
from tailwise.controllers.serving import expected_millicores, serving_of
from tailwise.controllers.view import ClusterView
from tailwise.domain import assumption
from tailwise.domain.capacity import Floats, assumed_utilisation
from tailwise.domain.filtering import filter_nodes
from tailwise.domain.neighbours import FILLING
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
class Assessment:
    """A decision with the numbers behind it, for one pod; each array (nodes,).

    ``utilisation`` is the load as samples and what is to come tell it, NaN where unknown. ``taken`` is what
    the predictor takes in its place, and ``added`` what the pod itself would add.
    """

    decision: Decision
    predicted: PredictedLatencies
    capacity_cores: Floats
    utilisation: Floats
    taken: Floats
    added: Floats
    effects: NeighbourEffects | None
    table: NodeTable


class Assessor:
    """Answers where a pod could go. Everything but ``prepare`` and ``prepare_residents`` is immediate."""

    def __init__(self, view: ClusterView, predictor: Predictor) -> None:
        self.view = view
        self.utilisation: Utilisation | None = None
        self.ledger = assumption.AssumedLoad()
        self.residents = Residents()
        self.tables = PredictionTables(
            predictor,
            lambda: self._node_facts(self.view.state.snapshot()).classes,
            self.residents.tables_changed,
        )
        self._expected: dict[Hashable, tuple[tuple[NodeHardware, ...], Floats]] = {}
        self._facts: _Made | None = None
        # Ways of serving whose pods stand on nodes and whose tables are not worked out.
        self._without_tables: dict[Asked, tuple[ModelProfile, Serving]] = {}
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

    async def prepare(
        self, profile: ModelProfile, serving: Serving, latency_model: str = DEFAULT_LATENCY_MODEL
    ) -> None:
        """Work out the tables that are missing for this way of serving, off the event loop."""
        await self.tables.prepare(profile, serving, latency_model)

    async def prepare_residents(self) -> None:
        """Work out tables of pods that stand on nodes already, one after another, until cancelled."""
        while True:
            await self._tables_wanted.wait()
            await self.prepare_missing(pause_seconds=0.05)

    async def prepare_missing(self, pause_seconds: float = 0.0) -> None:
        """Work out the tables that residents lack now, with a pause between, for placements come first."""
        self._tables_wanted.clear()
        while self._without_tables:
            key, (profile, serving) = self._without_tables.popitem()
            await self.tables.prepare(profile, serving, key.latency_model)
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
        snapshot, facts, load = self.load(now, spec.placement.max_data_age_seconds)
        serving = serving_of(pod, spec)
        key = asked(profile, serving, latency_model_of(spec))
        predicted = self._predict(facts, key, load)
        taken = self._taken(facts, key, load)
        added = self._added(facts, profile, serving, key)
        effects = None
        if spec.placement.neighbours is not Neighbours.IGNORE:
            effects = self._effects(snapshot.table, facts, key, taken, added)
        decision = decide(
            filter_nodes(pod, snapshot, set_aside=set_aside),
            predicted,
            Preferences(
                workload_pods=snapshot.workload_pods(pod.namespace, pod.workload or ""),
                assumed_cores=load.coming * facts.capacity_cores,
                rotation=_rotation(pod),
            ),
            slo_milliseconds=spec.slo.latency_milliseconds,
            slo_percentile=spec.slo.percentile,
            objective=spec.placement.objective,
            effects=effects,
        )
        best = decision.best
        hardware = facts.class_of(best.position) if best is not None else None
        table = self.tables.table(key, hardware) if hardware is not None else None
        if best is not None and table is not None:
            p50 = table.at(float(load.shown[best.position]), float(load.coming[best.position]))[0]
            decision = replace(decision, best=replace(best, p50_milliseconds=p50))
        assessment = Assessment(
            decision, predicted, facts.capacity_cores, load.total, taken, added, effects, snapshot.table
        )
        if decision.outcome is DecisionOutcome.OVER_NEIGHBOURS and best is not None:
            whose = self.pushed_over(assessment, best.position)
            return replace(assessment, decision=replace(decision, neighbours=whose))
        return assessment

    def pushed_over(self, assessment: Assessment, position: int) -> tuple[str, ...]:
        """Workloads, as namespace/name, that hold their SLO on a node now and would not with the pod."""
        node = assessment.table.names[position]
        now_there, extra = float(assessment.taken[position]), float(assessment.added[position])
        return tuple(str(each) for each in self.residents.pushed_over(node, now_there, extra))

    def load(self, now: datetime, oldest_seconds: float) -> tuple[ClusterSnapshot, NodeFacts, LoadOfNodes]:
        """All nodes as decisions see them at ``now``, whoever asks."""
        snapshot = self.view.state.snapshot()
        facts = self._node_facts(snapshot)
        return snapshot, facts, self._load(snapshot.table, facts, now, oldest_seconds)

    def standing(self, pods: Iterable[Pod], now: datetime, oldest_seconds: float) -> dict[str, Standing]:
        """What is predicted now for pods where they stand, by uid; one without a table is left out."""
        residents = [each for pod in pods if (each := self.residents.get(pod.uid)) is not None]
        if not residents:
            return {}
        snapshot, facts, load = self.load(now, oldest_seconds)
        found = {}
        for each in residents:
            position = snapshot.table.index.get(each.node)
            hardware = facts.class_of(position) if position is not None else None
            table = self.tables.table(each.asked, hardware) if hardware is not None else None
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
                version=table.version,
                age_seconds=None if math.isnan(age) else age,
            )
        return found

    # ---- its parts

    def _reside(self, pod: Pod, node: str, spec: InferenceWorkloadSpec, profile: ModelProfile) -> Resident:
        serving = serving_of(pod, spec)
        key = asked(profile, serving, latency_model_of(spec))
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
        if hardware is None or self.tables.table(key, hardware) is None:
            self._without_tables[key] = (profile, serving)
            self._tables_wanted.set()
        return resident

    def _load(self, table: NodeTable, facts: NodeFacts, now: datetime, oldest_seconds: float) -> LoadOfNodes:
        return load_of_nodes(table, facts, self.residents, self.ledger.cores(table), now, oldest_seconds)

    def _predict(self, facts: NodeFacts, key: Asked, load: LoadOfNodes) -> PredictedLatencies:
        count = len(facts.class_index)
        p90, bound = np.full(count, np.nan), np.full(count, np.nan)
        sources = np.zeros(count, dtype=np.int8)
        known: Bools = facts.class_index != NO_CLASS
        stacked = self.tables.stacked(key)
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
            version=stacked.version if stacked is not None else 0,
        )

    def _effects(
        self, table: NodeTable, facts: NodeFacts, key: Asked, taken: Floats, added: Floats
    ) -> NeighbourEffects | None:
        stacked = self.tables.stacked(key)
        if not len(self.residents) or stacked is None or stacked.stack is None:
            return None

        def capacity(node: str) -> NodeCapacity | None:
            hardware = facts.class_of(table.index[node])
            if hardware is None:
                return None
            return NodeCapacity(hardware.capacity_cores, lambda its: self.tables.table(its, hardware))

        crowd = self.residents.crowd(table, capacity)
        return NeighbourEffects(crowd.added_milliseconds(taken, added), crowd.pushed_over(taken, added))

    def _taken(self, facts: NodeFacts, key: Asked, load: LoadOfNodes) -> Floats:
        """Load of all nodes (nodes,), as the predictor takes it where it is unknown."""
        stacked = self.tables.stacked(key)
        if stacked is None or stacked.stack is None:
            return load.total
        # A node without hardware has the last class's figures here, and no prediction that they could spoil.
        guessed = stacked.stack.unknown_utilisation[facts.class_index]
        taken: Floats = np.where(np.isnan(load.shown), guessed, load.shown) + load.coming
        return taken

    def _added(self, facts: NodeFacts, profile: ModelProfile, serving: Serving, key: Asked) -> Floats:
        """What the pod would keep busy of each node (nodes,), a fraction of its capacity; NaN if unknown."""
        known = self._expected.get(key)
        if known is None or known[0] is not facts.classes:
            cores = [expected_millicores(profile, serving, each) / 1000 for each in facts.classes]
            known = self._expected[key] = (facts.classes, np.array([*cores, np.nan], dtype=np.float64))
            while len(self._expected) > _EXPECTATIONS_KEPT:
                del self._expected[next(iter(self._expected))]
        # The index of a node without hardware, -1, reads the last.
        return assumed_utilisation(known[1][facts.class_index], facts.capacity_cores)

    def _node_facts(self, snapshot: ClusterSnapshot) -> NodeFacts:
        made = self._facts
        if made is not None and made.fits(snapshot.table, self.utilisation):
            return made.facts
        hardware = {each.node: each for each in self.view.described()}
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
