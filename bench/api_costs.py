"""What single writes cost the API server: where the time goes that a placement adds to a pod's way.

    python -m bench api-costs [--nodes 100] [--writes 300] [--rounds 3]

Each kind of write is sent so many times, eight at once, and the API server's CPU time is divided by their
number; medians over rounds in turning order. Pods name a scheduler that does not exist, so that nobody
answers them; what watchers cost (kube-scheduler, controller-manager, kwok) is part of each figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine, placement_stage
from bench.placement_stage import Maker, Stage
from tailwise.api.inference_workload_status import PlacementResult, PredictionSource
from tailwise.api.labels import PLACEMENT_GATE
from tailwise.cluster import apply, events
from tailwise.cluster.client import EVENTS, PODS, Client, ContentType, connect
from tailwise.cluster.events import Recorder, Regarding
from tailwise.domain.parse import pod_from_object
from tailwise.domain.placement import require_node
from tailwise.domain.record import PlacementRecord
from tests.cluster import simulated

_AT_ONCE = 8
_NOBODY = "nobody"
_RECORD = PlacementRecord(
    PlacementResult.PLACED,
    datetime(2026, 1, 1, tzinfo=UTC),
    "no-such-node",
    predicted_p50_milliseconds=18,
    predicted_p90_milliseconds=20,
    bound_milliseconds=22,
    source=PredictionSource.PRIOR,
)

Pod = dict[str, Any]
Write = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one write, in milliseconds: of the API server, and of the client that sends it."""

    write: str
    api_server_milliseconds: float
    client_milliseconds: float


@dataclass(frozen=True, slots=True)
class _Trial:
    client: Client
    api_server: int
    namespace: str
    writes: int

    async def cost(self, write: str, sends: Sequence[Write]) -> Cost:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(send: Write) -> None:
            async with slots:
                await send()

        before, own = machine.cpu_seconds(self.api_server), time.process_time()
        await asyncio.gather(*(one(send) for send in sends))
        own = time.process_time() - own
        await asyncio.sleep(0.5)  # watchers are still told of the last
        spent = machine.cpu_seconds(self.api_server) - before
        return Cost(write, spent / len(sends) * 1000, own / len(sends) * 1000)

    def create(self, pod: Pod) -> Write:
        return lambda: apply.create(self.client, PODS, pod)

    async def pods(self, kind: str, maker: Maker | None, *, gated: bool) -> list[Pod]:
        """So many pods of a kind."""
        manifests = []
        for number in range(self.writes):
            manifest = placement_stage.pod(self.namespace, f"{kind}-{number}", maker)
            manifest["spec"]["schedulerName"] = _NOBODY
            if gated:
                manifest["spec"]["schedulingGates"] = [{"name": PLACEMENT_GATE}]
            manifests.append(manifest)
        return manifests

    async def made(self, kind: str, maker: Maker) -> list[Pod]:
        """So many gated pods, as the API server has them."""
        written = [
            await apply.create(self.client, PODS, pod) for pod in await self.pods(kind, maker, gated=True)
        ]
        return [dict(each.object) for each in written]


def measure(
    nodes: int, writes: int, rounds: int, cluster: str, keep: bool, write: Callable[[str], object]
) -> list[Cost]:
    """Measure on the cluster of this name."""
    with placement_stage.alone(cluster):
        try:
            stage = placement_stage.bring_up(cluster, nodes)
            found: dict[str, list[Cost]] = {}
            for number in range(rounds):
                for cost in asyncio.run(_round(stage, writes, number)):
                    found.setdefault(cost.write, []).append(cost)
        finally:
            if not keep:
                simulated.down(cluster)
    costs = [
        Cost(
            name,
            median(each.api_server_milliseconds for each in several),
            median(each.client_milliseconds for each in several),
        )
        for name, several in found.items()
    ]
    for cost in costs:
        write(
            f"{cost.write:45s} {cost.api_server_milliseconds:6.2f} ms API server, "
            f"{cost.client_milliseconds:6.2f} ms client"
        )
    return costs


