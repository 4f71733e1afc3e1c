"""When a pod that runs is moved: rarely, one at a time, and never because everybody else wants to go too.

What makes moves flap is deciding on figures that the last move has just changed. So a reason must last
(``forSeconds``), and a move makes the two nodes that it touched rest for as long: their other pods begin to
count anew and see what it changed before they act. A workload moves one pod at a time, only while all its
pods are ready, and rests afterwards (``cooldownSeconds``); the cluster has a budget for all workloads.

In: what is predicted and observed for each pod now. Out: the moves to make now, and the memory to hand in
again the next time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tailwise.api.placement_policy import Relocation, RelocationMode

WorkloadKey = tuple[str, str]

# The longest that a workload may ask a reason to last, or itself to rest (spec.placement.relocation).
_LONGEST = timedelta(days=7)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many pods the whole cluster may move within a time."""

    moves: int = 6
    within: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Standpoint:
    """One pod where it stands, and the best node for it elsewhere.

    Latencies are predicted P90s in milliseconds, ``there`` with the pod counted on that node. ``observed`` is
    the pod's own P90 as measured, None where nobody measures. ``settled``: all pods of its workload are
    ready and none is on its way.
    """

    uid: str
    workload: WorkloadKey
    node: str
    here_milliseconds: float
    better_node: str
    there_milliseconds: float
    slo_milliseconds: float
    observed_milliseconds: float | None
    settled: bool
    policy: Relocation

    @property
    def gain_percent(self) -> float:
        """How much lower the P90 would be on the other node."""
        if self.here_milliseconds <= 0:
            return 0.0
        return 100.0 * (1.0 - self.there_milliseconds / self.here_milliseconds)

    @property
    def misses(self) -> bool:
        """Whether the SLO is missed: as measured, or as predicted where nobody measures."""
        latency = self.observed_milliseconds
        return (self.here_milliseconds if latency is None else latency) > self.slo_milliseconds

    @property
    def has_reason(self) -> bool:
        """Whether the pod would be better off elsewhere, by its workload's own rule."""
        if self.policy.mode is RelocationMode.NEVER or self.gain_percent < self.policy.min_gain_percent:
            return False
        return self.misses or self.policy.mode is RelocationMode.WHEN_BETTER


@dataclass(frozen=True, slots=True)
class Move:
    """A pod to evict, and where its successor is expected to go."""

    standpoint: Standpoint
    since: datetime

    def message(self) -> str:
        """Why, in a sentence."""
        at = self.standpoint
        why = "misses its SLO" if at.misses else "would be faster elsewhere"
        return (
            f"{why}: predicted P90 {at.here_milliseconds:.0f} ms on {at.node} and "
            f"{at.there_milliseconds:.0f} ms on {at.better_node}, SLO {at.slo_milliseconds:.0f} ms, "
            f"since {self.since:%H:%M:%S}"
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """What must be known of the past: since when each pod has a reason, and the moves that were made."""

    since: Mapping[str, datetime] = field(default_factory=dict)
    moved: Mapping[WorkloadKey, datetime] = field(default_factory=dict)
    moves: tuple[datetime, ...] = ()
    touched: Mapping[str, datetime] = field(default_factory=dict)


def remembered(moved: Mapping[WorkloadKey, datetime], now: datetime, budget: Budget | None = None) -> Memory:
    """What a new process must know of the one before: rests and the budget; reasons begin to count anew."""
    within = (budget or Budget()).within
    return Memory(moved=moved, moves=tuple(sorted(when for when in moved.values() if now - when < within)))


def not_moved(memory: Memory, workload: WorkloadKey, before: datetime | None) -> Memory:
    """The memory where a move came to nothing: the workload need not rest, unless for one before."""
    moved = {key: when for key, when in memory.moved.items() if key != workload}
    return replace(memory, moved=moved if before is None else moved | {workload: before})


def rested(memory: Memory, nodes: Collection[str], now: datetime) -> Memory:
    """The memory where a move that took its time is done only now: what changed on its nodes rests anew."""
    return replace(memory, touched={**memory.touched, **dict.fromkeys(nodes, now)})


def relocate(
    memory: Memory, standpoints: Sequence[Standpoint], now: datetime, budget: Budget | None = None
) -> tuple[Memory, tuple[Move, ...]]:
    """The moves to make now, those that gain most first, and the memory after them.

    ``standpoints`` are all pods that may move; a pod that is missing from them has lost its reason.
    """
    allowed = budget or Budget()
    since = {at.uid: memory.since.get(at.uid, now) for at in standpoints if at.has_reason}
    recent = tuple(when for when in memory.moves if now - when < allowed.within)
    moved = dict(memory.moved)
    touched = {node: when for node, when in memory.touched.items() if now - when < _LONGEST}
    chosen: list[Move] = []
    for at in sorted(standpoints, key=lambda at: (-at.gain_percent, at.uid)):
        if at.uid not in since or now - since[at.uid] < timedelta(seconds=at.policy.for_seconds):
            continue
        resting = moved.get(at.workload)
        cooldown = timedelta(seconds=at.policy.cooldown_seconds)
        if not at.settled or (resting is not None and now - resting < cooldown):
            continue
        lasting = timedelta(seconds=at.policy.for_seconds)
        if any(now - touched.get(node, _NEVER) < lasting for node in (at.node, at.better_node)):
            continue
        if len(recent) + len(chosen) >= allowed.moves:
            continue
        chosen.append(Move(at, since[at.uid]))
        moved[at.workload] = now
        touched |= {at.node: now, at.better_node: now}
    # What changes on a node changes the figures of those that stand there.
    remaining = {
        at.uid: since[at.uid] for at in standpoints if at.uid in since and touched.get(at.node) != now
    }
    known = {at.workload for at in standpoints}
    moved = {key: when for key, when in moved.items() if key in known or now - when < _LONGEST}
    return Memory(remaining, moved, (*recent, *(now for _ in chosen)), touched), tuple(chosen)
