"""Where a pod goes by the policies that the benchmark carries out itself: pure, over what nodes have left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from tailwise.benchmark.scenario import Scenario, Workload

_SUFFIXES = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


@dataclass(frozen=True, slots=True)
class Room:
    """What a node has left for pods: cores and bytes that nobody has requested."""

    node: str
    cores: float
    memory_bytes: float

    def fits(self, workload: Workload) -> bool:
        """Whether a pod's requests are still there."""
        return (
            quantity(workload.cpu_request) <= self.cores + 1e-9
            and quantity(workload.memory_request) <= self.memory_bytes
        )

    def less(self, workload: Workload) -> Room:
        """With one more pod of the workload."""
        return replace(
            self,
            cores=self.cores - quantity(workload.cpu_request),
            memory_bytes=self.memory_bytes - quantity(workload.memory_request),
        )


class NoRoomError(RuntimeError):
    """No node has room for a pod; the message names it."""


def quantity(text: str) -> float:
    """Cores or bytes of a quantity such as 250m or 448Mi."""
    digits = text.rstrip("mKiMG")
    return float(digits) * _SUFFIXES[text[len(digits) :]]


def arrivals(scenario: Scenario, number: int) -> tuple[tuple[str, Workload], ...]:
    """The pods of a round in the order of their coming, as (slot, workload); the same for every policy."""
    slots = [
        (f"{workload.name}-{place}", workload)
        for workload in scenario.workloads
        for place in range(workload.replicas)
    ]
    Random(f"{scenario.seed}/{number}").shuffle(slots)  # noqa: S311 - an order, no secret
    return tuple(slots)


Chooser = Callable[[str, Workload, Sequence[Room]], str]
"""Names the node of a slot, given the nodes where its pod fits."""


def at_random(scenario: Scenario, number: int) -> Chooser:
    """Any node where the pod fits."""
    random = Random(f"{scenario.seed}/{number}/random")  # noqa: S311
    return lambda _slot, _workload, rooms: random.choice(sorted(room.node for room in rooms))


def round_robin(nodes: Sequence[str]) -> Chooser:
    """The next node in order where the pod fits."""
    order = sorted(nodes)
    last = -1

    def choose(_slot: str, _workload: Workload, rooms: Sequence[Room]) -> str:
        nonlocal last
        fitting = {room.node for room in rooms}
        for step in range(1, len(order) + 1):
            place = (last + step) % len(order)
            if order[place] in fitting:
                last = place
                return order[place]
        raise AssertionError("rooms are of other nodes")

    return choose


def pinned(nodes: Mapping[str, str]) -> Chooser:
    """The node that was found for the slot beforehand."""
    return lambda slot, _workload, _rooms: nodes[slot]


def place(
    slot: str, workload: Workload, rooms: Mapping[str, Room], choose: Chooser
) -> tuple[str, dict[str, Room]]:
    """The slot's node, and what is left afterwards.

    Raises:
        NoRoomError: no node has room.
    """
    fitting = [room for room in rooms.values() if room.fits(workload)]
    if not fitting:
        raise NoRoomError(
            f"no node has room for {slot} ({workload.cpu_request}, {workload.memory_request}): fewer "
            "replicas, or smaller requests"
        )
    node = choose(slot, workload, fitting)
    return node, {**rooms, node: rooms[node].less(workload)}
