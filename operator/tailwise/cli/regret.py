"""``tailwise regret``: what was predicted for pods, what they have, and what the best other node would save.

Reads only. Predictions of now are the serving version's, under the load of now, by the operator's own code;
what was promised stands in the pods' annotations; what is observed is asked of Prometheus, or else is what
the operator last wrote into the status.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import closing
from statistics import fmean
from typing import Any

from tailwise.api.inference_workload_status import PlacementResult, PredictionSource
from tailwise.api.serving_metrics import ServingMetrics
from tailwise.cli.answering import Document, NoAnswerError, answer, columns, figure
from tailwise.cli.argument_types import add_output
from tailwise.cli.cluster_now import ClusterNow, add_options, read_cluster, readable
from tailwise.cluster.client import Client, context_namespace
from tailwise.cluster.reflector import Key
from tailwise.controllers.prediction_tables import latency_model_of
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.residents import Standing
from tailwise.controllers.serving import serving_of
from tailwise.domain.ledger import Alternative, best_alternatives, regret_share
from tailwise.domain.objects import Pod
from tailwise.domain.placement import before_placement
from tailwise.telemetry.observed import observe_latency
from tailwise.telemetry.prometheus import Prometheus

_WORKLOAD_COLUMNS = {
    "WORKLOAD": "workload",
    "PODS": "pods",
    "PREDICTED(ms)": "predictedP90Milliseconds",
    "OBSERVED(ms)": "observedP90Milliseconds",
    "ERROR(%)": "meanErrorPercent",
    "OVER BOUND": "exceedances",
    "REGRET(%)": "meanRegretPercent",
    "WORST POD": "worstPod",
    "BETTER NODE": "betterNode",
}
_POD_COLUMNS = {
    "POD": "pod",
    "NODE": "node",
    "PROMISED(ms)": "promisedP90Milliseconds",
    "BOUND(ms)": "promisedBoundMilliseconds",
    "PREDICTED(ms)": "predictedP90Milliseconds",
    "OBSERVED(ms)": "observedP90Milliseconds",
    "ERROR(%)": "errorPercent",
    "BEST OTHER": "bestOtherNode",
    "THERE(ms)": "bestOtherP90Milliseconds",
    "REGRET(ms)": "regretMilliseconds",
    "SOURCE": "source",
}


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "regret",
        help="tell how right predictions were, and what other nodes would save",
        description="Shows for each workload, or each pod of one: the P90 that was promised at its placement "
        "and is predicted under the load of now, the P90 observed, how far off that is, the best other node "
        "by the version that serves, and the regret: the share of its latency that the pod would save there. "
        "Changes nothing.",
    )
    parser.add_argument(
        "workload", metavar="WORKLOAD", nargs="?", help="name of an InferenceWorkload; default: all"
    )
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", help="workloads of all namespaces, not of one"
    )
    add_output(parser)
    add_options(parser, namespaced=True)


def run(arguments: argparse.Namespace) -> int:
    """Show what became of placements; exit code 1 when that cannot be read."""
    table = _pod_table if arguments.workload else _workload_table
    return answer("regret", arguments, lambda client: _regret(client, arguments), table)


async def _regret(client: Client, arguments: argparse.Namespace) -> Document:
    if arguments.workload and arguments.all_namespaces:
        raise NoAnswerError("WORKLOAD names one workload: leave --all-namespaces out, or the name")
    cluster = await read_cluster(client, arguments)
    namespace = arguments.namespace or context_namespace(arguments.kubeconfig, arguments.context)
    if arguments.workload:
        known = cluster.known(Key(namespace, arguments.workload))
        readable(known)
        chosen = [known]
    else:
        everyone = cluster.view.registry.workloads.values()
        chosen = [known for known in everyone if arguments.all_namespaces or known.key.namespace == namespace]
    chosen.sort(key=lambda known: str(known.key))
    return {
        "workloads": [
            await workload_document(cluster, known, arguments.prometheus_url)
            for known in chosen
            if cluster.pods_of(known.key)
        ]
    }


async def workload_document(cluster: ClusterNow, known: KnownWorkload, prometheus: str | None) -> Document:
    """One workload: its figures over all pods, and each placed pod."""
    try:
        workload, profile = readable(known)
    except NoAnswerError as error:
        return {"workload": str(known.key), "pods": 0, "note": str(error), "placements": []}
    spec = workload.spec
    model = latency_model_of(spec)
    pods = [pod for pod in cluster.pods_of(known.key) if pod.node_name and not pod.waits]
    for pod in pods:
        await cluster.assessor.prepare(profile, serving_of(pod, spec), model)
    whole, by_pod, note = await _observed(known, spec.metrics, pods, prometheus)
    standing = cluster.assessor.standing(pods, cluster.now, spec.placement.max_data_age_seconds)
    placements = []
    for pod in pods:
        here = standing.get(pod.uid)
        other = None
        if here is not None:
            found = cluster.assessor.assess(
                before_placement(pod), spec, profile, cluster.now, set_aside=frozenset({pod.node_name})
            )
            other = next(iter(best_alternatives(found.decision, found.predicted, pod.node_name, 1)), None)
        placements.append(_pod_document(pod, here, by_pod.get(pod.name), other))
    return {
        "workload": str(known.key),
        "latencyModel": model,
        "latencyModelVersion": cluster.assessor.tables.predictor(model).version,
        "sloMilliseconds": spec.slo.latency_milliseconds,
        **_summary(placements, whole),
        "note": note,
        "placements": placements,
    }


def _pod_document(
    pod: Pod, here: Standing | None, observed: float | None, other: Alternative | None
) -> Document:
    record = pod.record if pod.record and pod.record.result is PlacementResult.PLACED else None
    bound = record.bound_milliseconds if record else None
    known = here is not None and here.source is not PredictionSource.STALE
    regret = regret_share(here.p90_milliseconds, other.p90_milliseconds) if here and other else None
    # Of what is observed the same share is saved as of what is predicted: see domain.ledger.
    of = observed if observed is not None else here.p90_milliseconds if here else None
    return {
        "pod": pod.name,
        "node": pod.node_name,
        "promisedP90Milliseconds": record.predicted_p90_milliseconds if record else None,
        "promisedBoundMilliseconds": bound,
        "predictedP90Milliseconds": figure(here.p90_milliseconds) if here else None,
        "boundMilliseconds": figure(here.bound_milliseconds) if here else None,
        "source": here.source.value if here else None,
        "observedP90Milliseconds": figure(observed) if observed is not None else None,
        "errorPercent": figure(100 * (here.p90_milliseconds / observed - 1), 1)
        if here and known and observed
        else None,
        "exceeded": observed > bound if observed is not None and bound is not None else None,
        "bestOtherNode": other.node if other else None,
        "bestOtherP90Milliseconds": figure(other.p90_milliseconds) if other else None,
        "regretPercent": figure(100 * regret, 1) if regret is not None else None,
        "regretMilliseconds": figure(regret * of) if regret is not None and of is not None else None,
    }


def _summary(placements: list[Document], observed: float | None) -> Document:
    def values(name: str) -> list[float]:
        return [each[name] for each in placements if each[name] is not None]

    errors, regrets = values("errorPercent"), values("regretPercent")
    predicted = values("predictedP90Milliseconds")
    worst = max(placements, key=lambda each: each["regretPercent"] or 0.0, default=None)
    regretted = worst is not None and bool(worst["regretPercent"])
    return {
        "pods": len(placements),
        "predictedP90Milliseconds": max(predicted, default=None),
        "observedP90Milliseconds": figure(observed) if observed is not None else None,
        "meanErrorPercent": figure(fmean(abs(each) for each in errors), 1) if errors else None,
        "exceedances": sum(each["exceeded"] is True for each in placements),
        "meanRegretPercent": figure(fmean(regrets), 1) if regrets else None,
        "worstPod": worst["pod"] if worst and regretted else None,
        "betterNode": worst["bestOtherNode"] if worst and regretted else None,
    }


async def _observed(
    known: KnownWorkload, metrics: ServingMetrics | None, pods: list[Pod], prometheus: str | None
) -> tuple[float | None, Mapping[str, float], str]:
    """The P90 of the workload and of each pod, in milliseconds, and why there is none."""
    if metrics is None:
        return None, {}, "spec.metrics does not say where the latency is read"
    if prometheus is None:
        seen = {
            each.pod: float(each.observed_p90_milliseconds)
            for each in known.status.placements
            if each.observed_p90_milliseconds is not None
        }
        whole = known.status.observed_p90_milliseconds
        return None if whole is None else float(whole), seen, "observed: as the status last told it"
    with closing(Prometheus(prometheus)) as client:
        found = await observe_latency(
            client,
            metrics,
            namespace=known.key.namespace,
            workload=known.key.name,
            pods=[pod.name for pod in pods],
        )
    by_pod = {name: each.milliseconds for name, each in found.pods.items()}
    return found.workload.milliseconds if found.workload else None, by_pod, found.message


def _workload_table(document: Document) -> str:
    rows = [tuple(each.get(name) for name in _WORKLOAD_COLUMNS.values()) for each in document["workloads"]]
    if not rows:
        return "no workload here has pods; -A looks in all namespaces"
    return "\n".join([*columns(tuple(_WORKLOAD_COLUMNS), rows), *_notes(document)])


def _pod_table(document: Document) -> str:
    if not document["workloads"]:
        return "the workload has no pods"
    (found,) = document["workloads"]
    rows = [tuple(each[name] for name in _POD_COLUMNS.values()) for each in found["placements"]]
    title = (
        f"{found['workload']}: by version {found['latencyModelVersion']} of LatencyModel "
        f"{found['latencyModel']}, SLO {found['sloMilliseconds']} ms"
    )
    return "\n".join([title, "", *columns(tuple(_POD_COLUMNS), rows), *_notes(document)])


def _notes(document: Document) -> Iterator[str]:
    notes = [f"{each['workload']}: {each['note']}" for each in document["workloads"] if each.get("note")]
    if notes:
        yield ""
        yield from notes
