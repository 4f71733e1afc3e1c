"""The ledger of decisions: each placement, what was promised for it, and what came of it. Bounded, in memory.

Nothing of it is needed to place: what runs is read back from the pods' annotations after a restart, what is
gone is forgotten, unless a sink was told of it (``decision_sink``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import PlacementResult
from tailwise.controllers.assessment import Assessment
from tailwise.controllers.prediction_tables import latency_model_of
from tailwise.domain.ledger import Entry, Outcome, best_alternatives
from tailwise.domain.objects import Pod

MOST_ENTRIES = 10_000
"""About a kilobyte each. The oldest of the pods that are gone are forgotten first."""


class Happened(StrEnum):
    """What an entry is told for."""

    DECIDED = "Decided"
    OBSERVED = "Observed"
    ENDED = "Ended"


Told = Callable[[Happened, Entry], None]


@dataclass(slots=True)
class DecisionLedger:
    """Entries by the pod's uid. ``told`` hears of each that is made here, and of what comes of it."""

    told: Told = lambda _what, _entry: None
    most: int = MOST_ENTRIES
    _standing: OrderedDict[str, Entry] = field(default_factory=OrderedDict)
    _gone: OrderedDict[str, Entry] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._standing) + len(self._gone)

    def decided(self, pod: Pod, spec: InferenceWorkloadSpec, assessment: Assessment, at: datetime) -> None:
        """A pod was placed by this decision."""
        best = assessment.decision.best
        if best is None or assessment.decision.node is None:
            return
        entry = Entry(
            uid=pod.uid,
            namespace=pod.namespace,
            pod=pod.name,
            workload=pod.workload or "",
            node=best.node,
            decided_at=at,
            latency_model=latency_model_of(spec),
            version=best.version,
            source=best.source,
            predicted_p90_milliseconds=best.p90_milliseconds,
            bound_milliseconds=best.bound_milliseconds,
            slo_milliseconds=spec.slo.latency_milliseconds,
            alternatives=best_alternatives(assessment.decision, assessment.predicted, best.node),
        )
        self._put(entry)
        self.told(Happened.DECIDED, entry)

    def restore(self, pod: Pod, spec: InferenceWorkloadSpec) -> None:
        """Read a placement back from the pod's annotations, unless it is known better."""
        record = pod.record
        if record is None or record.result is not PlacementResult.PLACED or pod.uid in self._standing:
            return
        p90, bound = record.predicted_p90_milliseconds, record.bound_milliseconds
        if pod.node_name and pod.node_name != record.node:
            p90 = bound = None  # kube-scheduler chose another of the feasible nodes: nothing is told of it
        self._put(
            Entry(
                uid=pod.uid,
                namespace=pod.namespace,
                pod=pod.name,
                workload=pod.workload or "",
                node=pod.node_name or record.node,
                decided_at=record.decided_at or pod.created_at,
                latency_model=latency_model_of(spec),
                version=record.latency_model_version or 0,
                source=record.source,
                predicted_p90_milliseconds=None if p90 is None else float(p90),
                bound_milliseconds=None if bound is None else float(bound),
                slo_milliseconds=spec.slo.latency_milliseconds,
                is_restored=True,
            )
        )

    def stands(self, pod: Pod) -> None:
        """A pod is on its node; of several feasible ones kube-scheduler may have chosen another."""
        entry = self._standing.get(pod.uid)
        if entry is not None and pod.node_name and entry.node != pod.node_name:
            chosen = next((each for each in entry.alternatives if each.node == pod.node_name), None)
            self._standing[pod.uid] = replace(
                entry,
                node=pod.node_name,
                predicted_p90_milliseconds=chosen.p90_milliseconds if chosen else None,
                bound_milliseconds=chosen.bound_milliseconds if chosen else None,
                source=chosen.source if chosen else entry.source,
                alternatives=tuple(each for each in entry.alternatives if each is not chosen),
            )

    def observed(self, uid: str, outcome: Outcome) -> None:
        """The first whole window of a placed pod; later ones change nothing."""
        entry = self._standing.get(uid)
        if entry is not None and entry.outcome is None:
            known = self._standing[uid] = replace(entry, outcome=outcome)
            self.told(Happened.OBSERVED, known)

    def ended(self, uid: str, at: datetime | None = None) -> None:
        """A pod is gone."""
        entry = self._standing.pop(uid, None)
        if entry is not None:
            known = self._gone[uid] = replace(entry, ended_at=at or datetime.now(UTC))
            self.told(Happened.ENDED, known)

    def get(self, uid: str) -> Entry | None:
        """The entry of a pod, gone or not."""
        return self._standing.get(uid) or self._gone.get(uid)

    def entries(self) -> Iterator[Entry]:
        """All entries, those that are gone first; a copy, so that it may be walked through at leisure."""
        return iter(tuple(chain(self._gone.values(), self._standing.values())))

    def of_workload(self, namespace: str, workload: str) -> Sequence[Entry]:
        """Entries of one workload."""
        return [each for each in self.entries() if (each.namespace, each.workload) == (namespace, workload)]

    def _put(self, entry: Entry) -> None:
        self._standing[entry.uid] = entry
        while len(self) > self.most:
            (self._gone or self._standing).popitem(last=False)
