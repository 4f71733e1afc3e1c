"""Pods that wait for a node, by what they ask: of those that are alike one is tried, and answers for all.

Ten thousand pods of one ReplicaSet that fit nowhere are one question, not ten thousand. The first of them is
tried again by time and whenever the cluster changes; when one is placed, the next few are tried at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from tailwise.cluster.reflector import Key
from tailwise.domain.objects import Pod

A = TypeVar("A")

# Its pods come from one template; those of a StatefulSet may differ in their claims.
_MAKER_OF_EQUALS = "ReplicaSet"
_ANSWER_SECONDS = 1.0
_TRIED_NEXT = 8


def likeness(pod: Pod, generation: int) -> Hashable:
    """What pods share that get the same answer in the same moment; ``generation`` is their workload's."""
    if pod.owner is None or pod.owner.kind != _MAKER_OF_EQUALS:
        return pod.uid
    requests = tuple(sorted(pod.requests.items()))
    return (pod.owner.uid, pod.workload, generation, pod.scheduler_name, requests, pod.required_terms)


@dataclass(slots=True)
class WaitingPods(Generic[A]):
    """Keys of the pods that wait, in the order of their coming, and what was last said of each kind."""

    clock: Callable[[], float] = time.monotonic
    _alike: dict[Key, Hashable] = field(default_factory=dict)
    _groups: dict[Hashable, dict[Key, None]] = field(default_factory=dict)
    _answers: dict[Hashable, tuple[float, A]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._alike)

    def __contains__(self, key: Key) -> bool:
        return key in self._alike

    def add(self, key: Key, alike: Hashable) -> bool:
        """A pod waits; True when it is the one that is tried for those like it."""
        if self._alike.get(key) != alike:
            self.discard(key)
            self._alike[key] = alike
            self._groups.setdefault(alike, {})[key] = None
        return next(iter(self._groups[alike])) == key

    def discard(self, key: Key) -> Key | None:
        """A pod waits no longer; returns who is tried in its stead from now on, if it was the one."""
        alike = self._alike.pop(key, None)
        if alike is None:
            return None
        group = self._groups[alike]
        first = next(iter(group)) == key
        del group[key]
        if group:
            return next(iter(group)) if first else None
        del self._groups[alike]
        self._answers.pop(alike, None)
        return None

    def firsts(self) -> tuple[Key, ...]:
        """The one of each kind that is tried when something in the cluster has changed."""
        return tuple(next(iter(group)) for group in self._groups.values())

    def placed_one(self, alike: Hashable) -> Iterator[Key]:
        """One found a node after all: the next few of its kind, to be tried at once."""
        self._answers.pop(alike, None)
        return islice(tuple(self._groups.get(alike, ())), _TRIED_NEXT)

    def refused_one(self, alike: Hashable, answer: A) -> None:
        """One was told that there is no node for it."""
        self._answers[alike] = (self.clock(), answer)

    def answer(self, key: Key, alike: Hashable) -> A | None:
        """What another of its kind was told a moment ago; None for the one that is tried for all."""
        group = self._groups.get(alike)
        told = self._answers.get(alike)
        if group is None or told is None or next(iter(group)) == key:
            return None
        return told[1] if self.clock() - told[0] <= _ANSWER_SECONDS else None
