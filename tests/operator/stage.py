"""A stage for the operator: nodes without kubelets, their hardware, builders of objects, and a look at them.

Nodes are plain Node objects whose Leases a task renews, so that kube-scheduler binds to them; what is bound
there never runs, which a test of placement does not need.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration

from tailwise.api.hardware import MeasuredSpeed, NodeHardware
from tailwise.api.labels import PLACEMENT_GATE, WORKLOAD_LABEL
from tailwise.cluster import apply
from tailwise.cluster.client import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    INFERENCE_WORKLOADS,
    LEASES,
    NODES,
    PODS,
    ApiError,
    Client,
    ContentType,
    Resource,
)
from tailwise.cluster.hardware import config_map
from tailwise.controllers.registry import Registry
from tailwise.controllers.view import ClusterView, cluster_view
from tailwise.domain.objects import Pod
from tailwise.domain.parse import node_from_object, pod_from_object

_HEARTBEAT_SECONDS = 10.0
NODE_LEASES = "kube-node-lease"


# ---- nodes


@dataclass(frozen=True, slots=True)
class NodeShape:
    """A node: what it offers, how fast its cores are, and whether an agent has described it."""

    name: str
    cores: int = 4
    gflops_per_core: float = 50.0
    agent: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()

    @property
    def hardware(self) -> NodeHardware:
        """What its agent would have measured."""
        speed = MeasuredSpeed(
            gflops_per_core=self.gflops_per_core,
            copy_gigabytes_per_second_per_core=self.gflops_per_core / 5,
        )
        return NodeHardware(
            node=self.name,
            cores=self.cores,
            cpu_model=f"test at {self.gflops_per_core:g} GFLOP/s",
            architecture="x86_64",
            measured=speed,
            measured_at=datetime(2026, 1, 1, tzinfo=UTC),
        )


def node_manifest(shape: NodeShape) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": shape.name,
            "labels": {"kubernetes.io/hostname": shape.name, "kubernetes.io/os": "linux", **shape.labels},
        },
        "spec": {"taints": list(shape.taints)},
    }


def node_status(shape: NodeShape) -> dict[str, Any]:
    offered = {"cpu": str(shape.cores), "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "as far as a test goes",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    return {"status": {"capacity": offered, "allocatable": offered, "conditions": [ready]}}


@contextlib.asynccontextmanager
async def nodes(client: Client, shapes: Iterable[NodeShape], agents_in: str) -> AsyncIterator[None]:
    """Nodes that are Ready for as long as the block lasts; their hardware is in namespace ``agents_in``."""
    shapes = tuple(shapes)
    for shape in shapes:
        await apply.delete(client, NODES, None, shape.name)  # of a session that was killed
        made = await apply.create(client, NODES, node_manifest(shape))
        assert made.done, made.message
        path = NODES.path(None, shape.name, "status")
        await client.request("PATCH", path, body=node_status(shape), content_type=ContentType.MERGE_PATCH)
        if shape.agent:
            await apply.create(client, CONFIG_MAPS, config_map(shape.hardware, agents_in))
    beating = asyncio.create_task(_heartbeats(client, shapes))
    try:
        await until(lambda: _untainted(client, shapes), "nodes without the not-ready taint")
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        for shape in shapes:
            await apply.delete(client, NODES, None, shape.name)
            await apply.delete(client, LEASES, NODE_LEASES, shape.name)


async def _heartbeats(client: Client, shapes: tuple[NodeShape, ...]) -> None:
    """As a kubelet: the Lease and the status again and again, for a test that lets nothing else run for a
    minute leaves nodes NotReady that a Lease alone does not bring back.
    """
    while True:
        for shape in shapes:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            lease = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": shape.name, "namespace": NODE_LEASES},
                "spec": {"holderIdentity": shape.name, "leaseDurationSeconds": 40, "renewTime": now},
            }
            path = NODES.path(None, shape.name, "status")
            try:
                await apply.apply(client, LEASES, lease, force=True)
                await client.request(
                    "PATCH", path, body=node_status(shape), content_type=ContentType.MERGE_PATCH
                )
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                print(f"heartbeat of {shape.name}: {error!r}; trying again")
        await asyncio.sleep(_HEARTBEAT_SECONDS)


async def _untainted(client: Client, shapes: tuple[NodeShape, ...]) -> bool:
    for shape in shapes:
        node = await client.request("GET", NODES.path(None, shape.name))
        keys = {taint["key"] for taint in node["spec"].get("taints") or ()}
        if any(key.startswith("node.kubernetes.io/") for key in keys):
            return False
    return True


@contextlib.asynccontextmanager
async def memory_view(shapes: Iterable[NodeShape]) -> AsyncIterator[ClusterView]:
    """A view of these nodes and their hardware, as if told by the API server; nothing is sent or watched."""
    client = Client(ApiClient(Configuration()))
    view = cluster_view(client, "agents", Registry())
    for number, shape in enumerate(shapes):
        view.state.put_node(node_from_object({**node_manifest(shape), **node_status(shape)}))
        if not shape.agent:
            continue
        described = config_map(shape.hardware, "agents")
        described["metadata"] |= {"uid": f"u{number}", "resourceVersion": "1"}
        view.hardware._put(described)
    try:
        yield view
    finally:
        await client.close()


def memory_pod(name: str, workload_name: str) -> Pod:
    """A gated pod as the API server would tell of it."""
    manifest = gated_pod("default", name, workload_name)
    manifest["metadata"] |= {"uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return pod_from_object(manifest)


# ---- objects


def pod_spec(*, cpu: str = "100m", limit: str | None = None, **more: Any) -> dict[str, Any]:
    resources: dict[str, Any] = {"requests": {"cpu": cpu, "memory": "16Mi"}}
    if limit:
        resources["limits"] = {"cpu": limit}
    container = {"name": "server", "image": "registry.invalid/server:1", "resources": resources}
    return {"containers": [container], "terminationGracePeriodSeconds": 0, **more}


def workload(
    namespace: str,
    name: str,
    url: str,
    *,
    slo_milliseconds: int = 60_000,
    replicas: int | None = None,
    spec: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    timeout_seconds: int = 60,
    fallback: str = "DefaultScheduler",
    **model: Any,
) -> dict[str, Any]:
    """An InferenceWorkload; with ``replicas`` it has a template."""
    body: dict[str, Any] = {
        "model": {"url": url, **model},
        "slo": {"latencyMilliseconds": slo_milliseconds},
        "placement": {"timeoutSeconds": timeout_seconds, "fallback": fallback},
    }
    if replicas is not None:
        body |= {
            "replicas": replicas,
            "template": {"metadata": {"labels": dict(labels or {})}, "spec": dict(spec or pod_spec())},
        }
    return {
        "apiVersion": INFERENCE_WORKLOADS.api_version,
        "kind": INFERENCE_WORKLOADS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": body,
    }


def labelled_deployment(namespace: str, name: str, workload_name: str, replicas: int) -> dict[str, Any]:
    """A user's own Deployment whose pods carry the label and the gate."""
    labels = {"app": name, WORKLOAD_LABEL: workload_name}
    spec = pod_spec(schedulingGates=[{"name": PLACEMENT_GATE}])
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def gated_pod(namespace: str, name: str, workload_name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {WORKLOAD_LABEL: workload_name, **labels},
        },
        "spec": pod_spec(schedulingGates=[{"name": PLACEMENT_GATE}]),
    }


