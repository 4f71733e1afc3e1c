"""``tailwise what-if``: a workload's next pod under another SLO, load, limit or model, or with more nodes.

The same decision as ``tailwise explain`` makes, twice: as the cluster is, and as it would be. Then the
question turned round: the smallest class of nodes that holds the SLO, the greatest load and the least CPU
limit with which it still holds. Reads only.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailwise.api.hardware import NodeHardware
from tailwise.cli import changes
from tailwise.cli.answering import Document, NoAnswerError, answer, columns, figure, shown
from tailwise.cli.argument_types import add_output
from tailwise.cli.candidates import decision_document
from tailwise.cli.changes import Change, Question
from tailwise.cli.cluster_now import (
    ClusterNow,
    add_options,
    next_pod,
    read_cluster,
    readable,
    workload_key,
)
from tailwise.cli.explain import FIGURES, HEADER, told
from tailwise.cli.new_nodes import WORDS, NodeWords, add_nodes, hardware_from_words, parse_words
from tailwise.cli.node_names import class_name
from tailwise.cli.predict import UsageError, percent, read_node
from tailwise.cluster.client import Client
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessment
from tailwise.controllers.prediction_tables import asked as what_is_asked
from tailwise.controllers.prediction_tables import latency_model_of
from tailwise.controllers.serving import serving_of
from tailwise.domain.resources import CPU
from tailwise.domain.snapshot import NodeTable
from tailwise.prediction import prediction
from tailwise.prediction.inverse import IdleAnswer, Remedies, on_idle_nodes, room, size_gflops

EXIT_NO_NODE = 3
_CLASSES_SHOWN = 20


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "what-if",
        help="tell where a workload's next pod would go if things were otherwise",
        description="Shows each node as a candidate for the next pod of a workload, as things are and as they"
        " would be: under another SLO, load, CPU limit, batch or model, or with nodes that do not exist yet. "
        "Pods that stand stay as they are. Then what would still hold: the smallest class of nodes, the "
        "greatest load, the least CPU limit. Changes nothing. The exit code is 3 where the pod would find no "
        "node.",
    )
    parser.add_argument("workload", metavar="WORKLOAD", help="name of the InferenceWorkload")
    add_output(parser)
    changes.add_options(parser)
    nodes = parser.add_argument_group("nodes that do not exist yet")
    nodes.add_argument(
        "--add-node",
        action="append",
        default=[],
        type=_words,
        metavar="cores=8,gflops=80",
        help=f"a node; words: {WORDS}. gflops and copy (GB/s) are of one core, memory is in GiB, limit in "
        "cores; like=NODE takes what is not said from a node that is there. May be repeated",
    )
    nodes.add_argument(
        "--node-file",
        action="append",
        default=[],
        type=Path,
        metavar="NODE.yaml",
        help="a node as `tailwise agent --print` describes it; may be repeated",
    )
    nodes.add_argument(
        "--node-labels",
        type=_labels,
        default={},
        metavar="KEY=VALUE,...",
        help="labels that these nodes have",
    )
    nodes.add_argument(
        "--node-utilisation-percent",
        type=percent,
        default=0.0,
        metavar="PERCENT",
        help="how busy they are (0)",
    )
    add_options(parser, namespaced=True)


def run(arguments: argparse.Namespace) -> int:
    """Answer; exit code 1 when that cannot be done, 3 where the pod would find no node."""
    return answer(
        "what-if",
        arguments,
        lambda client: _what_if(client, arguments),
        _table,
        lambda document: 0 if document["then"]["winner"] else EXIT_NO_NODE,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, and what became of it."""

    question: Question
    assessment: Assessment


async def _what_if(client: Client, arguments: argparse.Namespace) -> Document:
    key = workload_key(arguments)
    return await what_if(await read_cluster(client, arguments), key, arguments)


