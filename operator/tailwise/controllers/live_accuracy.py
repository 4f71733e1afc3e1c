"""Live accuracy: what the serving versions predict, against what pods are then observed to have.

Each pass over the observed latencies reads what is predicted for every placed pod under the load of that
moment. When a whole window of a pod is over, it becomes a sample of the version that answered, and the first
of them the outcome of the pod's placement (``domain.ledger``). Kept in memory; a restart begins anew.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import PlacementResult, PredictionSource
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.latency_model_status import LiveAccuracy
from tailwise.api.profile import ModelProfile
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessment, Assessor
from tailwise.controllers.ledger import DecisionLedger, Happened
from tailwise.controllers.prediction_tables import latency_model_of
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.view import ClusterView
from tailwise.domain.adaptation import WINDOW_SAMPLES, bound_factor
from tailwise.domain.ledger import (
    JUDGED,
    Alternative,
    Entry,
    LiveFacts,
    Outcome,
    Reading,
    Sample,
    best_alternatives,
    is_whole,
    live_facts,
    percent,
    sample_of,
)
from tailwise.domain.objects import Pod
from tailwise.domain.placement import before_placement
from tailwise.telemetry.metrics import OperatorMetrics
from tailwise.telemetry.observed import LatencyObservation

MOST_SAMPLES = 5_000
"""Kept of each version, the newest: spec.drift.windowSamples is 200 by default."""

_MOST_VERSIONS = 4  # of one LatencyModel
_SHOWN_SAMPLES = 200
# A search over all nodes takes up to a millisecond: a workload of a thousand pods is looked at by parts.
_SEARCHES_A_PASS = 8
_JUDGED_PERCENTILE = 90


@dataclass(slots=True)
class _Watched:
    """A pod between two samples: what one version, by one source, predicted for it again and again.

    In an array, three figures a reading: ten thousand pods have a hundred thousand of them.
    """

    version: int = -1
    source: PredictionSource = PredictionSource.STALE
    last_end: datetime | None = None
    _figures: array[float] = field(default_factory=lambda: array("d"))

    def read(self, reading: Reading, oldest: datetime) -> None:
        """Take a reading; those before ``oldest`` go, and those of another version or source."""
        if (reading.version, reading.source) != (self.version, self.source):
            self.version, self.source = reading.version, reading.source
            del self._figures[:]
        while self._figures and self._figures[0] < oldest.timestamp():
            del self._figures[:3]
        self._figures.extend((reading.at.timestamp(), reading.p90_milliseconds, reading.bound_milliseconds))

    def readings(self) -> list[Reading]:
        """All of them, the oldest first."""
        times, p90s, bounds = (self._figures[place::3] for place in range(3))
        return [
            Reading(datetime.fromtimestamp(at, UTC), self.version, p90, bound, self.source)
            for at, p90, bound in zip(times, p90s, bounds, strict=True)
        ]


class LiveAccuracyLedger:
    """Samples by LatencyModel and version, beside the ledger of decisions.

    ``profile`` tells a workload's profile, or anything else while there is none. Everything is immediate and
    belongs in the event loop.
    """

    def __init__(
        self,
        view: ClusterView,
        assessor: Assessor,
        profile: Callable[[KnownWorkload], object],
        metrics: OperatorMetrics,
    ) -> None:
        self.decisions = DecisionLedger(self._told)
        self.sink: Callable[[Happened, Entry], None] | None = None
        self._view = view
        self._assessor = assessor
        self._profile = profile
        self._metrics = metrics
        self._samples: dict[str, dict[int, deque[Sample]]] = {}
        self._watched: dict[str, _Watched] = {}

    # ---- what others ask

    def facts(self, latency_model: str, version: int, newest: int | None = None) -> LiveFacts:
        """How a version of a LatencyModel does: samples, exceedances, MAPE, regret, and since when.

        ``newest``: only so many of the newest samples, as ``spec.drift.windowSamples`` asks;
        ``facts(...).window`` is what ``domain.drift.judge_drift`` takes. A sample is one whole window
        (``spec.metrics.windowSeconds``) of one placed pod, windows of a pod do not overlap, and only answers
        of the version itself count: neither Stale nor OutOfDistribution. At most ``MOST_SAMPLES`` are kept.
        A version that nobody has seen serve has no samples; version 0 of a LatencyModel is the prior, as it
        answered for the workloads of this LatencyModel.
        """
        samples = self._samples.get(latency_model, {}).get(version, ())
        return live_facts(version, tuple(islice(reversed(samples), newest or None)))

    def status(self, latency_model: str, version: int, newest: int | None = None) -> LiveAccuracy | None:
        """The same as ``status.live`` holds it; None without a sample."""
        facts = self.facts(latency_model, version, newest)
        if not facts.window.samples:
            return None
        return LiveAccuracy(
            samples=facts.window.samples,
            exceedances=facts.window.exceedances,
            coverage_percent=percent(facts.window.coverage),
            mape_percent=percent(facts.window.mape),
            since=facts.since,
        )

    # ---- what happens

    def decided(self, pod: Pod, spec: InferenceWorkloadSpec, assessment: Assessment, at: datetime) -> None:
        """A pod was placed by this decision."""
        self.decisions.decided(pod, spec, assessment, at)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow what the watch tells of pods; those that were placed before this process began, too."""
        if old is not None and (new is None or new.deleted_at is not None):
            self.decisions.ended(old.uid)
            self._watched.pop(old.uid, None)
        elif new is not None and _is_placed(new):
            known = self._view.registry.workloads.get(Key(new.namespace, new.workload or ""))
            if known is not None and known.workload is not None:
                self.decisions.restore(new, known.workload.spec)
            self.decisions.stands(new)

    def observed(self, key: Key, observation: LatencyObservation, now: datetime) -> None:
        """Take a pass over one workload: readings of all its pods, samples of those whose window is over."""
        known = self._view.registry.workloads.get(key)
        spec = known.workload.spec if known is not None and known.workload is not None else None
        if known is None or spec is None or spec.metrics is None:
            return
        if spec.slo.percentile != _JUDGED_PERCENTILE:
            return  # what was observed is no P90
        pods = [pod for pod in self._view.pods_of(key) if pod.workload == key.name and _is_placed(pod)]
        window = timedelta(seconds=spec.metrics.window_seconds)
        self._read(pods, spec, now, now - 2 * window)
        searches, newest = _SEARCHES_A_PASS, None
        for pod in pods:
            latency = observation.pods.get(pod.name)
            watched = self._watched.get(pod.uid)
            if latency is None or latency.is_bound or watched is None:
                continue
            end = latency.sampled_at
            outcome = Outcome(latency.milliseconds, latency.requests, end - window, end)
            if not is_whole(outcome, pod.ready_at, watched.last_end):
                continue
            watched.last_end = end
            self.decisions.restore(pod, spec)
            self.decisions.observed(pod.uid, outcome)
            alternative = None
            if searches:
                searches -= 1
                alternative = self._alternative(pod, known, spec, now)
            sample = sample_of(pod.uid, watched.readings(), outcome, alternative)
            if sample is not None:
                self._put(latency_model_of(spec), sample)
                newest = sample
        if newest is not None:  # once, however many pods there are
            self._show(latency_model_of(spec), newest.version)
            self._adapt(latency_model_of(spec))

    # ---- its parts

    def _read(
        self, pods: Iterable[Pod], spec: InferenceWorkloadSpec, now: datetime, oldest: datetime
    ) -> None:
        pods = tuple(pods)
        standing = self._assessor.standing(pods, now, spec.placement.max_data_age_seconds)
        tables, latency_model = self._assessor.tables, latency_model_of(spec)
        version = tables.predictor(latency_model).version
        # A version is judged by the bound that it gave itself.
        own = 1.0 / tables.widened(latency_model)
        for pod in pods:
            here = standing.get(pod.uid)
            if here is None:
                continue
            watched = self._watched.setdefault(pod.uid, _Watched())
            watched.read(
                Reading(now, version, here.p90_milliseconds, own * here.bound_milliseconds, here.source),
                oldest,
            )

    def _alternative(
        self, pod: Pod, known: KnownWorkload, spec: InferenceWorkloadSpec, now: datetime
    ) -> Alternative | None:
        """The best other node by the serving version, under the load of now."""
        profile = self._profile(known)
        if not isinstance(profile, ModelProfile) or not pod.node_name:
            return None
        there = self._assessor.assess(
            before_placement(pod), spec, profile, now, set_aside=frozenset({pod.node_name})
        )
        best = best_alternatives(there.decision, there.predicted, pod.node_name, 1)
        return best[0] if best and best[0].source in JUDGED else None

    def _put(self, latency_model: str, sample: Sample) -> None:
        versions = self._samples.setdefault(latency_model, {})
        versions.setdefault(sample.version, deque(maxlen=MOST_SAMPLES)).append(sample)
        while len(versions) > _MOST_VERSIONS:
            del versions[min(each for each in versions if each != sample.version)]
        self._metrics.live_sample(
            latency_model,
            sample.source.value,
            relative_error=sample.relative_error,
            exceeded=sample.exceeded,
            regret=sample.regret,
        )

    def _show(self, latency_model: str, version: int) -> None:
        window = self.facts(latency_model, version, _SHOWN_SAMPLES).window
        if window.coverage is not None:
            self._metrics.live_accuracy(latency_model, window.coverage, window.mape or 0.0)

    def _adapt(self, latency_model: str) -> None:
        """Widen the bounds of the version that answers, or narrow them again, by what was observed of it."""
        tables = self._assessor.tables
        samples = self._samples.get(latency_model, {}).get(tables.predictor(latency_model).version, ())
        ratios = [
            each.outcome.p90_milliseconds / each.bound_milliseconds
            for each in islice(reversed(samples), WINDOW_SAMPLES)
            if each.source in JUDGED
        ]
        known = self._view.registry.latency_models.get(latency_model)
        spec = known.model.spec if known is not None and known.model is not None else LatencyModelSpec()
        now = tables.widened(latency_model)
        factor = bound_factor(ratios[::-1], spec.calibration.coverage_percent / 100, now)
        if factor != now:
            tables.widen(latency_model, factor)
        # Also where nothing was changed: another version begins with its own bound.
        self._metrics.bound_factor(latency_model, factor)

    def _told(self, what: Happened, entry: Entry) -> None:
        self._metrics.ledger(len(self.decisions))
        if what is Happened.OBSERVED and entry.exceeded is not None:
            self._metrics.placement_outcome(entry.latency_model, entry.exceeded)
        if self.sink is not None:
            self.sink(what, entry)


def _is_placed(pod: Pod) -> bool:
    record = pod.record
    placed = record is not None and record.result is PlacementResult.PLACED
    return placed and not pod.waits and pod.deleted_at is None and bool(pod.occupied_node)
