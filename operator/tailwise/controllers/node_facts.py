"""Hardware and utilisation of all nodes as arrays, in the order of the snapshot's names."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailwise.api.hardware import NodeHardware
from tailwise.domain.capacity import Floats
from tailwise.telemetry.utilisation import Utilisation

# Two nodes of one make differ by about this much from measurement to measurement, and a table costs
# milliseconds: nodes this close share one.
_SPEED_STEP = math.log(1.02)

NO_CLASS = -1


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

    def class_of(self, position: int) -> NodeHardware | None:
        """The node that stands for all of this one's class; None without hardware."""
        place = int(self.class_index[position])
        return None if place == NO_CLASS else self.classes[place]


def node_facts(
    names: tuple[str, ...], hardware: Mapping[str, NodeHardware], utilisation: Utilisation | None
) -> NodeFacts:
    """The arrays over nodes of these names."""
    classes: dict[Hashable, int] = {}
    representatives: list[NodeHardware] = []
    class_index = np.full(len(names), NO_CLASS, dtype=np.intp)
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
