"""Prediction tables, worked out once for each way of serving and class of nodes, off the event loop.

Each LatencyModel answers for the workloads that name it. When another version of one takes over, the tables
of everything that was asked of it are worked out while the old ones answer, and exchanged in one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.labels import DEFAULT_LATENCY_MODEL
from tailwise.api.profile import ModelProfile
from tailwise.controllers.node_facts import hardware_class
from tailwise.domain.scoring import SOURCES, SourceCodes
from tailwise.prediction.prediction import Serving
from tailwise.prediction.predictor import Predictor
from tailwise.prediction.tables import PredictionTable, TableSet

_TABLES_KEPT = 20_000  # of about 600 bytes each
_STACKS_KEPT = 1_000
# Worked out between two looks at what else is to be done; tens of milliseconds each.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked, and what tables depend on beside the node: the model's figures, and how it is served."""

    latency_model: str
    what: Hashable


@dataclass(frozen=True, slots=True)
class Stacked:
    """The tables of one way of serving for all classes, in the order of ``classes``."""

    classes: tuple[NodeHardware, ...]
    tables: tuple[PredictionTable, ...]
    stack: TableSet | None

    @property
    def source_codes(self) -> SourceCodes:
        """Source of each table, shape (classes,), as an index into SOURCES."""
        codes = [SOURCES.index(table.source) for table in self.tables]
        return np.array(codes, dtype=np.int8)

    @property
    def version(self) -> int:
        """The version that answered; all tables are of one."""
        return self.tables[0].version if self.tables else 0


def latency_model_of(spec: InferenceWorkloadSpec) -> str:
    """The LatencyModel that answers for a workload."""
    return spec.latency_model_ref.name if spec.latency_model_ref is not None else DEFAULT_LATENCY_MODEL


def asked(profile: ModelProfile, serving: Serving, latency_model: str = DEFAULT_LATENCY_MODEL) -> Asked:
    """What is asked of a LatencyModel for one way of serving."""
    figures = (profile.flops, profile.parameter_bytes, profile.activation_bytes, profile.batch_size)
    return Asked(latency_model, (profile.work, figures, serving))


_Place = tuple[Asked, Hashable]
"""Which table: what is asked, and the class of nodes."""


