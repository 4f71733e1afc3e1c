"""What happened to pods, read from the API server's own audit log and not from what the operator says."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tailwise.api.labels import NODE_ANNOTATION, PLACEMENT_GATE

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {
            "level": "RequestResponse",
            "verbs": ["patch", "create", "delete"],
            "resources": [{"group": "", "resources": ["pods", "pods/binding"]}],
        },
        {"level": "None"},
    ],
}


@dataclass(slots=True)
class History:
    """One pod, by uid: the nodes of the writes that opened its gate, and of those that bound it.

    ``perhaps_to`` are those of writes whose sender went away before the answer (504): the API server may have
    done them, and knows itself only by what it holds.
    """

    name: str
    created_at: datetime
    # When the write that opened the gate had been done; None while it is closed.
    opened_at: datetime | None = None
    perhaps_to: list[str] = field(default_factory=list)
    opened_to: list[str] = field(default_factory=list)
    bound_to: list[str] = field(default_factory=list)
    patched_after: int = 0


def arguments(directory: Path) -> tuple[str, ...]:
    """The API server's arguments that make it write the log into this directory."""
    directory.mkdir(parents=True, exist_ok=True)
    policy = directory / "audit-policy.json"
    policy.write_text(json.dumps(POLICY))
    return (
        f"--audit-policy-file={policy}",
        f"--audit-log-path={directory / 'audit.log'}",
        "--audit-log-mode=blocking-strict",
    )


def histories(directory: Path, namespace: str) -> dict[str, History]:
    """All pods of a namespace that were created, by uid.

    The log has requests in the order of their ends: a pod may be patched, by one who saw it in a watch,
    before its creation has been answered. They are taken in the order of their coming.
    """
    found: dict[str, History] = {}
    by_name: dict[str, str] = {}
    events = sorted(
        _events(directory / "audit.log", namespace), key=lambda event: str(event["requestReceivedTimestamp"])
    )
    for event in events:
        reference, answer = event["objectRef"], event.get("responseObject") or {}
        subresource, verb = reference.get("subresource"), event["verb"]
        if verb == "create" and subresource is None:
            metadata = answer["metadata"]
            created_at = datetime.fromisoformat(event["requestReceivedTimestamp"])
            found[metadata["uid"]] = History(metadata["name"], created_at)
            by_name[metadata["name"]] = metadata["uid"]
        elif verb == "create" and subresource == "binding":
            uid = event["requestObject"]["metadata"].get("uid") or by_name[reference["name"]]
            found[uid].bound_to.append(event["requestObject"]["target"]["name"])
        elif verb == "patch" and subresource is None:
            done = event["responseStatus"]["code"] < 300
            uid = answer["metadata"]["uid"] if done else by_name[reference["name"]]
            at = datetime.fromisoformat(event["stageTimestamp"])
            _patched(found[uid], event["requestObject"], at if done else None)
    return found


def check_placed_once(
    directory: Path, namespace: str, *, least: int, unlogged: Mapping[str, str] | None = None
) -> None:
    """Nobody placed twice: each gate opened at most once, each pod bound at most once and to its node.

    An API server that is killed may not have logged a write that it has done: where that was so, ``unlogged``
    tells by uid the node that pods hold as decided.
    """
    pods = histories(directory, namespace)
    assert len(pods) >= least
    for uid, pod in pods.items():
        assert len(pod.opened_to) <= 1, (uid, pod)
        assert len(pod.bound_to) <= 1, (uid, pod)
        assert not pod.patched_after, (uid, pod)
        if pod.bound_to and pod.opened_to:
            assert pod.opened_to == pod.bound_to, (uid, pod)
        elif pod.bound_to:
            assert pod.bound_to[0] in (*pod.perhaps_to, (unlogged or {}).get(uid)), (uid, pod)


def check_opened_within(directory: Path, namespace: str, timeout: timedelta) -> None:
    """Nobody gated past the time-out, and nobody for ever: each gate was opened, and in time."""
    for uid, pod in histories(directory, namespace).items():
        assert pod.opened_at is not None, (uid, pod)
        assert pod.opened_at - pod.created_at < timeout, (uid, pod)


def _patched(pod: History, operations: Any, done_at: datetime | None) -> None:
    touches = [each for each in operations if isinstance(each, dict)] if isinstance(operations, list) else []
    opens = any(
        each["op"] == "test" and each.get("value") == {"name": PLACEMENT_GATE} for each in touches
    ) and any(each["op"] == "remove" for each in touches)
    if opens and done_at is not None:
        pod.opened_to.append(_node(touches))
        pod.opened_at = done_at
    elif opens:
        pod.perhaps_to.append(_node(touches))
    elif touches and done_at is not None:
        pod.patched_after += 1


def _node(operations: list[dict[str, Any]]) -> str:
    """The node that a placing patch writes into the annotations: all of them together, or one by one."""
    for each in operations:
        if each["op"] == "add" and each["path"] == "/metadata/annotations":
            return str(each["value"][NODE_ANNOTATION])
        if each["op"] == "add" and each["path"].endswith(NODE_ANNOTATION.replace("/", "~1")):
            return str(each["value"])
    raise AssertionError(f"a patch opens the gate and names no node: {operations}")


def _events(path: Path, namespace: str) -> Iterator[dict[str, Any]]:
    with path.open() as lines:
        for line in lines:
            event = json.loads(line)
            code = event.get("responseStatus", {}).get("code", 0)
            if event["objectRef"].get("namespace") != namespace:
                continue
            if code < 300 or code == HTTPStatus.GATEWAY_TIMEOUT:
                yield event
