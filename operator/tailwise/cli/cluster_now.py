"""The cluster as it is now, read once with the user's own rights, and what the operator would make of it.

Everything is decided by the operator's own code: its view of nodes and pods, its assessor, its predictions.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tailwise.api.inference_workload import InferenceWorkload
from tailwise.api.labels import WORKLOAD_LABEL
from tailwise.api.profile import ModelProfile
from tailwise.cli.answering import NoAnswerError, add_cluster
from tailwise.cluster.client import (
    INFERENCE_WORKLOADS,
    LATENCY_MODELS,
    ApiError,
    Client,
    context_namespace,
)
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.deployment import deployment_manifest
from tailwise.controllers.live_load import count_standing, take_samples
from tailwise.controllers.registry import (
    KnownWorkload,
    Registry,
    latency_model_from_object,
    workload_from_object,
)
from tailwise.controllers.stored_versions import ServedVersions, serve_all
from tailwise.controllers.view import ClusterView, cluster_view
from tailwise.domain.objects import Pod
from tailwise.domain.parse import pod_from_object
from tailwise.domain.placement import before_placement
from tailwise.prediction.predictor import PriorPredictor
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.queries import cadvisor, node_exporter
from tailwise.telemetry.utilisation import UtilisationPoller

_PRESETS = {"NodeExporter": node_exporter, "CAdvisor": cadvisor}
PROMETHEUS_VARIABLE = "TAILWISE_PROMETHEUS_URL"


def add_options(parser: argparse.ArgumentParser, *, namespaced: bool) -> None:
    """The options by which the cluster and its load are read."""
    cluster = add_cluster(parser)
    if namespaced:
        cluster.add_argument(
            "-n", "--namespace", metavar="NAME", help="the workload's namespace; default: the context's"
        )
    cluster.add_argument(
        "--operator-namespace", default="tailwise-system", metavar="NAME", help="where agents write"
    )
    cluster.add_argument(
        "--prometheus-url",
        metavar="URL",
        default=os.environ.get(PROMETHEUS_VARIABLE) or None,
        help=f"as this machine reaches it; default: ${PROMETHEUS_VARIABLE}. Without it utilisation counts as "
        "unknown",
    )
    cluster.add_argument(
        "--utilisation-preset",
        default="CAdvisor",
        choices=list(_PRESETS),
        help="whose series tell how busy nodes are, as the operator is told (CAdvisor)",
    )


@dataclass(frozen=True, slots=True)
class ClusterNow:
    """The operator's view, filled once, and its assessor: who stands where, and how busy nodes are."""

    view: ClusterView
    assessor: Assessor
    now: datetime

    def pods_of(self, workload: Key) -> list[Pod]:
        """A workload's pods by name, those that are ending left out."""
        found = (pod for pod in self.view.pods_of(workload) if pod.deleted_at is None)
        return sorted(found, key=lambda pod: pod.name)

    def set_aside(self, known: KnownWorkload) -> frozenset[str]:
        """Nodes that the operator keeps the workload's pods off for now, as its status tells."""
        return frozenset(each.node for each in known.status.avoided_nodes if each.until > self.now)

    def known(self, key: Key) -> KnownWorkload:
        """The workload of this name.

        Raises:
            NoAnswerError: there is none.
        """
        known = self.view.registry.workloads.get(key)
        if known is None:
            raise NoAnswerError(f"there is no InferenceWorkload {key}; `kubectl get iw -A` lists them")
        return known


async def read_cluster(client: Client, arguments: argparse.Namespace) -> ClusterNow:
    """Read everything that a decision is made from.

    Raises:
        NoAnswerError: the user may not read it.
        ApiError, aiohttp.ClientError, TimeoutError: the API server refused or did not answer.
    """
    try:
        registry = Registry({each.key: each for each in await _workloads(client)})
        view = cluster_view(client, arguments.operator_namespace, registry)
        await asyncio.gather(*(reflector.read() for reflector in view.reflectors))
    except ApiError as error:
        if error.reason == "Forbidden":
            raise NoAnswerError(
                f"{error.message}; a decision is made from all nodes, pods, Deployments and workloads, "
                f"and from the ConfigMaps in namespace {arguments.operator_namespace}: ask for the right to "
                "list them"
            ) from error
        raise
    # Few pods have claims: for these the answer is then that nobody read them.
    with suppress(ApiError):
        await view.storage.read()
    assessor = Assessor(view, PriorPredictor())
    await _take_versions(client, arguments.operator_namespace, assessor, registry)
    now = datetime.now(UTC)
    for known, workload, profile in _served(registry):
        for pod in view.pods_of(known.key):
            count_standing(assessor, pod, (workload.spec, profile), now)
    await assessor.prepare_missing()
    if arguments.prometheus_url:
        await _take_utilisation(assessor, arguments)
    return ClusterNow(view, assessor, datetime.now(UTC))


