"""``tailwise explain``: why a workload's pods are where they are, candidate by candidate; reads only.

It collects and decides with the operator's own code, for the next pod that the workload would get, on the
cluster as it is now. Pods that stand already are listed with what was decided for them.
"""

from __future__ import annotations

import argparse
from typing import Any

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.cli.answering import Document, answer, columns
from tailwise.cli.argument_types import add_output
from tailwise.cli.candidates import decision_document
from tailwise.cli.cluster_now import ClusterNow, add_options, next_pod, read_cluster, readable, workload_key
from tailwise.cluster.client import Client
from tailwise.cluster.reflector import Key
from tailwise.controllers.prediction_tables import latency_model_of
from tailwise.controllers.serving import serving_of
from tailwise.domain.objects import Pod
from tailwise.domain.record import PlacementRecord

HEADER = (
    "NODE",
    "EFF.CORES",
    "UTIL(%)",
    "AGE(s)",
    "P90(ms)",
    "BOUND(ms)",
    "ADDS(ms)",
    "SOURCE",
    "VERDICT",
)
FIGURES = (
    "effectiveCores",
    "utilisationPercent",
    "dataAgeSeconds",
    "predictedP90Milliseconds",
    "boundMilliseconds",
    "addedToResidentsMilliseconds",
    "source",
)


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain",
        help="tell why a workload's pods are where they are",
        description="Shows each node as a candidate for the next pod of a workload: the cores that its load "
        "leaves, how old that is, predicted P90, its bound, what the pod would add to those there, and why "
        "it was refused, or that it would win. Changes nothing.",
    )
    parser.add_argument("workload", metavar="WORKLOAD", help="name of the InferenceWorkload")
    add_output(parser)
    add_options(parser, namespaced=True)


def run(arguments: argparse.Namespace) -> int:
    """Explain one workload; exit code 1 when that cannot be done."""
    return answer("explain", arguments, lambda client: _explain(client, arguments), _table)


async def _explain(client: Client, arguments: argparse.Namespace) -> Document:
    key = workload_key(arguments)
    return await explain(await read_cluster(client, arguments), key)


async def explain(cluster: ClusterNow, key: Key) -> Document:
    """The decision for the next pod of a workload of this cluster, and the pods that it has.

    Raises:
        NoAnswerError: there is no such workload, or nothing is known of its model.
    """
    known = cluster.known(key)
    workload, profile = readable(known)
    pod = next_pod(cluster, known, workload)
    spec = workload.spec
    await cluster.assessor.prepare(profile, serving_of(pod, spec), latency_model_of(spec))
    assessment = cluster.assessor.assess(pod, spec, profile, cluster.now, set_aside=cluster.set_aside(known))
    return {
        "workload": str(key),
        **decision_document(cluster.assessor, assessment, spec.placement.objective),
        "pods": [_pod_document(each) for each in cluster.pods_of(key)],
    }


def _pod_document(pod: Pod) -> Document:
    record = pod.record
    return {
        "pod": pod.name,
        "node": pod.node_name or None,
        "decidedNode": record.node if record else None,
        "result": record.result.value if record else ("Gated" if pod.gated else "NotDecided"),
        "predictedP90Milliseconds": record.predicted_p90_milliseconds if record else None,
        "boundMilliseconds": record.bound_milliseconds if record else None,
        "source": _source(record) if record else None,
    }


def _source(record: PlacementRecord) -> str | None:
    if record.source is not PredictionSource.LEARNED:
        return record.source.value if record.source else None
    return f"{record.source} (version {record.latency_model_version})"


def _table(document: Document) -> str:
    lines = [
        f"{document['workload']}: {document['message']}",
        "",
        *columns(HEADER, [candidate_cells(each) for each in document["candidates"]]),
    ]
    if document["pods"]:
        lines += [
            "",
            *columns(
                ("POD", "ON", "DECIDED", "RESULT", "P90(ms)", "BOUND(ms)", "SOURCE"),
                [tuple(row.values()) for row in document["pods"]],
            ),
        ]
    return "\n".join(lines)


def candidate_cells(candidate: Document) -> tuple[object, ...]:
    """A candidate's row under ``HEADER``."""
    return (candidate["node"], *(candidate[name] for name in FIGURES), told(candidate))


def told(candidate: Document) -> str:
    """Verdict and reason as one."""
    verdict, reason = candidate["verdict"], candidate["reason"]
    return f"{verdict}: {reason}" if reason else str(verdict)
