"""A step in which a node slows down: the pods are asked all the while, wherever they go."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailwise.benchmark import manifests
from tailwise.benchmark.change import Answer, parse_answers
from tailwise.benchmark.kubectl import KubectlError
from tailwise.benchmark.manifests import NAMESPACE, SLOT_LABEL
from tailwise.benchmark.records import MoveRecord, RunError
from tailwise.benchmark.scenario import Change, Neighbour, Workload
from tailwise.benchmark.stage import Stage, is_ready, target

_POLL_SECONDS = 2.0
_START_SECONDS = 120.0
_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of it; times are seconds since the clients began."""

    began: float
    answers: Mapping[str, Sequence[Answer]]
    moves: tuple[MoveRecord, ...]
    changed_at_seconds: float


def follow(stage: Stage, slots: Sequence[tuple[str, Workload]], change: Change) -> Followed:
    """Ask all pods, slow the node down, and tell the clients of each pod that has moved.

    Raises:
        RunError: the clients do not begin or do not end.
    """
    models = {slot: workload.name for slot, workload in slots}
    places = _places(stage)
    made = manifests.clients(
        stage.scenario, stage.scenario.load, [_target(pod, slot, models) for slot, pod in places.items()]
    )
    neighbour = Neighbour(
        name="change", nodes=(change.node,), threads=change.threads, cpu_request=change.cpu_request
    )
    slowing = manifests.neighbours(stage.scenario, neighbour)
    stage.kubectl.delete(made)
    stage.kubectl.apply(made)
    try:
        began = _began(stage)
        moves: list[MoveRecord] = []
        changed_at: float | None = None
        until = began + change.after_seconds + change.follow_seconds
        while (now := time.time()) < until:
            if changed_at is None and now >= began + change.after_seconds:
                stage.kubectl.apply(slowing)
                changed_at = time.time() - began
                stage.report(f"node {change.node} slows down")
            moved = _moved(places, _places(stage))
            if moved:
                at = time.time() - began
                for slot, pod in moved.items():
                    source, goal = places[slot]["spec"]["nodeName"], pod["spec"]["nodeName"]
                    moves.append(MoveRecord(slot=slot, source=source, target=goal, at_seconds=at))
                    stage.report(f"{slot} moved from {source} to {goal} after {at:.0f} s")
                places.update(moved)
                _tell(stage, [_target(pod, slot, models) for slot, pod in places.items()])
            time.sleep(_POLL_SECONDS)
        output = _ended(stage)
    finally:
        stage.kubectl.delete([*made, *slowing])
    return Followed(began, parse_answers(output), tuple(moves), float(changed_at or 0.0))


def _target(pod: Mapping[str, Any], slot: str, models: Mapping[str, str]) -> dict[str, str]:
    return {**target(pod, models[slot]), "pod": slot}


def _places(stage: Stage) -> dict[str, Mapping[str, Any]]:
    """The pod of each slot that serves."""
    return {pod["metadata"]["labels"][SLOT_LABEL]: pod for pod in stage.pods() if is_ready(pod)}


def _moved(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    return {
        slot: pod for slot, pod in now.items() if pod["metadata"]["uid"] != before[slot]["metadata"]["uid"]
    }


def _tell(stage: Stage, targets: Sequence[Mapping[str, str]]) -> None:
    file = manifests.TARGETS_FILE
    write = f"cat > {file}.new && mv {file}.new {file}"
    stage.kubectl.run(
        "exec", "-i", "-n", NAMESPACE, "job/clients", "--", "sh", "-c", write, stdin=json.dumps(list(targets))
    )


def _began(stage: Stage) -> float:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            for line in stage.kubectl.run("logs", "job/clients", "-n", NAMESPACE).splitlines():
                if line.startswith('{"began"'):
                    return float(json.loads(line)["began"])
        except KubectlError:
            pass  # the container is on its way
        time.sleep(_POLL_SECONDS)
    raise RunError(f"the clients have not begun within {_START_SECONDS:.0f} s")


def _ended(stage: Stage) -> str:
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        status = stage.kubectl.get("job", "clients", "-n", NAMESPACE).get("status", {})
        if status.get("succeeded") or status.get("failed"):
            return stage.kubectl.run("logs", "job/clients", "-n", NAMESPACE)
        time.sleep(_POLL_SECONDS)
    raise RunError("the clients do not end")
