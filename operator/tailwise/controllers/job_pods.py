"""Pods of the operator's own Jobs, of inspection as of training: how they are confined, and why one waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOBODY = 65532

CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""The container's part of the restricted pod security standard, and a root file system to read only."""

POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": NOBODY,
    "runAsGroup": NOBODY,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""The pod's part."""


def in_words(state: Mapping[str, Any]) -> str:
    """A reason and its message, of a container's state, a condition or a status."""
    return f"{state.get('reason', '')}: {state.get('message', '')}".strip(": ")


def unscheduled(status: Mapping[str, Any]) -> str:
    """Why the pod of this status has no node, in the scheduler's words; empty where it has one."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return in_words(condition)
    return ""
