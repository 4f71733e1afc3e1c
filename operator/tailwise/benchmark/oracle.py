"""The best placement in hindsight, searched over what a run measured. Pure.

Pods that are all under load share their node's CPU, so a pod's P90 goes by its model, its node and the number
of pods there. From the measured triples a P90 of every other is told by logarithms that add up: one for the
model, one for (node, number); an unmeasured number is told from the nearest measured one in proportion. The
placement of least mean P90 is then searched from many beginnings by moving and exchanging single pods.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import TypeVar

from tailwise.benchmark.choosing import NoRoomError, Room
from tailwise.benchmark.records import StepRecord
from tailwise.benchmark.scenario import Workload

_ROUNDS_OF_FIT = 50
_BEGINNINGS = 24
_MOST_STEPS = 2000
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Hindsight:
    """P90s in milliseconds, measured and inferred."""

    measured: Mapping[tuple[str, str, int], float]
    model: Mapping[str, float]
    cell: Mapping[tuple[str, int], float]

    def p90(self, workload: str, node: str, pods: int) -> float:
        """Of a pod of this workload on this node when so many pods are there."""
        known = self.measured.get((workload, node, pods))
        if known is not None:
            return known
        model = self.model.get(workload, fmean(self.model.values()))
        return math.exp(model + self._cell(node, pods))

    def _cell(self, node: str, pods: int) -> float:
        known = {count: value for (at, count), value in self.cell.items() if at == node}
        if not known:
            # A node that nobody was sent to: as the others at this number, which a search will not prefer.
            others = [value - math.log(count) for (_, count), value in self.cell.items()]
            return max(others) + math.log(pods)
        nearest = min(known, key=lambda count: (abs(math.log(count / pods)), count))
        return known[nearest] + math.log(pods / nearest)

    def mean(self, nodes: Sequence[str], workloads: Sequence[str]) -> float:
        """Mean P90 of a placement: node and workload of each pod."""
        counts = Counter(nodes)
        return fmean(
            self.p90(workload, node, counts[node]) for node, workload in zip(nodes, workloads, strict=True)
        )


def hindsight(steps: Iterable[StepRecord]) -> Hindsight:
    """What the steps tell.

    Raises:
        ValueError: they hold no measured pod.
    """
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for step in steps:
        counts = Counter(pod.node for pod in step.pods)
        for pod in step.pods:
            if pod.measured:
                found[pod.workload, pod.node, counts[pod.node]].append(math.log(pod.percentile(90)))
    if not found:
        raise ValueError("no step has measured a pod")
    triples = {key: fmean(values) for key, values in found.items()}
    model = dict.fromkeys({workload for workload, _, _ in triples}, 0.0)
    cell: dict[tuple[str, int], float] = {}
    for _ in range(_ROUNDS_OF_FIT):
        cell = _means((key[1:], value - model[key[0]]) for key, value in triples.items())
        model = _means((key[0], value - cell[key[1:]]) for key, value in triples.items())
    return Hindsight({key: math.exp(value) for key, value in triples.items()}, model, cell)


def _means(pairs: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    groups: dict[Key, list[float]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return {key: fmean(values) for key, values in groups.items()}


def best_placement(
    known: Hindsight,
    slots: Sequence[tuple[str, Workload]],
    rooms: Mapping[str, Room],
    tried: Sequence[Mapping[str, str]] = (),
    seed: int = 0,
) -> dict[str, str]:
    """Node of each slot with the least mean P90 that was found; ``tried``: placements to begin from.

    Raises:
        NoRoomError: the pods do not fit on the nodes.
    """
    random = Random(seed)  # noqa: S311
    search = _Search(known, slots, rooms)
    beginnings = [[placement[slot] for slot, _ in slots] for placement in tried]
    beginnings += [search.filled(random) for _ in range(_BEGINNINGS)]
    best = min((search.improved(beginning) for beginning in beginnings), key=search.cost)
    return {slot: node for (slot, _), node in zip(slots, best, strict=True)}


@dataclass(frozen=True, slots=True)
class _Search:
    known: Hindsight
    slots: Sequence[tuple[str, Workload]]
    rooms: Mapping[str, Room]

    def cost(self, nodes: Sequence[str]) -> float:
        return self.known.mean(nodes, [workload.name for _, workload in self.slots])

    def fits(self, nodes: Sequence[str]) -> bool:
        left = dict(self.rooms)
        for node, (_, workload) in zip(nodes, self.slots, strict=True):
            if not left[node].fits(workload):
                return False
            left[node] = left[node].less(workload)
        return True

    def filled(self, random: Random) -> list[str]:
        """Any placement that fits, pods of the largest requests first."""
        left = dict(self.rooms)
        nodes = [""] * len(self.slots)
        for place, (slot, workload) in enumerate(self.slots):
            fitting = sorted(name for name, room in left.items() if room.fits(workload))
            if not fitting:
                raise NoRoomError(f"no node has room for {slot}")
            nodes[place] = random.choice(fitting)
            left[nodes[place]] = left[nodes[place]].less(workload)
        return nodes

    def improved(self, nodes: list[str]) -> list[str]:
        """Steepest descent over single moves and exchanges."""
        cost = self.cost(nodes)
        for _ in range(_MOST_STEPS):
            better = min(
                ((self.cost(other), other) for other in self._neighbours(nodes) if self.fits(other)),
                key=lambda each: each[0],
                default=None,
            )
            if better is None or better[0] >= cost - 1e-9:
                return nodes
            cost, nodes = better
        return nodes

    def _neighbours(self, nodes: list[str]) -> Iterable[list[str]]:
        seen: set[tuple[str, str, str]] = set()
        for place, (_, workload) in enumerate(self.slots):
            for node in self.rooms:
                move = (workload.name, nodes[place], node)
                if node != nodes[place] and move not in seen:
                    seen.add(move)
                    yield [*nodes[:place], node, *nodes[place + 1 :]]
        exchanged: set[tuple[str, str, str, str]] = set()
        for one, (_, first) in enumerate(self.slots):
            for other in range(one + 1, len(self.slots)):
                second = self.slots[other][1]
                exchange = (first.name, nodes[one], second.name, nodes[other])
                if first.name == second.name or nodes[one] == nodes[other] or exchange in exchanged:
                    continue
                exchanged.add(exchange)
                swapped = list(nodes)
                swapped[one], swapped[other] = nodes[other], nodes[one]
                yield swapped
