"""What each real node of a cluster is like, read from one YAML file (real_nodes/paper.yaml is one)."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PAPER_SHAPES = Path(__file__).parent / "real_nodes" / "paper.yaml"
ROLE_LABEL = "tailwise.dev/role"


class ShapeError(ValueError):
    """A shapes file says something impossible; the message names file, node and field."""


@dataclass(frozen=True, slots=True)
class NodeShape:
    """One node. `cores` is both the CPU quota of all its pods and what kubelet offers; None: no quota.

    `slowdown` 2.0 means: a neighbour that never rests takes half of the node's time, by CPU shares and
    without throttling.
    """

    name: str
    cores: float | None = None
    memory_mebibytes: int | None = None
    slowdown: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()  # key=value:effect

    @property
    def offered_millicores(self) -> int:
        """CPU that kubelet shall offer to pods."""
        return round(1000 * (self.cores if self.cores is not None else machine_cores()))

    @property
    def offered_mebibytes(self) -> int:
        """Memory that kubelet shall offer to pods."""
        return self.memory_mebibytes if self.memory_mebibytes is not None else machine_mebibytes() // 2


def machine_cores() -> int:
    """Cores of this machine as kubelet counts them."""
    return os.cpu_count() or 1


def cpus_of(shapes: Sequence[NodeShape], cpus: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
    """The CPUs of the machine that each node with a quota runs on, as few as its cores need.

    A part of a core spread over several CPUs is no slow core: whoever happens to be alone on one of them gets
    half of the quota. The largest nodes choose first, each the CPUs that the fewest cores were promised on.
    """
    promised = dict.fromkeys(cpus, 0.0)
    chosen: dict[str, tuple[int, ...]] = {}
    for shape in sorted(shapes, key=lambda shape: -(shape.cores or 0.0)):
        if shape.cores is None:
            continue
        wanted = min(len(promised), math.ceil(shape.cores))
        own = sorted(promised, key=lambda cpu: (promised[cpu], cpu))[:wanted]
        for cpu in own:
            promised[cpu] += shape.cores / wanted
        chosen[shape.name] = tuple(sorted(own))
    return chosen


def machine_mebibytes() -> int:
    """Memory of this machine, MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def load(path: Path = PAPER_SHAPES) -> tuple[NodeShape, ...]:
    """Read the nodes of a shapes file.

    Raises:
        ShapeError: for an unknown field, a doubled name, or a size that this machine cannot give.
    """
    document = yaml.safe_load(path.read_text())
    entries = document.get("nodes") if isinstance(document, dict) else None
    if not entries:
        raise ShapeError(f"{path}: wants a list of nodes under the key nodes")
    shapes = tuple(_shape(path, entry) for entry in entries)
    names = [shape.name for shape in shapes]
    for name in names:
        if names.count(name) > 1:
            raise ShapeError(f"{path}: two nodes are named {name}")
    return shapes


def _shape(path: Path, entry: Mapping[str, Any]) -> NodeShape:
    name = entry.get("name", "without a name")
    try:
        shape = NodeShape(**{**entry, "taints": tuple(entry.get("taints", ()))})
    except TypeError as error:
        raise ShapeError(f"{path}: node {name}: {error}") from error
    if shape.cores is not None and not 0.1 <= shape.cores <= machine_cores():
        raise ShapeError(f"{path}: node {name}: cores {shape.cores}: give 0.1 to {machine_cores()}")
    if shape.slowdown < 1:
        raise ShapeError(f"{path}: node {name}: slowdown {shape.slowdown}: give 1 (none) or more")
    if shape.offered_mebibytes > machine_mebibytes():
        raise ShapeError(f"{path}: node {name}: memory_mebibytes: this machine has {machine_mebibytes()}")
    return shape
