"""``tailwise explain``: why a workload's pods are where they are, candidate by candidate; reads only.

It collects and decides with the operator's own code, for the next pod that the workload would get, on the
cluster as it is now. Pods that stand already are listed with what was decided for them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import numpy as np

from tailwise.api.inference_workload import InferenceWorkload
from tailwise.api.labels import PLACEMENT_GATE, WORKLOAD_LABEL
from tailwise.api.profile import ModelProfile
from tailwise.cluster.client import INFERENCE_WORKLOADS, ApiError, Client, ConfigurationError, connect
from tailwise.controllers.assessment import Assessment, Assessor
from tailwise.controllers.deployment import deployment_manifest
from tailwise.controllers.registry import KnownWorkload, Registry, workload_from_object
from tailwise.controllers.serving import serving_of
from tailwise.controllers.view import ClusterView, cluster_view
from tailwise.domain.objects import Pod
from tailwise.domain.parse import pod_from_object
from tailwise.domain.scoring import SOURCES
from tailwise.prediction.predictor import PriorPredictor
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.queries import cadvisor, node_exporter
from tailwise.telemetry.utilisation import UtilisationPoller

_PRESETS = {"NodeExporter": node_exporter, "CAdvisor": cadvisor}


class ExplainError(Exception):
    """There is nothing to explain; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One node as the decision saw it; figures are None where there is no prediction."""

    node: str
    predicted_p90_milliseconds: float | None
    bound_milliseconds: float | None
    utilisation_percent: float | None
    added_milliseconds: float | None
    data_age_seconds: float | None
    source: str | None
    verdict: str


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "explain",
        help="tell why a workload's pods are where they are",
        description="Shows each node as a candidate for the next pod of a workload: predicted P90, bound, "
        "why it was refused, or that it would win. Changes nothing.",
    )
    parser.add_argument("workload", metavar="WORKLOAD", help="name of the InferenceWorkload")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace; default: default")
    parser.add_argument(
        "--operator-namespace", default="tailwise-system", metavar="NAMESPACE", help="where agents write"
    )
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, else ~/.kube/config")
    parser.add_argument("--context", help="context of the kubeconfig")
    parser.add_argument("--prometheus-url", metavar="URL", help="without it utilisation counts as unknown")
    parser.add_argument("--utilisation-preset", default="CAdvisor", choices=list(_PRESETS))
    parser.add_argument("--output", "-o", default="table", choices=["table", "json"])


def run(arguments: argparse.Namespace) -> int:
    """Explain one workload; exit code 1 when that cannot be done."""
    try:
        document = asyncio.run(_explain(arguments))
    except (ExplainError, ApiError, ConfigurationError) as error:
        print(f"tailwise explain: {error}", file=sys.stderr)
        return 1
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        why = str(error) or type(error).__name__
        print(f"tailwise explain: no answer of the API server: {why}; see --kubeconfig", file=sys.stderr)
        return 1
    if arguments.output == "json":
        print(json.dumps(document, indent=2))
    else:
        print(_table(document))
    return 0


async def _explain(arguments: argparse.Namespace) -> dict[str, Any]:
    kubeconfig = arguments.kubeconfig or os.environ.get("KUBECONFIG")
    client = await connect(kubeconfig=kubeconfig, context=arguments.context)
    try:
        known = await _workload(client, arguments.namespace, arguments.workload)
        workload, profile = _readable(known)
        registry = Registry({each.key: each for each in await _workloads(client)} | {known.key: known})
        async with _view(client, arguments.operator_namespace, registry) as view:
            assessor = Assessor(view, PriorPredictor())
            if arguments.prometheus_url:
                await _take_utilisation(assessor, arguments)
            pod = _next_pod(view, known, workload)
            await _take_residents(assessor, view)
            await assessor.prepare(profile, serving_of(pod, workload.spec))
            assessment = assessor.assess(pod, workload.spec, profile, datetime.now(UTC))
            return _document(known, assessment, sorted(view.pods_of(known.key), key=lambda each: each.name))
    finally:
        await client.close()


async def _workload(client: Client, namespace: str, name: str) -> KnownWorkload:
    try:
        obj = await client.request("GET", INFERENCE_WORKLOADS.path(namespace, name))
    except ApiError as error:
        if error.reason == "NotFound":
            raise ExplainError(
                f"there is no InferenceWorkload {namespace}/{name}; `kubectl get iw -A` lists them"
            ) from error
        raise
    return workload_from_object(obj)


async def _workloads(client: Client) -> list[KnownWorkload]:
    """All workloads: their pods on the candidates are whom the next one would slow down."""
    items = (await client.request("GET", INFERENCE_WORKLOADS.path())).get("items") or ()
    return [workload_from_object({"kind": INFERENCE_WORKLOADS.kind, **item}) for item in items]


async def _take_residents(assessor: Assessor, view: ClusterView) -> None:
    for known in view.registry.workloads.values():
        with contextlib.suppress(ExplainError):
            workload, profile = _readable(known)
            for pod in view.pods_of(known.key):
                if pod.occupied_node and not pod.gated and pod.deleted_at is None:
                    assessor.reside(pod, workload.spec, profile)
    await assessor.prepare_missing()


def _readable(known: KnownWorkload) -> tuple[InferenceWorkload, ModelProfile]:
    if known.workload is None:
        raise ExplainError(f"InferenceWorkload {known.key}: {known.fault}")
    override = known.workload.spec.model.profile
    if override is not None and override.is_complete:
        return known.workload, override.as_profile(known.workload.spec.load.batch_size)
    if known.status.profile is None:
        reasons = [each.message for each in known.status.conditions if each.type == "ModelProfiled"]
        why = reasons[0] if reasons and reasons[0] else "the operator has not read its model yet"
        raise ExplainError(f"InferenceWorkload {known.key} has no profile: {why}")
    return known.workload, known.status.profile


@contextlib.asynccontextmanager
async def _view(client: Client, namespace: str, registry: Registry) -> AsyncIterator[ClusterView]:
    view = cluster_view(client, namespace, registry)
    tasks = [asyncio.create_task(reflector.run()) for reflector in view.reflectors]
    try:
        async with asyncio.timeout(60):
            for reflector in view.reflectors:
                await reflector.synced.wait()
        yield view
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _take_utilisation(assessor: Assessor, arguments: argparse.Namespace) -> None:
    prometheus = Prometheus(arguments.prometheus_url)
    try:
        queries = _PRESETS[arguments.utilisation_preset]()
        current = await UtilisationPoller(prometheus, queries).poll()
    finally:
        prometheus.close()
    if current.last_error:
        print(f"tailwise explain: {current.last_error}; utilisation counts as unknown", file=sys.stderr)
    assessor.sampled(current)


def _next_pod(view: ClusterView, known: KnownWorkload, workload: InferenceWorkload) -> Pod:
    """The pod that is to be explained: one like those there are, else one of the template."""
    standing = next(iter(view.pods_of(known.key)), None)
    if standing is not None and standing.record is None:
        return replace(standing, uid="", name="next", node_name="", gates=(PLACEMENT_GATE,))
    if workload.spec.template is None:
        if standing is None:
            raise ExplainError(
                f"InferenceWorkload {known.key} has neither a template nor a pod labelled "
                f"{WORKLOAD_LABEL}: {known.key.name}"
            )
        # A placed pod's affinity is our own decision: without it the pod is as its author made it, or less.
        return replace(
            standing,
            uid="",
            name="next",
            node_name="",
            gates=(PLACEMENT_GATE,),
            required_terms=None,
            record=None,
        )
    template = deployment_manifest(workload)["spec"]["template"]
    metadata = {**template["metadata"], "name": "next", "namespace": known.key.namespace, "uid": ""}
    return pod_from_object({"metadata": metadata, "spec": template["spec"]})


def _document(known: KnownWorkload, assessment: Assessment, pods: list[Pod]) -> dict[str, Any]:
    decision = assessment.decision
    return {
        "workload": str(known.key),
        "sloMilliseconds": decision.slo_milliseconds,
        "outcome": decision.outcome.value,
        "winner": decision.node,
        "message": decision.message(),
        "candidates": [_row_document(row) for row in _rows(assessment)],
        "pods": [_pod_document(pod) for pod in pods],
    }


def _rows(assessment: Assessment) -> list[CandidateRow]:
    decision, predicted, effects = assessment.decision, assessment.predicted, assessment.effects
    rows = []
    for place, name in enumerate(decision.verdicts.names):
        refusal = decision.verdicts.of(place)
        p90 = _figure(predicted.p90_milliseconds[place])
        words = "fits" if refusal is None else refusal.words
        utilisation = _figure(assessment.utilisation[place])
        rows.append(
            CandidateRow(
                node=name,
                predicted_p90_milliseconds=p90,
                bound_milliseconds=_figure(predicted.bound_milliseconds[place]),
                utilisation_percent=None if utilisation is None else round(100 * utilisation, 1),
                added_milliseconds=_figure(effects.added_milliseconds[place]) if effects else None,
                data_age_seconds=_figure(predicted.age_seconds[place]),
                source=SOURCES[int(predicted.source_codes[place])].value if p90 is not None else None,
                verdict="wins" if name == decision.node else words,
            )
        )
    order = {"wins": 0, "fits": 1}
    return sorted(
        rows,
        key=lambda row: (
            order.get(row.verdict, 2),
            np.inf
            if row.predicted_p90_milliseconds is None
            else row.predicted_p90_milliseconds + (row.added_milliseconds or 0.0),
            row.node,
        ),
    )


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 2)


def _row_document(row: CandidateRow) -> dict[str, Any]:
    return {
        "node": row.node,
        "predictedP90Milliseconds": row.predicted_p90_milliseconds,
        "boundMilliseconds": row.bound_milliseconds,
        "utilisationPercent": row.utilisation_percent,
        "addedToResidentsMilliseconds": row.added_milliseconds,
        "dataAgeSeconds": row.data_age_seconds,
        "source": row.source,
        "verdict": row.verdict,
    }


def _pod_document(pod: Pod) -> dict[str, Any]:
    record = pod.record
    return {
        "pod": pod.name,
        "node": pod.node_name or None,
        "decidedNode": record.node if record else None,
        "result": record.result.value if record else ("Gated" if pod.gated else "NotDecided"),
        "predictedP90Milliseconds": record.predicted_p90_milliseconds if record else None,
        "boundMilliseconds": record.bound_milliseconds if record else None,
        "source": record.source.value if record and record.source else None,
    }


def _table(document: dict[str, Any]) -> str:
    lines = [
        f"{document['workload']}: {document['message']}",
        "",
        *_columns(
            ("NODE", "P90(ms)", "BOUND(ms)", "UTIL(%)", "ADDS(ms)", "AGE(s)", "SOURCE", "VERDICT"),
            [tuple(row.values()) for row in document["candidates"]],
        ),
    ]
    if document["pods"]:
        lines += [
            "",
            *_columns(
                ("POD", "ON", "DECIDED", "RESULT", "P90(ms)", "BOUND(ms)", "SOURCE"),
                [tuple(row.values()) for row in document["pods"]],
            ),
        ]
    return "\n".join(lines)


def _columns(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    cells = [header, *[tuple("-" if each is None else str(each) for each in row) for row in rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
