"""Whose past is read from Prometheus: pods by the names they had, each within its own time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tailwise.api.profile import ModelProfile
from tailwise.api.serving_metrics import ServingMetrics
from tailwise.prediction.prediction import Serving
from tailwise.telemetry.join import DatasetJoin, JoinedPod
from tailwise.telemetry.ranges import Span

PODS_A_QUERY = 200


@dataclass(frozen=True, slots=True)
class Served:
    """Pods of a workload whose past is wanted.

    ``pods_pattern`` matches the names its pods had, also of those that are gone. ``pods`` tells who had those
    names when and where; without it a name is one pod, on the node that cAdvisor's series tell. ``container``
    is the server's, whose limit and throttling count; None: those of all containers. ``serving`` is how it
    was asked to serve: its rate says whether queries arrived of themselves; what was observed replaces it.
    """

    namespace: str
    workload: str
    pods_pattern: str
    metrics: ServingMetrics
    profile: ModelProfile
    serving: Serving
    family: str = ""
    container: str | None = None
    pods: tuple[JoinedPod, ...] = ()
    # The one of the server's models that counts; None: all.
    model_name: str | None = None

    @property
    def name(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.workload}"


def served_of(join: DatasetJoin) -> list[Served]:
    """What a join document asks for, in pieces of at most ``PODS_A_QUERY`` pods."""
    found = []
    for each in join.served:
        profile = join.profiles[each.profile]
        whole = Served(
            each.namespace,
            each.workload,
            each.pods_pattern or "",
            each.metrics,
            profile,
            each.serving.serving(profile.batch_size),
            each.family,
            each.container,
            model_name=each.model_name,
        )
        if each.pods_pattern is not None:
            found.append(whole)
        for first in range(0, len(each.pods), PODS_A_QUERY):
            pods = each.pods[first : first + PODS_A_QUERY]
            names = sorted({pod.name for pod in pods})
            found.append(replace(whole, pods=pods, pods_pattern="|".join(map(_escaped, names))))
    return found


def life_of(each: Served, span: Span) -> Span | None:
    """The windows of a span in which any of the pods stood; None where there are none."""
    if not each.pods:
        return span
    born = [pod.since for pod in each.pods if pod.since is not None]
    gone = [pod.until for pod in each.pods if pod.until is not None]
    begin, end = span.begin, span.end
    if len(born) == len(each.pods):
        first = math.ceil((min(born) + span.step - span.begin) / span.step)
        begin = span.begin + max(0, first) * span.step
    if len(gone) == len(each.pods):
        last = math.floor((max(gone) - span.begin) / span.step)
        end = min(end, span.begin + last * span.step)
    return Span(begin, end, span.step) if begin <= end else None


def who_was(pods: Mapping[str, Sequence[JoinedPod]], pod: str, begin: float, end: float) -> JoinedPod | None:
    """Whose window it is; None where the pod of this name did not stand for all of it."""
    if not pods:
        return JoinedPod(name=pod)
    return next((known for known in pods.get(pod, ()) if known.lived(begin, end)), None)


def _escaped(name: str) -> str:
    # Names of pods are lower-case letters, digits, hyphens and dots: only the dot is special.
    return name.replace(".", "[.]")
