"""Where a pod could go, and how well: everything that a decision is made from, ready in memory.

Collected in the background: nodes and pods (the view), hardware, utilisation. Worked out once: prediction
tables, one for each way of serving and class of nodes. A decision is then filters, a gather and an argmin
over arrays, with no request and no wait. ``tailwise explain`` asks the same question.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.profile import ModelProfile
from tailwise.controllers.view import ClusterView
from tailwise.domain import assumption
from tailwise.domain.capacity import Floats, assumed_utilisation
from tailwise.domain.filtering import filter_nodes
from tailwise.domain.objects import Pod, serving_cpu_limit_millicores, serving_cpu_request_millicores
from tailwise.domain.scoring import SOURCES, Decision, PredictedLatencies, Preferences, SourceCodes, decide
from tailwise.domain.snapshot import ClusterSnapshot, NodeTable
from tailwise.prediction.prediction import NodeLoad, Question, Serving
from tailwise.prediction.predictor import Predictor
from tailwise.prediction.tables import PredictionTable, TableSet
from tailwise.telemetry.utilisation import Utilisation

# Two nodes of one make differ by about this much from measurement to measurement, and a table costs
# milliseconds: nodes this close share one.
_SPEED_STEP = math.log(1.02)
_LONGEST_WAIT = timedelta(minutes=10)
_NO_CLASS = -1
_TABLES_KEPT = 20_000  # of about 600 bytes each
_STACKS_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Hardware and utilisation of all nodes as arrays (nodes,), in the order of the snapshot's names.

    ``class_index`` is an index into ``classes``, -1 without hardware. ``sampled_at`` is Unix seconds; it and
    ``utilisation`` are NaN where nothing is known.
    """

    classes: tuple[NodeHardware, ...]
    class_index: NDArray[np.intp]
    capacity_cores: Floats
    utilisation: Floats
    sampled_at: Floats


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
class _Stacked:
    """The tables of one way of serving for all classes, in the order of ``classes``."""

    classes: tuple[NodeHardware, ...]
    tables: tuple[PredictionTable, ...]
    stack: TableSet | None

    @property
    def source_codes(self) -> SourceCodes:
        """Source of each table, shape (classes,), as an index into SOURCES."""
        codes = [SOURCES.index(PredictionSource(table.source.value)) for table in self.tables]
        return np.array(codes, dtype=np.int8)


@dataclass(frozen=True, slots=True)
class _Load:
    """Load of all nodes, each (nodes,): measured and assumed as fractions of capacity, age of samples."""

    utilisation: Floats
    assumed: Floats
    age_seconds: Floats


@dataclass(frozen=True, slots=True)
class Assessment:
    """A decision with the numbers behind it, for one pod."""

    decision: Decision
    predicted: PredictedLatencies
    utilisation: Floats
    expected_millicores: int


def serving_of(pod: Pod, spec: InferenceWorkloadSpec) -> Serving:
    """How a pod will serve: its limits, and the threads and load that its workload states."""
    container = spec.serving.container if spec.serving else None
    limit = serving_cpu_limit_millicores(pod, container)
    request = serving_cpu_request_millicores(pod, container)
    threads = spec.serving.threads if spec.serving else None
    return Serving(
        cpu_limit_millicores=limit,
        threads=threads or max(1, math.ceil((limit or request) / 1000)),
        batch_size=spec.load.batch_size,
        concurrency=spec.load.concurrency,
        requests_per_second=spec.load.requests_per_second,
        cpu_request_millicores=request,
    )


