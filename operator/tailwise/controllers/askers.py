"""Which workloads ask for which profile: an answer reaches its askers without a look at all workloads."""

from __future__ import annotations

from collections.abc import Iterator

from tailwise.cluster.reflector import Key
from tailwise.controllers.profiles import ProfileQuestion


class Askers:
    """The questions of all workloads; one that cannot be read asks nothing."""

    def __init__(self) -> None:
        self._asked: dict[Key, ProfileQuestion] = {}
        self._by_question: dict[ProfileQuestion, set[Key]] = {}

    def put(self, workload: Key, question: ProfileQuestion | None) -> ProfileQuestion | None:
        """A workload asks this now; returns what it was the last one to ask, to be forgotten."""
        before = self._asked.get(workload)
        if before == question:
            return None
        if question is not None:
            self._asked[workload] = question
            self._by_question.setdefault(question, set()).add(workload)
        if before is None:
            return None
        if question is None:
            del self._asked[workload]
        askers = self._by_question[before]
        askers.discard(workload)
        if askers:
            return None
        del self._by_question[before]
        return before

    def of(self, question: ProfileQuestion) -> Iterator[Key]:
        """The workloads that ask it."""
        return iter(tuple(self._by_question.get(question, ())))