async def what_if(cluster: ClusterNow, key: Key, arguments: argparse.Namespace) -> Document:
    """The answer for a workload of this cluster; ``arguments`` are those of ``tailwise what-if``.

    Raises:
        NoAnswerError: there is no such workload, or what is asked does not go with it.
    """
    known = cluster.known(key)
    workload, profile = readable(known)
    question = Question(workload.spec, next_pod(cluster, known, workload), profile)
    set_aside = cluster.set_aside(known)
    today = await _ask(cluster, question, set_aside)
    before = decision_document(cluster.assessor, today.assessment, question.spec.placement.objective)
    # Off the event loop: a model is read in a process of its own, for seconds.
    other, made = await asyncio.to_thread(changes.changed, question, arguments)
    made += _add_nodes(cluster, arguments)
    then = await _ask(cluster, other, set_aside)
    return {
        "workload": str(key),
        "changes": [each.document() for each in made],
        "today": before,
        "then": decision_document(cluster.assessor, then.assessment, other.spec.placement.objective),
        "inverse": await asyncio.to_thread(_inverse, cluster, then),
    }


async def _ask(cluster: ClusterNow, question: Question, set_aside: frozenset[str]) -> _Asked:
    spec, assessor = question.spec, cluster.assessor
    await assessor.prepare(question.profile, serving_of(question.pod, spec), latency_model_of(spec))
    found = assessor.assess(question.pod, spec, question.profile, cluster.now, set_aside=set_aside)
    return _Asked(question, found)


def _add_nodes(cluster: ClusterNow, arguments: argparse.Namespace) -> list[Change]:
    described = list(cluster.view.described())
    try:
        wanted = [read_node(path, "--node-file") for path in arguments.node_file]
    except UsageError as error:
        raise NoAnswerError(str(error)) from error
    wanted += [hardware_from_words(words, described, cluster.now) for words in arguments.add_node]
    if not wanted:
        return []
    busy = arguments.node_utilisation_percent
    if busy is None:
        raise NoAnswerError(
            "--node-utilisation-percent unknown: say how busy the new nodes are, or leave it out"
        )
    added = add_nodes(cluster.assessor, wanted, arguments.node_labels, busy, cluster.now)
    return [Change("node", None, f"{each.node} ({_size(each)})") for each in added]


# ---- the question turned round


def _inverse(cluster: ClusterNow, asked: _Asked) -> Document:
    spec, assessor = asked.question.spec, cluster.assessor
    latency_model = latency_model_of(spec)
    predictor = assessor.tables.predictor(latency_model)
    serving = serving_of(asked.question.pod, spec)
    slo = spec.slo.latency_milliseconds
    key = what_is_asked(asked.question.profile, serving, latency_model)
    snapshot, facts, _ = assessor.load(cluster.now, math.inf)
    tables = [(each, assessor.tables.table(key, each)) for each in facts.classes]
    classes = on_idle_nodes((hardware, table) for hardware, table in tables if table is not None)
    place_of = {id(each): place for place, each in enumerate(facts.classes)}
    told_of = []
    for each in classes:
        members = np.flatnonzero(facts.class_index == place_of[id(each.hardware)])
        told_of.append(_class_document(snapshot.table, members, asked, each, slo))
    holding = [each for each in told_of if each["holdsIdle"]]
    best = asked.assessment.decision.best
    hardware = cluster.view.hardware_of(best.node) if best is not None else None
    way = Remedies()
    if best is not None and hardware is not None:
        busy = float(asked.assessment.utilisation[best.position])
        load = prediction.NodeLoad(None if math.isnan(busy) else busy)
        asking = prediction.Question(asked.question.profile, serving, hardware, load)
        follow = spec.serving is None or spec.serving.threads is None
        way = room(predictor, asking, slo, threads_follow_limit=follow)
    return {
        "node": best.node if best is not None else None,
        "greatestRequestsPerSecond": way.requests_per_second,
        "greatestConcurrency": way.concurrency,
        "leastCpuLimitMillicores": way.cpu_limit_millicores,
        "smallestNodeClass": holding[0] if holding else None,
        "nodeClasses": told_of,
    }


