"""Measures the windows of the plan, and says how far it is."""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.dataset import journal
from bench.dataset.cluster import Stage, ask
from bench.dataset.journal import Measured
from bench.dataset.plan import MeasuredNode, Segment, Stretch, Window
from tailwise.api.profile import ModelProfile
from tailwise.prediction.capacity import pod_share
from tailwise.prediction.coefficients import coefficients
from tailwise.prediction.prediction import Serving
from tailwise.prediction.prior import served_cost
from tailwise.prediction.quota import sustained_cores
from tests.cluster import cgroups

_SETTLE_SECONDS = 0.6
_BASELINE_SECONDS = 1.2
_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Length:
    """How long a window lasts: so many seconds and queries at least, never more than ``most_seconds``.

    ``arrivals``: of Server, whose P90 needs more queries, for they come in heaps.
    """

    seconds: float = 4.0
    most_seconds: float = 10.0
    queries: int = 40
    arrivals: int = 100


@dataclass(slots=True)
class Progress:
    """Told of each window: how many of how many, and how long the rest takes."""

    total: int
    write: Callable[[str], None]
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def measured(self, measured: Measured) -> None:
        """One window more."""
        with self.lock:
            self.done += 1
            each = (time.monotonic() - self.began) / self.done
            left = each * (self.total - self.done)
            ordered = sorted(measured.latencies_milliseconds)
            p90 = ordered[max(0, math.ceil(0.9 * len(ordered)) - 1)] if ordered else math.nan
            window = measured.window
            limit = f"{window.limit.millicores}m" if window.limit.millicores else "none"
            self.write(
                f"{self.done}/{self.total} ETA {left / 60:.0f} min  {window.node:7s} load {window.load:.2f} "
                f"({measured.cpu_utilisation:.2f})  {window.model:19s} limit {limit:>5s} "
                f"threads {window.limit.threads} {'Server' if measured.requests_per_second else 'Single'}  "
                f"{len(ordered):4d} queries  P90 {p90:8.1f} ms"
            )


def measure(
    stage: Stage,
    plan: Sequence[Stretch],
    profiles: dict[str, ModelProfile],
    path: Path,
    seconds: float | None,
    write: Callable[[str], None],
    length: Length = Length(),
) -> bool:
    """Measure what the journal has not; returns whether all of the plan is measured.

    ``seconds``: begin no window after so many. Neighbours rest and limits are lifted at the end.
    """
    known = {window["key"] for window in journal.read(path)}
    todo = [_without(stretch, known) for stretch in plan]
    progress = Progress(sum(len(s.windows) for each in todo for s in each.segments), write)
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    runner = _Runner(stage, profiles, path, deadline, progress, length)
    with ThreadPoolExecutor(max(len(stretch.segments) for stretch in plan)) as pool:
        for stretch in todo:
            list(pool.map(runner.segment, stretch.segments))
            if time.monotonic() > deadline:
                return False
    return True


def _without(stretch: Stretch, known: set[str]) -> Stretch:
    segments = (
        Segment(s.node, s.load, tuple(w for w in s.windows if w.key not in known)) for s in stretch.segments
    )
    return Stretch(tuple(segment for segment in segments if segment.windows))


@dataclass(slots=True)
class _Runner:
    stage: Stage
    profiles: dict[str, ModelProfile]
    path: Path
    deadline: float
    progress: Progress
    length: Length
    lock: threading.Lock = field(default_factory=threading.Lock)

    def segment(self, segment: Segment) -> None:
        """Set the neighbour, see what it uses, then one window after another."""
        name = segment.node.name
        if time.monotonic() > self.deadline:
            return
        self._neighbour(segment.node, segment.load)
        try:
            utilisation = self._baseline(segment.node)
            for window in segment.windows:
                if time.monotonic() > self.deadline:
                    return
                measured = self._window(segment.node, window, utilisation)
                with self.lock:
                    journal.append(self.path, self.stage.hardware[name], measured)
                self.progress.measured(measured)
        finally:
            self._neighbour(segment.node, 0.0)

    def _neighbour(self, node: MeasuredNode, share: float) -> None:
        ask(self.stage.neighbours[node.name], {"share": share, "cores": node.cores}, 20.0)

    def _baseline(self, node: MeasuredNode) -> float:
        """Share of the node's capacity in use before a pod is asked anything."""
        time.sleep(_SETTLE_SECONDS)
        group = self.stage.node_groups[node.name]
        began, before = time.monotonic(), cgroups.cpu_seconds(group)
        time.sleep(_BASELINE_SECONDS)
        used = cgroups.cpu_seconds(group) - before
        cores = used / (time.monotonic() - began)
        return cores / self.stage.hardware[node.name].capacity_cores

    def _window(self, node: MeasuredNode, window: Window, utilisation: float) -> Measured:
        server = self.stage.servers[window.node, window.model, window.limit.threads]
        server.group.limit(window.limit.millicores)
        rate = self._rate(node, window, utilisation)
        plan = {
            "url": server.url,
            "model": window.model,
            "warm_up": _WARM_UP,
            "seed": zlib.crc32(window.key.encode()),
            "requests_per_second": rate,
            "queries": self.length.queries if rate is None else self._arrivals(rate),
            "seconds": self.length.seconds,
            "most_seconds": self.length.most_seconds,
        }
        group = self.stage.node_groups[window.node]
        node_before, pod_before = cgroups.cpu_seconds(group), server.group.usage()
        answer = ask(self.stage.clients[window.node], plan, 120.0)
        pod, node_used = server.group.usage().since(pod_before), cgroups.cpu_seconds(group) - node_before
        server.group.limit(None)
        if answer["failures"]:
            raise RuntimeError(f"{window.key}: {answer['failures'][0]}")
        return Measured(
            window=window,
            ended=answer["began"] + answer["seconds"],
            seconds=answer["seconds"],
            cpu_utilisation=utilisation,
            requests_per_second=rate,
            latencies_milliseconds=tuple(answer["latencies"]),
            request_millicores=node.request_millicores,
            pod=server.pod,
            pod_cpu_seconds=pod.cpu_seconds,
            node_cpu_seconds=node_used,
            periods=pod.periods,
            throttled_periods=pod.throttled_periods,
        )

    def _arrivals(self, rate: float) -> int:
        return max(self.length.arrivals, round(rate * self.length.seconds))

    def _rate(self, node: MeasuredNode, window: Window, utilisation: float) -> float | None:
        """Arrivals a second: a share of what the prior thinks the pod can serve; None for SingleStream.

        A rate at which too few queries come in the longest window becomes SingleStream.
        """
        if window.rate_share is None:
            return None
        hardware = self.stage.hardware[window.node]
        serving = Serving(
            window.limit.millicores,
            threads=window.limit.threads,
            cpu_request_millicores=node.request_millicores,
            overhead_milliseconds=journal.SERVER_OVERHEAD_MILLISECONDS,
        )
        cost = served_cost(self.profiles[window.model], hardware, serving, coefficients())
        share = pod_share(hardware, serving, np.array([min(1.0, utilisation)]))
        queries_per_second = 1000 * float(sustained_cores(share.rate_cores, share.quotas)[0]) / cost.burnt
        rate = round(window.rate_share * queries_per_second, 3)
        return rate if rate * self.length.most_seconds >= self.length.arrivals else None
