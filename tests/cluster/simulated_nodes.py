"""Shapes of simulated nodes: read from a YAML file or made up for a number of nodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.utilisation import Utilisation, from_mapping


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of node and how many of it; `name` begins the nodes' names, `taints` are key=value:effect."""

    name: str
    count: int = 1
    cores: int = 8
    megahertz: int = 2400
    memory_mebibytes: int = 32768
    gflops_per_core: float = 80.0
    gigabytes_per_second_per_core: float = 10.0
    node_class: str = "simulated"
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    utilisation: Utilisation = field(default_factory=Utilisation)

    def __post_init__(self) -> None:
        for name in ("count", "cores", "megahertz", "memory_mebibytes", "gflops_per_core"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"nodes: shape {self.name}: {name} is {getattr(self, name)}, use more than 0"
                )


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    """One node of a shape."""

    name: str
    shape: Shape


# The paper's four machines (4, 8, 12, 16 cores) with speeds that differ too, as hardware of different years.
_PAPER = (
    Shape("small", cores=4, megahertz=2200, memory_mebibytes=16384, gflops_per_core=45.0, node_class="small",
          utilisation=Utilisation(percent=10)),
    Shape("medium", cores=8, megahertz=2400, memory_mebibytes=32768, gflops_per_core=60.0,
          node_class="medium", utilisation=Utilisation(percent=25)),
    Shape("large", cores=12, megahertz=2600, memory_mebibytes=65536, gflops_per_core=80.0, node_class="large",
          utilisation=Utilisation(percent=40)),
    Shape("xlarge", cores=16, megahertz=3000, memory_mebibytes=131072, gflops_per_core=105.0,
          node_class="xlarge", utilisation=Utilisation(percent=55)),
)  # fmt: skip


def read(nodes: str | int | Path) -> tuple[SimulatedNode, ...]:
    """Return the nodes of a count (the paper's four shapes in turn) or of a YAML file.

    The file: {nodes: [{name, count, cores, megahertz, memory_mebibytes, gflops_per_core, node_class,
    labels, taints, utilisation: 30 | {pattern, percent, low_percent, period_seconds}}]}; name is required.
    Raises ValueError that names the shape and the field.
    """
    if str(nodes).isdecimal():
        count = int(str(nodes))
        if count < 1:
            raise ValueError("nodes: use at least 1")
        shapes = (_PAPER[index % len(_PAPER)] for index in range(count))
        return tuple(
            SimulatedNode(f"{shape.name}-{index // len(_PAPER)}", shape) for index, shape in enumerate(shapes)
        )
    path = Path(str(nodes))
    content = yaml.safe_load(path.read_text())
    entries = content.get("nodes") if isinstance(content, dict) else None
    if not entries:
        raise ValueError(f"{path}: no list `nodes`")
    read_shapes = [_shape(path, entry) for entry in entries]
    found = tuple(
        SimulatedNode(f"{shape.name}-{index}", shape) for shape in read_shapes for index in range(shape.count)
    )
    names = [node.name for node in found]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{path}: nodes: names must be there and differ: {', '.join(sorted(names)[:10])}")
    return found


def _shape(path: Path, entry: dict[str, Any]) -> Shape:
    fields = dict(entry)
    if "utilisation" in fields:
        fields["utilisation"] = from_mapping(fields["utilisation"])
    fields["taints"] = tuple(fields.get("taints", ()))
    try:
        return Shape(**fields)
    except TypeError as error:
        raise ValueError(f"{path}: shape {entry.get('name', '?')}: {error}") from error