def _class_document(
    table: NodeTable, members: NDArray[np.intp], asked: _Asked, idle: IdleAnswer, slo: float
) -> Document:
    wanted = asked.question.pod.requests.get(CPU, 0)
    room_for_it = bool((table.allocatable[CPU][members] >= wanted).any())
    return {
        "nodeClass": class_name(idle.hardware, (table.nodes[place] for place in members)),
        "cores": idle.hardware.capacity_cores,
        "gflops": round(size_gflops(idle.hardware), 1),
        "nodes": len(members),
        "nodesThatFitNow": int(np.count_nonzero(asked.assessment.decision.verdicts.fits[members])),
        "idleP90Milliseconds": figure(idle.p90_milliseconds),
        "idleBoundMilliseconds": figure(idle.bound_milliseconds),
        "holdsIdle": room_for_it and idle.bound_milliseconds <= slo,
    }


# ---- for people


def _table(document: Document) -> str:
    then, inverse = document["then"], document["inverse"]
    before = {each["node"]: each for each in document["today"]["candidates"]}
    made = "; ".join(Change(**each).words for each in document["changes"]) or "nothing were otherwise"
    lines = [
        f"{document['workload']}: what if {made}",
        f"today: {document['today']['message']}",
        f"then:  {then['message']}",
        "",
        *columns(HEADER, [_side_by_side(before.get(each["node"]), each) for each in then["candidates"]]),
        "",
        *columns(
            ("CLASS", "CORES", "GFLOP/s", "NODES", "FIT NOW", "IDLE P90(ms)", "IDLE BOUND(ms)", "HOLDS"),
            [
                (*list(each.values())[:-1], "yes" if each["holdsIdle"] else "no")
                for each in inverse["nodeClasses"][:_CLASSES_SHOWN]
            ],
        ),
        *([f"... and {more} more"] if (more := len(inverse["nodeClasses"]) - _CLASSES_SHOWN) > 0 else []),
        "",
        *_sentences(inverse, then["sloMilliseconds"]),
    ]
    return "\n".join(lines)


def _side_by_side(today: Document | None, then: Document) -> tuple[str, ...]:
    def both(before: object, after: object) -> str:
        return shown(after) if before == after else f"{shown(before)} -> {shown(after)}"

    if today is None:
        return (then["node"], *(shown(then[name]) for name in FIGURES), f"new -> {told(then)}")
    return (
        then["node"],
        *(both(today[name], then[name]) for name in FIGURES),
        both(told(today), told(then)),
    )


def _sentences(inverse: Document, slo: float) -> list[str]:
    smallest = inverse["smallestNodeClass"]
    lines = [
        f"Smallest class that holds {slo:g} ms when idle: {smallest['nodeClass']}, "
        f"{smallest['cores']:g} cores"
        if smallest
        else f"No class of nodes holds {slo:g} ms, not even idle"
    ]
    ways = []
    if inverse["greatestRequestsPerSecond"] is not None:
        ways.append(f"up to {inverse['greatestRequestsPerSecond']:g} requests/s")
    if inverse["greatestConcurrency"] is not None:
        ways.append(f"up to a concurrency of {inverse['greatestConcurrency']}")
    if inverse["leastCpuLimitMillicores"] is not None:
        ways.append(f"with a CPU limit of {inverse['leastCpuLimitMillicores']}m or more")
    if inverse["node"] is not None:
        told_of = ", and ".join(ways) or "neither at a lower load nor with another CPU limit"
        lines.append(f"On {inverse['node']}, under its load of now, it holds {told_of}")
    return lines


def _size(hardware: NodeHardware) -> str:
    return f"{hardware.capacity_cores:g} cores of {hardware.measured.gflops_per_core:g} GFLOP/s"


# ---- options


def _words(text: str) -> NodeWords:
    try:
        return parse_words(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _labels(text: str) -> Mapping[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not key or not equals for key, equals, _ in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE,...")
    return {key: value for key, _, value in pairs}