async def _round(stage: Stage, writes: int, number: int) -> list[Cost]:
    kubeconfig = str(placement_stage.operator_kubeconfig(stage))
    client = await connect(kubeconfig=kubeconfig, connections=_AT_ONCE)
    namespace = f"bench-costs-{number}-{int(time.time())}"
    try:
        with placement_stage.namespace(stage, namespace):
            placement_stage.await_gate(stage, namespace)
            maker = Maker(placement_stage.replica_set(stage, namespace, "mine"))
            labelled = Maker(maker.owner, "nobody-yet")
            trial = _Trial(client, stage.parts["kube-apiserver"], namespace, writes)
            kinds = [_creation(trial, maker, labelled), _patches(trial, maker), _events(trial)]
            found = []
            for kind in kinds if number % 2 == 0 else kinds[::-1]:
                found += await kind
            return found
    finally:
        await client.close()


async def _creation(trial: _Trial, maker: Maker, labelled: Maker) -> list[Cost]:
    plain = [trial.create(pod) for pod in await trial.pods("plain", maker, gated=False)]
    by_policy = [trial.create(pod) for pod in await trial.pods("labelled", labelled, gated=False)]
    return [
        await trial.cost("create a pod", plain),
        await trial.cost("create a pod that the policy gates", by_policy),
    ]


async def _patches(trial: _Trial, maker: Maker) -> list[Cost]:
    def path(pod: Pod) -> str:
        return PODS.path(trial.namespace, pod["metadata"]["name"])

    def operations(pod: Pod) -> list[dict[str, Any]]:
        return require_node(pod_from_object(pod), _RECORD.node, _RECORD)

    def whole(pod: Pod) -> Write:
        return lambda: trial.client.request(
            "PATCH", path(pod), body=operations(pod), content_type=ContentType.JSON_PATCH
        )

    def metadata_alone(pod: Pod) -> Write:
        name = pod["metadata"]["name"]
        return lambda: apply.patch_json(trial.client, PODS, trial.namespace, name, operations(pod))

    def merge(pod: Pod) -> Write:
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "spec": _patched_spec(pod)}
        return lambda: trial.client.request(
            "PATCH", path(pod), body=patch, content_type=ContentType.MERGE_PATCH, read_answer=False
        )

    kinds = (
        ("place by JSON patch, answered with the pod", whole),
        ("place by JSON patch, answered with metadata", metadata_alone),
        ("place by merge patch, answered with metadata", merge),
    )
    found = []
    for number, (name, send) in enumerate(kinds):
        pods = await trial.made(f"patched-{number}", maker)
        found.append(await trial.cost(name, [send(pod) for pod in pods]))
    return found


def _patched_spec(pod: Pod) -> Pod:
    """What a merge patch must send whole: the affinity with the node in each term."""
    affinity: Pod = json.loads(json.dumps(pod["spec"]["affinity"]))
    required = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    by_name = {"key": "metadata.name", "operator": "In", "values": [_RECORD.node]}
    for term in required["nodeSelectorTerms"]:
        term["matchFields"] = [by_name]
    return {"affinity": affinity, "schedulingGates": None}


async def _events(trial: _Trial) -> list[Cost]:
    recorder = Recorder(trial.client, "bench")
    about = Regarding.of(PODS, trial.namespace, "workload", "uid")

    def tell(number: int) -> Write:
        pod = Regarding.of(PODS, trial.namespace, f"pod-{number}", f"uid-{number}")
        manifest = recorder.manifest(
            events.placed(pod, "node-1: predicted P90 20 ms", about), trial.namespace
        )
        return lambda: apply.create(trial.client, EVENTS, manifest, read_answer=False)

    return [await trial.cost("create an event", [tell(number) for number in range(trial.writes)])]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench api-costs``."""
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--writes", type=int, default=300, help="of each kind in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--report", type=Path, metavar="PAGE", help="put the figures into this page's JSON")
    parser.add_argument("--cluster", default="bench", metavar="NAME", help="whose nodes become these")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up for the next run")