@dataclass(slots=True)
class Assessor:
    """Answers where a pod could go. Everything but ``prepare`` is immediate."""

    view: ClusterView
    predictor: Predictor
    utilisation: Utilisation | None = None
    ledger: assumption.AssumedLoad = field(default_factory=assumption.AssumedLoad)
    _tables: dict[Hashable, PredictionTable] = field(default_factory=dict)
    _stacks: dict[Hashable, _Stacked] = field(default_factory=dict)
    _seconds_per_query: dict[Hashable, float] = field(default_factory=dict)
    _facts: _Made | None = None
    _preparing: asyncio.Lock = field(default_factory=asyncio.Lock)

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

    def assume(self, pod: Pod, node: str, millicores: int, placed_at: datetime) -> None:
        """Count a pod on a node before the API server and Prometheus show it."""
        self.view.state.assume(pod, node)
        entry = assumption.Assumption(pod.uid, node, millicores, placed_at, pod.ready_at)
        self.ledger = assumption.assume(self.ledger, entry)

    def take_back(self, uid: str) -> None:
        """The patch failed: the pod counts nowhere."""
        self.view.state.forget(uid)
        self.ledger = assumption.discard(self.ledger, uid)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow pods that became ready or went."""
        if new is None and old is not None:
            self.ledger = assumption.discard(self.ledger, old.uid)
        elif new is not None and new.ready_at is not None:
            self.ledger = assumption.mark_ready(self.ledger, new.uid, new.ready_at)

    # ---- the question

    async def prepare(self, profile: ModelProfile, serving: Serving) -> None:
        """Work out the tables that are missing for this way of serving, off the event loop."""
        asked = _asked(profile, serving)
        if self._is_prepared(asked):
            return
        # Pods of a new workload come together: the first has the tables worked out, the others wait for them.
        async with self._preparing:
            if not self._is_prepared(asked):
                await self._work_out(asked, profile, serving)

    def _is_prepared(self, asked: Hashable) -> bool:
        facts = self._node_facts(self.view.state.snapshot())
        stacked = self._stacks.get(asked)
        return stacked is not None and stacked.classes is facts.classes

    async def _work_out(self, asked: Hashable, profile: ModelProfile, serving: Serving) -> None:
        facts = self._node_facts(self.view.state.snapshot())
        missing = [each for each in facts.classes if (asked, hardware_class(each)) not in self._tables]
        if missing:
            made = await asyncio.to_thread(
                lambda: [self.predictor.table(profile, serving, hardware) for hardware in missing]
            )
            for hardware, table in zip(missing, made, strict=True):
                self._tables[asked, hardware_class(hardware)] = table
        tables = tuple(self._tables[asked, hardware_class(each)] for each in facts.classes)
        self._stacks[asked] = _Stacked(facts.classes, tables, TableSet.stack(tables) if tables else None)
        while len(self._tables) > max(_TABLES_KEPT, 2 * len(facts.classes)):
            del self._tables[next(iter(self._tables))]
        while len(self._stacks) > _STACKS_KEPT:
            del self._stacks[next(iter(self._stacks))]

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
        assumed = self.ledger.cores(snapshot.table)
        utilisation, ages = _utilisation(facts, now, spec.placement.max_data_age_seconds)
        coming = assumed_utilisation(assumed, facts.capacity_cores)
        predicted = self._predict(facts, profile, serving, _Load(utilisation, coming, ages))
        decision = decide(
            filter_nodes(pod, snapshot, set_aside=set_aside),
            predicted,
            Preferences(
                workload_pods=snapshot.workload_pods(pod.namespace, pod.workload or ""),
                assumed_cores=assumed,
                rotation=_rotation(pod),
            ),
            slo_milliseconds=spec.slo.latency_milliseconds,
            objective=spec.placement.objective,
        )
        best = decision.best
        if best is None:
            return Assessment(decision, predicted, utilisation + coming, 0)
        place = int(facts.class_index[best.position])
        table = self._stacks[_asked(profile, serving)].tables[place]
        p50 = table.at(float(utilisation[best.position]), float(coming[best.position]))[0]
        return Assessment(
            replace(decision, best=replace(best, p50_milliseconds=p50)),
            predicted,
            utilisation + coming,
            self._expected_millicores(profile, serving, facts.classes[place]),
        )

    def expected_millicores(self, pod: Pod, spec: InferenceWorkloadSpec, profile: ModelProfile) -> int:
        """What a pod that stands on its node already is expected to use."""
        hardware = self.view.hardware_of(pod.occupied_node)
        if hardware is None:
            return 0
        return self._expected_millicores(profile, serving_of(pod, spec), hardware)

    # ---- its parts

    def _predict(
        self, facts: NodeFacts, profile: ModelProfile, serving: Serving, load: _Load
    ) -> PredictedLatencies:
        count = len(facts.class_index)
        p90, bound = np.full(count, np.nan), np.full(count, np.nan)
        sources = np.zeros(count, dtype=np.int8)
        known = facts.class_index != _NO_CLASS
        stacked = self._stacks.get(_asked(profile, serving))
        # Hardware that came since prepare() has no table: no prediction this time, and the next asks anew.
        if stacked is not None and stacked.classes is facts.classes and stacked.stack is not None:
            rows = facts.class_index[known]
            p90[known], bound[known] = stacked.stack.lookup(
                rows, load.utilisation[known], load.assumed[known]
            )
            sources[known] = stacked.source_codes[rows]
            sources[known & np.isnan(load.utilisation)] = SOURCES.index(PredictionSource.STALE)
        return PredictedLatencies(
            # The median of the winner alone is of use: it is looked up then.
            p50_milliseconds=p90,
            p90_milliseconds=p90,
            bound_milliseconds=bound,
            age_seconds=load.age_seconds,
            source_codes=sources,
            has_hardware=known,
        )

    def _expected_millicores(self, profile: ModelProfile, serving: Serving, hardware: NodeHardware) -> int:
        seconds = None
        if serving.requests_per_second is not None:
            # A load given as a rate is simulated, for tens of milliseconds: once, not at each decision.
            key = (_asked(profile, serving), hardware_class(hardware))
            seconds = self._seconds_per_query.get(key)
            if seconds is None:
                question = Question(profile, serving, hardware, NodeLoad(cpu=0.0))
                seconds = self.predictor.predict(question).terms.get("cpuMillisecondsBurnt", 0.0) / 1000
                self._seconds_per_query[key] = seconds
                while len(self._seconds_per_query) > _TABLES_KEPT:
                    del self._seconds_per_query[next(iter(self._seconds_per_query))]
        return assumption.expected_millicores(
            cpu_seconds_per_query=seconds,
            requests_per_second=serving.requests_per_second,
            concurrency=serving.concurrency,
            threads=serving.threads,
            cpu_limit_millicores=serving.cpu_limit_millicores,
            cpu_request_millicores=serving.cpu_request_millicores,
        )

    def _node_facts(self, snapshot: ClusterSnapshot) -> NodeFacts:
        made = self._facts
        if made is not None and made.fits(snapshot.table, self.utilisation):
            return made.facts
        hardware = {each.node: each for each in self.view.hardware.values()}
        facts = node_facts(snapshot.names, hardware, self.utilisation)
        if made is not None and made.facts.classes == facts.classes:
            # The same tuple, by which stacks of tables know that they still fit.
            facts = replace(facts, classes=made.facts.classes)
        self._facts = _Made(snapshot.table, self.utilisation, facts)
        return facts


def node_facts(
    names: tuple[str, ...], hardware: Mapping[str, NodeHardware], utilisation: Utilisation | None
) -> NodeFacts:
    """The arrays over nodes of these names."""
    classes: dict[Hashable, int] = {}
    representatives: list[NodeHardware] = []
    class_index = np.full(len(names), _NO_CLASS, dtype=np.intp)
    capacity = np.full(len(names), np.nan)
    used, sampled = np.full(len(names), np.nan), np.full(len(names), np.nan)
    for place, name in enumerate(names):
        described = hardware.get(name)
        if described is None:
            continue
        key = hardware_class(described)
        if key not in classes:
            classes[key] = len(representatives)
            representatives.append(described)
        class_index[place] = classes[key]
        capacity[place] = described.capacity_cores
        reading = utilisation.node(name).cpu if utilisation is not None else None
        if utilisation is not None and reading is not None:
            load = utilisation.load(described, reading.sampled_at)
            used[place] = np.nan if load.cpu is None else load.cpu
            sampled[place] = reading.sampled_at.timestamp()
    return NodeFacts(tuple(representatives), class_index, capacity, used, sampled)


def hardware_class(hardware: NodeHardware) -> Hashable:
    """Nodes that are equal in this share prediction tables: make, size, limits and nearly equal speeds."""
    measured = hardware.measured
    speeds = (
        measured.gflops_per_core,
        measured.copy_gigabytes_per_second_per_core,
        measured.gflops_all_cores,
        measured.copy_gigabytes_per_second_all_cores,
        measured.runtime_gflops_per_core,
        measured.operator_overhead_nanoseconds,
    )
    steps = tuple(None if speed is None else round(math.log(speed) / _SPEED_STEP) for speed in speeds)
    return (hardware.node_class, steps)


def _asked(profile: ModelProfile, serving: Serving) -> Hashable:
    """What tables depend on beside the node: the figures of the model, and how it is served."""
    figures = (profile.flops, profile.parameter_bytes, profile.activation_bytes, profile.batch_size)
    return (profile.work, figures, serving)


def _utilisation(facts: NodeFacts, now: datetime, oldest_seconds: float) -> tuple[Floats, Floats]:
    """Measured utilisation, NaN where too old; and the age of each value in seconds."""
    ages = np.maximum(now.timestamp() - facts.sampled_at, 0.0)
    with np.errstate(invalid="ignore"):
        fresh = np.where(ages <= oldest_seconds, facts.utilisation, np.nan)
    return fresh, ages


def _rotation(pod: Pod) -> int:
    """Where the turn of equals begins for a workload; the same in each process."""
    return sum(f"{pod.namespace}/{pod.workload}".encode())
