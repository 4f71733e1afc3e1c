"""A cluster in memory that serves one workload, with its decisions and what becomes of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessment, Assessor
from tailwise.controllers.live_accuracy import LiveAccuracyLedger
from tailwise.controllers.registry import KnownWorkload, workload_from_object
from tailwise.controllers.serving import serving_of
from tailwise.controllers.view import ClusterView
from tailwise.domain.objects import Pod
from tailwise.domain.placement import placement_annotations, record_of
from tailwise.prediction.predictor import PriorPredictor
from tailwise.telemetry.metrics import OperatorMetrics
from tailwise.telemetry.observed import Latency, LatencyObservation
from tailwise.telemetry.queries import CpuUnit
from tailwise.telemetry.utilisation import NodeUtilisation, Reading, Utilisation
from tests.operator.stage import NodeShape, gated_pod, memory_view, workload
from tests.unit.prediction.builders import profile

WINDOW_SECONDS = 60
SHAPES = (
    NodeShape("fast", cores=8, gflops_per_core=100.0),
    NodeShape("middle", cores=8, gflops_per_core=50.0),
    NodeShape("slow", cores=8, gflops_per_core=12.5),
)
MODEL = profile()
LOADED = 0.1


@dataclass(slots=True)
class LiveStage:
    """The workload ``default/iris``; pods are placed by real decisions, on a clock that the test moves."""

    view: ClusterView
    assessor: Assessor
    accuracy: LiveAccuracyLedger
    metrics: OperatorMetrics
    now: datetime
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def known(self) -> KnownWorkload:
        return self.view.registry.workloads[Key("default", "iris")]

    @property
    def spec(self) -> InferenceWorkloadSpec:
        assert self.known.workload is not None
        return self.known.workload.spec

    def sample_nodes(self, loads: Mapping[str, float] | None = None) -> None:
        """Fresh utilisation of all nodes."""
        used = {shape.name: LOADED for shape in SHAPES} | dict(loads or {})
        nodes = {name: NodeUtilisation(cpu=Reading(share, self.now)) for name, share in used.items()}
        self.assessor.sampled(Utilisation(CpuUnit.FRACTION, 60.0, nodes, self.now))

    def put(self, manifest: Mapping[str, Any], **changes: Any) -> Pod:
        """Have the watch tell of a pod."""
        version = self.versions[manifest["metadata"]["name"]] = (
            self.versions.get(manifest["metadata"]["name"], 0) + 1
        )
        told = {**manifest, **changes}
        told["metadata"] = {**told["metadata"], "resourceVersion": str(version)}
        self.view.pods._put(told)
        pod = self.view.pods.get("default", told["metadata"]["name"])
        assert pod is not None
        return pod

    async def decide(self, name: str) -> tuple[dict[str, Any], Pod, Assessment]:
        """A gated pod, and the decision for it."""
        manifest = gated_pod("default", name, "iris")
        manifest["metadata"] |= {"uid": f"uid-{name}", "creationTimestamp": _rfc3339(self.now)}
        pod = self.put(manifest)
        await self.assessor.prepare(MODEL, serving_of(pod, self.spec))
        return manifest, pod, self.assessor.assess(pod, self.spec, MODEL, self.now)

    async def place(self, name: str, *, node: str = "", told: bool = True) -> dict[str, Any]:
        """Decide for a pod and have it run and be ready where it was sent, or on ``node``."""
        manifest, pod, assessment = await self.decide(name)
        best = assessment.decision.best
        assert best is not None
        if told:
            self.accuracy.decided(pod, self.spec, assessment, self.now)
        annotations = placement_annotations(pod, record_of(best, self.now))
        manifest["metadata"]["annotations"] = annotations
        manifest["spec"] = {**manifest["spec"], "nodeName": node or best.node, "schedulingGates": []}
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": _rfc3339(self.now)}
        manifest["status"] = {"phase": "Running", "conditions": [ready]}
        standing = self.put(manifest)
        self.assessor.reside(standing, self.spec, MODEL)
        await self.assessor.prepare_missing()
        return manifest

    def remove(self, manifest: Mapping[str, Any]) -> None:
        """Have the watch tell that a pod is gone."""
        self.view.pods._remove(Key("default", manifest["metadata"]["name"]))

    def observe(
        self, seconds: float, requests: float = 500.0, *, sampled: bool = True, **pods: float
    ) -> None:
        """So much later, the P90 of pods over the last window, in milliseconds."""
        self.now += timedelta(seconds=seconds)
        if sampled:
            self.sample_nodes()
        seen = {name.replace("_", "-"): Latency(p90, requests, self.now) for name, p90 in pods.items()}
        self.accuracy.observed(self.known.key, LatencyObservation(None, seen), self.now)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


def manifest_of(labels: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """The workload, served by KServe, observed over a minute; None leaves a field of its spec out."""
    made = workload("default", "iris", "https://models.invalid/iris.onnx")
    made["metadata"] |= {"uid": "w", "generation": 1, "labels": dict(labels or {})}
    made["spec"] |= {"metrics": {"preset": "KServe", "windowSeconds": WINDOW_SECONDS}}
    made["spec"] = {name: value for name, value in (made["spec"] | changes).items() if value is not None}
    return made


@contextlib.asynccontextmanager
async def live_stage(**changes: Any) -> AsyncIterator[LiveStage]:
    """Three unequal nodes and the workload; nothing is sent or watched."""
    async with memory_view(SHAPES) as view:
        known = workload_from_object(manifest_of(**changes))
        assert known.workload is not None, known.fault
        view.registry.workloads[known.key] = known
        assessor, metrics = Assessor(view, PriorPredictor()), OperatorMetrics()
        accuracy = LiveAccuracyLedger(view, assessor, lambda _: MODEL, metrics)
        view.interests.pod = accuracy.pod_changed
        stage = LiveStage(view, assessor, accuracy, metrics, datetime.now(UTC).replace(microsecond=0))
        stage.sample_nodes()
        yield stage


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
