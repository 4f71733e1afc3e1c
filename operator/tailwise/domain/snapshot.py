"""The cluster at one moment, as arrays over its nodes: what every decision is made from.

A snapshot never changes. ``ClusterState`` (state.py) follows the API server and hands out snapshots; two
that differ in pods only share their ``NodeTable``, and with it the label columns that were asked for.
Nodes stand in the order of their names, so that equal clusters give equal decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tailwise.domain.objects import HostPort, Node
from tailwise.domain.pod_rules import PodGroup
from tailwise.domain.resources import CPU, EPHEMERAL_STORAGE, MEMORY, PODS
from tailwise.domain.selectors import Taint
from tailwise.domain.storage import ClaimKey, Storage

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]
Codes = NDArray[np.int32]

ABSENT = -1  # code of a label that a node does not have

# Sums over a node must stay within int64 whatever pods claim; no node has a pebibyte of anything.
CEILING = 2**50


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """One label over all nodes: ``codes`` (nodes,) number its values; ABSENT where it is missing."""

    codes: Codes
    code_of: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NodeTable:
    """The nodes as columns. ``allocatable`` maps a resource to an array (nodes,) in its unit.

    ``taint_codes`` (nodes,) index into ``taint_sets``: clusters have many nodes and few sets of taints.
    """

    nodes: tuple[Node, ...]
    names: tuple[str, ...]
    index: Mapping[str, int]
    allocatable: Mapping[str, Counts]
    unschedulable: Bools
    taint_codes: Codes
    taint_sets: tuple[tuple[Taint, ...], ...]
    # Filled on first use: a decision asks for two or three of the dozens of labels that nodes carry.
    _columns: dict[str, LabelColumn] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.nodes)

    def label(self, key: str) -> LabelColumn:
        """The column of one label."""
        column = self._columns.get(key)
        if column is None:
            column = self._columns[key] = _label_column(node.labels.get(key) for node in self.nodes)
        return column


@dataclass(frozen=True, slots=True)
class PortUse:
    """A host port in use: on which node, on which of its addresses."""

    node: str
    address: str


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """Nodes and what pods take of them; pods on their way to a node count there already.

    ``requested`` maps a resource (``pods`` included) to an array (nodes,); a resource that nobody asked for
    is missing. ``workload_nodes`` maps (namespace, workload) to the number of its pods on each node.
    ``groups`` maps a namespace to its groups of pods, and these to the number of pods on each node;
    ``repelling`` are the groups with anti-affinity of their own. ``claim_users`` maps a claim to the pods
    on nodes that use it, uid to node; the node is empty once it is bound. ``storage`` is None until it has
    been read.
    """

    table: NodeTable
    requested: Mapping[str, Counts]
    ports: Mapping[tuple[str, int], tuple[PortUse, ...]]
    workload_nodes: Mapping[tuple[str, str], Mapping[str, int]]
    groups: Mapping[str, Mapping[PodGroup, Mapping[str, int]]]
    repelling: frozenset[PodGroup]
    claim_users: Mapping[ClaimKey, Mapping[str, str]] = field(default_factory=dict)
    storage: Storage | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes, in the order of every array."""
        return self.table.names

    def free(self, resource: str) -> Counts:
        """Allocatable less requested, shape (nodes,); negative where a node is overcommitted."""
        allocatable = self.table.allocatable.get(resource)
        requested = self.requested.get(resource)
        if allocatable is None:
            allocatable = np.zeros(len(self.table), dtype=np.int64)
        return allocatable if requested is None else allocatable - requested

    def workload_pods(self, namespace: str, workload: str) -> Counts:
        """Pods of one workload on each node, shape (nodes,)."""
        counts = np.zeros(len(self.table), dtype=np.int64)
        for name, number in self.workload_nodes.get((namespace, workload), {}).items():
            position = self.table.index.get(name)
            if position is not None:
                counts[position] = number
        return counts

    def ports_taken(self, wanted: HostPort) -> Bools:
        """Nodes (nodes,) where the port is in use; 0.0.0.0 stands for every address."""
        taken = np.zeros(len(self.table), dtype=np.bool_)
        everywhere = HostPort._field_defaults["address"]
        for use in self.ports.get((wanted.protocol, wanted.port), ()):
            position = self.table.index.get(use.node)
            if position is not None and (
                everywhere in (wanted.address, use.address) or wanted.address == use.address
            ):
                taken[position] = True
        return taken


def node_table(nodes: Iterable[Node]) -> NodeTable:
    """Columns of the nodes, sorted by name."""
    ordered = tuple(sorted(nodes, key=lambda node: node.name))
    names = tuple(node.name for node in ordered)
    resources = {CPU, MEMORY, EPHEMERAL_STORAGE, PODS}.union(*(node.allocatable for node in ordered))
    taints = {taint_set: code for code, taint_set in enumerate(dict.fromkeys(n.taints for n in ordered))}
    return NodeTable(
        nodes=ordered,
        names=names,
        index={name: position for position, name in enumerate(names)},
        allocatable={
            resource: np.fromiter(
                (min(node.allocatable.get(resource, 0), CEILING) for node in ordered), np.int64, len(ordered)
            )
            for resource in sorted(resources)
        },
        unschedulable=np.fromiter((node.unschedulable for node in ordered), np.bool_, len(ordered)),
        taint_codes=np.fromiter((taints[node.taints] for node in ordered), np.int32, len(ordered)),
        taint_sets=tuple(taints),
    )


def with_nodes(table: NodeTable, changed: Mapping[str, Node | None]) -> NodeTable:
    """The table after some nodes changed, came, or (None) went."""
    same_names = all(node is not None and name in table.index for name, node in changed.items())
    if not same_names or len(changed) > len(table) // 8:
        nodes = dict(zip(table.names, table.nodes, strict=True)) | dict(changed)
        return node_table(node for node in nodes.values() if node is not None)
    for name, node in changed.items():
        assert node is not None  # noqa: S101 - said by same_names
        table = _with_node(table, table.index[name], node)
    return table


def _with_node(table: NodeTable, position: int, node: Node) -> NodeTable:
    """One node replaced: a few copies of short arrays instead of a walk over all nodes."""
    allocatable = dict(table.allocatable)
    for resource in node.allocatable.keys() | table.nodes[position].allocatable.keys():
        column = allocatable.get(resource)
        column = np.zeros(len(table), dtype=np.int64) if column is None else column.copy()
        column[position] = min(node.allocatable.get(resource, 0), CEILING)
        allocatable[resource] = column
    unschedulable = table.unschedulable.copy()
    unschedulable[position] = node.unschedulable
    taint_sets = table.taint_sets if node.taints in table.taint_sets else (*table.taint_sets, node.taints)
    taint_codes = table.taint_codes.copy()
    taint_codes[position] = taint_sets.index(node.taints)
    same_labels = node.labels == table.nodes[position].labels
    return replace(
        table,
        nodes=(*table.nodes[:position], node, *table.nodes[position + 1 :]),
        allocatable=allocatable,
        unschedulable=unschedulable,
        taint_codes=taint_codes,
        taint_sets=taint_sets,
        _columns=table._columns if same_labels else {},
    )


def _label_column(values: Iterable[str | None]) -> LabelColumn:
    codes_of: dict[str, int] = {}
    codes = [ABSENT if value is None else codes_of.setdefault(value, len(codes_of)) for value in values]
    return LabelColumn(np.array(codes, dtype=np.int32), codes_of)
