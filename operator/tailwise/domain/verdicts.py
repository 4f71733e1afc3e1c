"""Why each node was refused, as one small array; words only when somebody asks.

A burst makes thousands of verdicts over thousands of nodes, and almost none of them is ever read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailwise.api.inference_workload_status import MAX_REJECTIONS, CandidateSummary, Rejection

VerdictCodes = NDArray[np.int16]
Bools = NDArray[np.bool_]

FITS: Final = -1

_LONGEST_REASON = 256
_LONGEST_MESSAGE = 1024


class Filter(StrEnum):
    """What refused a node, in the order in which nodes are checked; the words are kube-scheduler's.

    Those of the first group are about the pod wherever it would go, the last five and two of the first are
    Tailwise's own.
    """

    CLAIM = "persistentvolumeclaim"
    EPHEMERAL_CLAIM = "waiting for ephemeral volume controller to create the persistentvolumeclaim"
    CLAIM_OF_ANOTHER = "PVC"
    UNBOUND_CLAIMS = "pod has unbound immediate PersistentVolumeClaims"
    VOLUME = "persistentvolume"
    STORAGE_UNREAD = "claims and volumes have not been read yet"
    CLAIMS_TO_BIND = (
        "pod has unbound PersistentVolumeClaims, which only kube-scheduler binds: use "
        "spec.placement.binding: NodeAffinity"
    )

    NODE_NAME = "node(s) didn't match the requested node name"
    UNSCHEDULABLE = "node(s) were unschedulable"
    TAINT = "node(s) had untolerated taint(s)"
    AFFINITY = "node(s) didn't match Pod's node affinity/selector"
    PORTS = "node(s) didn't have free ports for the requested pod ports"
    TOO_MANY_PODS = "Too many pods"
    RESOURCE = "Insufficient"
    CLAIM_IN_USE = (
        "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use "
        "by another pod"
    )
    VOLUME_AFFINITY = "node(s) didn't match PersistentVolume's node affinity"
    NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
    VOLUME_GONE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
    VOLUME_ZONE = "node(s) had no available volume zone"
    SPREAD_LABEL = "node(s) didn't match pod topology spread constraints (missing required label)"
    SPREAD = "node(s) didn't match pod topology spread constraints"
    POD_AFFINITY = "node(s) didn't match pod affinity rules"
    POD_ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
    EXISTING_ANTI_AFFINITY = "node(s) didn't satisfy existing pods anti-affinity rules"
    SET_ASIDE = "node(s) set aside after a pod of the workload was refused or moved away"
    NO_HARDWARE = "node(s) without hardware data"
    NO_PREDICTION = "node(s) without a prediction"
    SLO = "SLO"
    NEIGHBOURS = "node(s) whose residents would miss their SLO"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A filter and, where it says more than itself, the taint, the resource or the resident."""

    by: Filter
    detail: str = ""

    @property
    def words(self) -> str:
        """As a summary counts it: ``Insufficient cpu``."""
        return f"{self.by} {self.detail}" if self.detail else str(self.by)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A verdict for each node: ``codes`` (nodes,) is FITS or an index into ``refusals``."""

    names: tuple[str, ...]
    codes: VerdictCodes
    refusals: tuple[Refusal, ...]

    @property
    def fits(self) -> Bools:
        """Nodes (nodes,) that nothing refused."""
        fits: Bools = self.codes == FITS
        return fits

    @property
    def feasible(self) -> int:
        """How many nodes fit."""
        return int(np.count_nonzero(self.fits))

    def refuse(self, nodes: Bools, refusal: Refusal) -> Verdicts:
        """The verdicts with these nodes (nodes,) refused too; a node keeps the first refusal it got."""
        refused = nodes & self.fits
        if not refused.any():
            return self
        known = refusal in self.refusals
        refusals = self.refusals if known else (*self.refusals, refusal)
        return Verdicts(
            self.names, np.where(refused, np.int16(refusals.index(refusal)), self.codes), refusals
        )

    def of(self, position: int) -> Refusal | None:
        """Why the node at this position was refused; None where it fits."""
        code = int(self.codes[position])
        return None if code == FITS else self.refusals[code]

    def counts(self) -> list[tuple[Refusal, int]]:
        """Refused nodes by reason, most first; with the nodes that fit they add up to all nodes."""
        numbers = np.bincount(self.codes[~self.fits], minlength=len(self.refusals)).tolist()
        counted = [(each, number) for each, number in zip(self.refusals, numbers, strict=True) if number]
        return sorted(counted, key=lambda pair: (-pair[1], pair[0].words))

    def summary(self) -> str:
        """One sentence, at most 1,024 characters: ``0/12 nodes fit: 7 Insufficient cpu, 5 SLO``."""
        return _sentence(self.feasible, len(self.names), _rejections(self))


def all_fit(names: tuple[str, ...]) -> Verdicts:
    """Verdicts before anything was checked."""
    return Verdicts(names, np.full(len(names), FITS, dtype=np.int16), ())


def candidate_summary(verdicts: Verdicts) -> CandidateSummary:
    """The verdicts as status.candidates holds them."""
    nodes, feasible, rejections = len(verdicts.names), verdicts.feasible, tuple(_rejections(verdicts))
    return CandidateSummary(
        nodes=nodes,
        feasible=feasible,
        rejections=rejections,
        message=_sentence(feasible, nodes, rejections),
    )


def _sentence(feasible: int, nodes: int, rejections: Iterable[Rejection]) -> str:
    text = f"{feasible}/{nodes} nodes fit"
    if parts := ", ".join(f"{each.nodes} {each.reason}" for each in rejections):
        text = f"{text}: {parts}"
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def _rejections(verdicts: Verdicts) -> Iterator[Rejection]:
    """At most as many as status holds; the rest counts under one name, so that the sum stays right."""
    counted: dict[str, int] = {}
    for refusal, number in verdicts.counts():
        words = refusal.words
        if len(words) > _LONGEST_REASON:
            words = words[: _LONGEST_REASON - 1] + "…"
        counted[words] = counted.get(words, 0) + number
    shown = len(counted) if len(counted) <= MAX_REJECTIONS else MAX_REJECTIONS - 1
    for words, number in islice(counted.items(), shown):
        yield Rejection(reason=words, nodes=number)
    if rest := sum(islice(counted.values(), shown, None)):
        yield Rejection(reason="other reasons", nodes=rest)
