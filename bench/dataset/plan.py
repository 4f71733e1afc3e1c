"""Which windows are measured, in which order: every cell in turn, several rounds, so that time is no cell.

Pure. A window is one model on one node beside one neighbour, under one CPU limit and one way of asking. A
round visits every node, load and model once; limits, threads and ways of asking go round from visit to visit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

FAMILIES: Mapping[str, str] = {
    "mobilenet_v2": "mobilenet",
    "mobilenet_v3_small": "mobilenet",
    "resnet18": "resnet",
    "resnet50": "resnet",
    "squeezenet1_1": "squeezenet",
    "shufflenet_v2_x1_0": "shufflenet",
    "efficientnet_b0": "efficientnet",
    "distilbert_seq128": "bert",
}
"""Models of tests/models that are measured, and their families."""

LOADS = (0.0, 0.35, 0.7, 1.0)
"""Shares of the node's cores that the neighbour wants; at 1 it never rests."""

RATES = (0.2, 0.4)
"""Server's arrivals, as a share of the rate that the prior thinks the pod can keep up with."""

SERVER_EVERY = 6
"""One window in so many is LoadGen's Server, the others SingleStream."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A pod's CPU limit (None: none) and the threads a query runs on: the limit rounded up."""

    millicores: int | None
    threads: int


@dataclass(frozen=True, slots=True)
class MeasuredNode:
    """A node of nodes.yaml, its cores, and the limits that are tried on it."""

    name: str
    cores: float
    limits: tuple[Limit, ...]

    @property
    def request_millicores(self) -> int:
        """What server and neighbour request: half of the node each."""
        return round(500 * self.cores)

    @property
    def threads(self) -> tuple[int, ...]:
        """Numbers of threads that servers run with here."""
        return tuple(sorted({limit.threads for limit in self.limits}))


HALF = MeasuredNode("half", 0.5, (Limit(None, 1), Limit(250, 1), Limit(400, 1)))
SINGLE = MeasuredNode("single", 1.0, (Limit(None, 1), Limit(250, 1), Limit(500, 1), Limit(800, 1)))
SESQUI = MeasuredNode(
    "sesqui", 1.5, (Limit(None, 2), Limit(1000, 1), Limit(250, 1), Limit(1250, 2), Limit(500, 1))
)
DOUBLE = MeasuredNode(
    "double",
    2.0,
    (
        Limit(2000, 2),
        Limit(500, 1),
        Limit(None, 2),
        Limit(1000, 1),
        Limit(250, 1),
        Limit(1500, 2),
    ),
)
LANES: tuple[tuple[MeasuredNode, ...], ...] = ((HALF, SINGLE), (SESQUI,), (DOUBLE,))
"""Nodes of one lane are measured at the same time: together they are no more than the machine."""


@dataclass(frozen=True, slots=True)
class Window:
    """One measurement. ``rate_share``: None for SingleStream, else one of RATES."""

    round: int
    node: str
    load: float
    model: str
    limit: Limit
    rate_share: float | None

    @property
    def key(self) -> str:
        """Tells it from every other of the plan."""
        return f"{self.round}/{self.node}/{self.load:g}/{self.model}"


@dataclass(frozen=True, slots=True)
class Segment:
    """Windows of one node beside one neighbour, one after another."""

    node: MeasuredNode
    load: float
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is measured at the same time: a segment on each node of a lane."""

    segments: tuple[Segment, ...]


def stretches(
    rounds: int,
    models: Sequence[str] = tuple(FAMILIES),
    lanes: Sequence[Sequence[MeasuredNode]] = LANES,
    loads: Sequence[float] = LOADS,
) -> Iterator[Stretch]:
    """The whole plan in order; every round begins with another lane and another load."""
    for number in range(rounds):
        for lane_place in range(len(lanes)):
            lane = lanes[(lane_place + number) % len(lanes)]
            for load_place in range(len(loads)):
                load_index = (load_place + number) % len(loads)
                yield Stretch(
                    tuple(_segment(number, node, load_index, loads[load_index], models) for node in lane)
                )


def _segment(number: int, node: MeasuredNode, load_index: int, load: float, models: Sequence[str]) -> Segment:
    windows = []
    for place in range(len(models)):
        index = (place + number) % len(models)
        limit = node.limits[(number + index + 2 * load_index) % len(node.limits)]
        turn = 5 * number + 3 * index + load_index
        rate = RATES[turn // SERVER_EVERY % len(RATES)] if turn % SERVER_EVERY == 0 else None
        windows.append(Window(number, node.name, load, models[index], limit, rate))
    return Segment(node, load, tuple(windows))
