"""Prediction tables, worked out once for each way of serving and class of nodes, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.controllers.node_facts import hardware_class
from tailwise.domain.scoring import SOURCES, SourceCodes
from tailwise.prediction.prediction import Serving
from tailwise.prediction.predictor import Predictor
from tailwise.prediction.tables import PredictionTable, TableSet

_TABLES_KEPT = 20_000  # of about 600 bytes each
_STACKS_KEPT = 1_000


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


def asked(profile: ModelProfile, serving: Serving) -> Hashable:
    """What tables depend on beside the node: the figures of the model, and how it is served."""
    figures = (profile.flops, profile.parameter_bytes, profile.activation_bytes, profile.batch_size)
    return (profile.work, figures, serving)


@dataclass(slots=True)
class PredictionTables:
    """The tables there are. ``classes`` tells the classes of nodes as they are now."""

    predictor: Predictor
    classes: Callable[[], tuple[NodeHardware, ...]]
    made: Callable[[], None] = lambda: None
    _tables: dict[Hashable, PredictionTable] = field(default_factory=dict)
    _stacks: dict[Hashable, Stacked] = field(default_factory=dict)
    _preparing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def prepare(self, profile: ModelProfile, serving: Serving) -> None:
        """Work out the tables that are missing for this way of serving."""
        key = asked(profile, serving)
        if self._is_prepared(key):
            return
        # Pods of a new workload come together: the first has the tables worked out, the others wait for them.
        async with self._preparing:
            if not self._is_prepared(key):
                await self._work_out(key, profile, serving)

    def stacked(self, key: Hashable) -> Stacked | None:
        """The tables of one way of serving for the classes as they are now; None while they are not made."""
        stacked = self._stacks.get(key)
        return stacked if stacked is not None and stacked.classes is self.classes() else None

    def table(self, key: Hashable, hardware: NodeHardware) -> PredictionTable | None:
        """One table; None where it is not made."""
        return self._tables.get((key, hardware_class(hardware)))

    def _is_prepared(self, key: Hashable) -> bool:
        return self.stacked(key) is not None

    async def _work_out(self, key: Hashable, profile: ModelProfile, serving: Serving) -> None:
        classes = self.classes()
        missing = [each for each in classes if (key, hardware_class(each)) not in self._tables]
        if missing:
            made = await asyncio.to_thread(
                lambda: [self.predictor.table(profile, serving, hardware) for hardware in missing]
            )
            for hardware, table in zip(missing, made, strict=True):
                self._tables[key, hardware_class(hardware)] = table
        tables = tuple(self._tables[key, hardware_class(each)] for each in classes)
        self._stacks[key] = Stacked(classes, tables, TableSet.stack(tables) if tables else None)
        while len(self._tables) > max(_TABLES_KEPT, 2 * len(classes)):
            del self._tables[next(iter(self._tables))]
        while len(self._stacks) > _STACKS_KEPT:
            del self._stacks[next(iter(self._stacks))]
        self.made()