# ---- looking


async def until(true: Callable[[], Awaitable[Any]], what: str, seconds: float = 60) -> Any:
    """Ask until the answer is true, and return it."""
    last: Any = None
    try:
        async with asyncio.timeout(seconds):
            while not (last := await true()):  # noqa: ASYNC110 - the API server tells no event of ours
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"waited {seconds:.0f} s in vain for {what}; last: {last}") from None
    return last


@dataclass(frozen=True, slots=True)
class Look:
    """What the API server holds in one namespace."""

    client: Client
    namespace: str

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        made = await apply.create(self.client, resource, manifest)
        assert made.done, made.message
        return made.object

    async def pods(self) -> list[dict[str, Any]]:
        listed = await self.client.request("GET", PODS.path(self.namespace))
        return [pod for pod in listed["items"] if "deletionTimestamp" not in pod["metadata"]]

    async def bound_pods(self, count: int) -> list[dict[str, Any]]:
        """All pods once ``count`` of them have a node, else nothing."""
        listed = await self.pods()
        bound = [pod for pod in listed if pod["spec"].get("nodeName")]
        return bound if len(bound) == count else []

    async def nobody_elses_pods(self) -> None:
        """Wait until no pod of earlier tests stands on a node: its load would count."""

        async def gone() -> bool:
            pods = (await self.client.request("GET", "/api/v1/pods"))["items"]
            return not [
                pod
                for pod in pods
                if pod["metadata"]["namespace"] != self.namespace
                and WORKLOAD_LABEL in pod["metadata"].get("labels", {})
                and "deletionTimestamp" not in pod["metadata"]
            ]

        await until(gone, "the end of earlier tests' pods")

    async def workload(self, name: str) -> dict[str, Any]:
        return await self.client.request("GET", INFERENCE_WORKLOADS.path(self.namespace, name))

    async def condition(self, name: str, kind: str) -> dict[str, Any]:
        status = (await self.workload(name)).get("status", {})
        found = [each for each in status.get("conditions", []) if each["type"] == kind]
        return found[0] if found else {}

    async def all_events(self) -> list[dict[str, Any]]:
        """All events that the operator told."""
        listed = await self.client.request("GET", EVENTS.path(self.namespace))
        return [
            event for event in listed["items"] if event.get("reportingController", "").startswith("tailwise")
        ]

    async def events(self, reason: str, about: str | None = None) -> list[dict[str, Any]]:
        return [
            event
            for event in await self.all_events()
            if event["reason"] == reason and about in (None, event["regarding"]["name"])
        ]

    async def told_of(self, reason: str, about: str) -> list[dict[str, Any]]:
        """The events of a reason about an object, once there are any."""

        async def there() -> list[dict[str, Any]]:
            return await self.events(reason, about)

        found: list[dict[str, Any]] = await until(there, f"the event {reason} about {about}")
        return found


def gated(pod: Mapping[str, Any]) -> bool:
    return bool(pod["spec"].get("schedulingGates"))