@dataclass(slots=True)
class PredictionTables:
    """The tables there are. ``classes`` tells the classes of nodes as they are now.

    ``fallback`` answers for LatencyModels that no version was set for. ``made`` is called when tables came,
    with True when those that were there became others.
    """

    fallback: Predictor
    classes: Callable[[], tuple[NodeHardware, ...]]
    made: Callable[[bool], None] = lambda _exchanged: None
    _predictors: dict[str, Predictor] = field(default_factory=dict)
    _widened: dict[str, float] = field(default_factory=dict)
    _tables: dict[_Place, PredictionTable] = field(default_factory=dict)
    _stacks: dict[Asked, Stacked] = field(default_factory=dict)
    _questions: dict[Asked, tuple[ModelProfile, Serving]] = field(default_factory=dict)
    _preparing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def predictor(self, latency_model: str) -> Predictor:
        """Who answers for a LatencyModel now."""
        return self._predictors.get(latency_model, self.fallback)

    async def prepare(
        self, profile: ModelProfile, serving: Serving, latency_model: str = DEFAULT_LATENCY_MODEL
    ) -> None:
        """Work out the tables that are missing for this way of serving."""
        key = asked(profile, serving, latency_model)
        if self._is_prepared(key):
            return
        # Pods of a new workload come together: the first has the tables worked out, the others wait for them.
        async with self._preparing:
            if not self._is_prepared(key):
                await self._work_out(key, profile, serving)

    async def exchange(self, latency_model: str, predictor: Predictor) -> None:
        """Have another version answer for a LatencyModel: all its tables first, then all of them at once.

        Meanwhile the version before answers. Cancelled, it changes nothing. The other begins with its own
        bound, however wide that of the one before had become.
        """
        if self.predictor(latency_model) is predictor:
            return
        made: dict[_Place, PredictionTable] = {}
        while missing := self._not_in(made, latency_model)[:_AT_ONCE]:
            await _tabulate(predictor, missing, made)
        async with self._preparing:
            # Whatever was asked while the others were worked out; placements wait for these few.
            while missing := self._not_in(made, latency_model):
                await _tabulate(predictor, missing, made)
            # From here to the end nothing is awaited.
            self._tables = {
                place: table
                for place, table in self._tables.items()
                if place[0].latency_model != latency_model
            } | made
            self._predictors[latency_model] = predictor
            self._widened.pop(latency_model, None)
            for key in [each for each in self._questions if each.latency_model == latency_model]:
                self._stack(key, self.classes())
            self.made(True)

    def widened(self, latency_model: str) -> float:
        """By what the bounds of a LatencyModel's version are multiplied now."""
        return self._widened.get(latency_model, 1.0)

    def widen(self, latency_model: str, factor: float) -> None:
        """Multiply the bounds of the version that answers for a LatencyModel by this instead; at once."""
        change = factor / self.widened(latency_model)
        self._widened[latency_model] = factor
        # In place: others may be adding tables meanwhile.
        for place in [each for each in self._tables if each[0].latency_model == latency_model]:
            self._tables[place] = self._tables[place].widened(change)
        for key in [each for each in self._stacks if each.latency_model == latency_model]:
            stacked = self._stacks[key]
            tables = tuple(table.widened(change) for table in stacked.tables)
            self._stacks[key] = _stacked(stacked.classes, tables)
        self.made(True)

    def stacked(self, key: Asked) -> Stacked | None:
        """The tables of one way of serving for the classes as they are now; None while they are not made."""
        stacked = self._stacks.get(key)
        return stacked if stacked is not None and stacked.classes is self.classes() else None

    def table(self, key: Asked, hardware: NodeHardware) -> PredictionTable | None:
        """One table; None where it is not made."""
        return self._tables.get((key, hardware_class(hardware)))

    def _is_prepared(self, key: Asked) -> bool:
        return self.stacked(key) is not None

    def _not_in(self, made: dict[_Place, PredictionTable], latency_model: str) -> list[_Missing]:
        classes = [(hardware_class(each), each) for each in self.classes()]
        return [
            ((key, known), profile, serving, hardware)
            for key, (profile, serving) in self._questions.items()
            if key.latency_model == latency_model
            for known, hardware in classes
            if (key, known) not in made
        ]

    async def _work_out(self, key: Asked, profile: ModelProfile, serving: Serving) -> None:
        classes = self.classes()
        places = [((key, hardware_class(each)), profile, serving, each) for each in classes]
        missing = [each for each in places if each[0] not in self._tables]
        made: dict[_Place, PredictionTable] = {}
        await _tabulate(self.predictor(key.latency_model), missing, made)
        factor = self.widened(key.latency_model)
        self._tables |= {place: table.widened(factor) for place, table in made.items()}
        self._questions[key] = (profile, serving)
        self._stack(key, classes)
        while len(self._tables) > max(_TABLES_KEPT, 2 * len(classes)):
            del self._tables[next(iter(self._tables))]
        while len(self._stacks) > _STACKS_KEPT:
            oldest = next(iter(self._stacks))
            del self._stacks[oldest], self._questions[oldest]
        self.made(False)

    def _stack(self, key: Asked, classes: tuple[NodeHardware, ...]) -> None:
        tables = tuple(self._tables[key, hardware_class(each)] for each in classes)
        self._stacks[key] = _stacked(classes, tables)


def _stacked(classes: tuple[NodeHardware, ...], tables: tuple[PredictionTable, ...]) -> Stacked:
    return Stacked(classes, tables, TableSet.stack(tables) if tables else None)


_Missing = tuple[_Place, ModelProfile, Serving, NodeHardware]


async def _tabulate(
    predictor: Predictor, missing: Iterable[_Missing], into: dict[_Place, PredictionTable]
) -> None:
    """Tables off the event loop, put ``into`` the dictionary on it."""
    todo = tuple(missing)
    if not todo:
        return
    made = await asyncio.to_thread(
        lambda: [predictor.table(profile, serving, hardware) for _, profile, serving, hardware in todo]
    )
    into.update(zip((place for place, *_ in todo), made, strict=True))
