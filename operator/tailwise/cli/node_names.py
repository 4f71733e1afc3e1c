"""What people call a class of nodes."""

from __future__ import annotations

from collections.abc import Iterable

from tailwise.api.hardware import NodeHardware
from tailwise.domain.objects import Node

INSTANCE_TYPE = "node.kubernetes.io/instance-type"


def class_name(hardware: NodeHardware, nodes: Iterable[Node]) -> str:
    """Their instance type where they have one, else their processor, else their cores."""
    types = sorted({each.labels[INSTANCE_TYPE] for each in nodes if INSTANCE_TYPE in each.labels})
    if types:
        return "/".join(types)
    return hardware.cpu_model or f"{hardware.capacity_cores:g} cores"