def workload_key(arguments: argparse.Namespace) -> Key:
    """The workload that is asked about."""
    namespace = arguments.namespace or context_namespace(arguments.kubeconfig, arguments.context)
    return Key(namespace, arguments.workload)


def readable(known: KnownWorkload) -> tuple[InferenceWorkload, ModelProfile]:
    """A workload and its model's profile.

    Raises:
        NoAnswerError: its spec cannot be read, or it has no profile yet.
    """
    if known.workload is None:
        raise NoAnswerError(f"InferenceWorkload {known.key}: {known.fault}")
    override = known.workload.spec.model.profile
    if override is not None and override.is_complete:
        return known.workload, override.as_profile(known.workload.spec.load.batch_size)
    if known.status.profile is None:
        reasons = [each.message for each in known.status.conditions if each.type == "ModelProfiled"]
        why = reasons[0] if reasons and reasons[0] else "the operator has not read its model yet"
        raise NoAnswerError(f"InferenceWorkload {known.key} has no profile: {why}")
    return known.workload, known.status.profile


def next_pod(cluster: ClusterNow, known: KnownWorkload, workload: InferenceWorkload) -> Pod:
    """The pod that the workload would get next: of its template, else like the newest that it has.

    Raises:
        NoAnswerError: it has neither.
    """
    if workload.spec.template is not None:
        template = deployment_manifest(workload)["spec"]["template"]
        metadata = {**template["metadata"], "name": "next", "namespace": known.key.namespace, "uid": ""}
        return pod_from_object({"metadata": metadata, "spec": template["spec"]})
    newest = max(cluster.pods_of(known.key), key=lambda pod: (pod.created_at, pod.name), default=None)
    if newest is None:
        raise NoAnswerError(
            f"InferenceWorkload {known.key} has neither a template nor a pod labelled "
            f"{WORKLOAD_LABEL}: {known.key.name}"
        )
    return replace(before_placement(newest), uid="", name="next")


async def _workloads(client: Client) -> list[KnownWorkload]:
    """All workloads: their pods on the candidates are whom the next one would slow down."""
    try:
        items = (await client.request("GET", INFERENCE_WORKLOADS.path())).get("items") or ()
    except ApiError as error:
        if error.reason == "NotFound":
            raise NoAnswerError(
                f"{client.server} serves no InferenceWorkloads: install the chart, or name another cluster "
                "with --context"
            ) from error
        raise
    return [workload_from_object({"kind": INFERENCE_WORKLOADS.kind, **item}) for item in items]


def _served(registry: Registry) -> Iterator[tuple[KnownWorkload, InferenceWorkload, ModelProfile]]:
    for known in registry.workloads.values():
        try:
            yield (known, *readable(known))
        except NoAnswerError:
            continue  # nothing is known of what its pods want


async def _take_versions(client: Client, namespace: str, assessor: Assessor, registry: Registry) -> None:
    """Have the versions answer that answer in the operator; without one the prior does."""
    try:
        for item in (await client.request("GET", LATENCY_MODELS.path())).get("items") or ():
            known = latency_model_from_object({"kind": LATENCY_MODELS.kind, **item})
            registry.latency_models[known.name] = known
        faults = await serve_all(ServedVersions(client, namespace, registry, assessor.tables), registry)
    except ApiError as error:
        faults = [error.message]
    for fault in faults:
        print(f"tailwise: {fault}; predictions are by the prior", file=sys.stderr)


async def _take_utilisation(assessor: Assessor, arguments: argparse.Namespace) -> None:
    with closing(Prometheus(arguments.prometheus_url)) as prometheus:
        queries = _PRESETS[arguments.utilisation_preset]()
        current = await UtilisationPoller(prometheus, queries).poll()
        await take_samples(assessor, prometheus, current)
    if current.last_error:
        print(f"tailwise: {current.last_error}; utilisation counts as unknown", file=sys.stderr)
