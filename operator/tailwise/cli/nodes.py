"""``tailwise nodes``: what is known of each node, and why it takes no pods if so; reads only."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.placement_policy import PlacementPolicy
from tailwise.cli.answering import Document, answer, columns, figure
from tailwise.cli.argument_types import add_output
from tailwise.cli.cluster_now import ClusterNow, add_options, read_cluster
from tailwise.cli.node_names import class_name
from tailwise.cluster.client import Client
from tailwise.domain.capacity import effective_capacity
from tailwise.domain.filtering import filter_nodes
from tailwise.domain.objects import Pod
from tailwise.domain.verdicts import Filter

_COLUMNS = {
    "NODE": "node",
    "CLASS": "nodeClass",
    "CORES": "cores",
    "EFF.CORES": "effectiveCores",
    "MHz": "megahertz",
    "EFF.MHz": "effectiveMegahertz",
    "UTIL(%)": "utilisationPercent",
    "AGE(s)": "dataAgeSeconds",
    "GFLOP/s": "gflopsPerCore",
    "GB/s": "copyGigabytesPerSecondPerCore",
    "PODS": "podsPlaced",
    "MEASURED": "hardwareAge",
    "OUT": "out",
}


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "nodes",
        help="tell what is known of each node",
        description="Shows each node: its class, cores and clock and what its load leaves of them (equations "
        "6 and 7), how old that is, the speeds that its agent measured on one core, the pods of workloads on "
        "it, and why it takes none if so. Changes nothing.",
    )
    add_output(parser)
    add_options(parser, namespaced=False)


def run(arguments: argparse.Namespace) -> int:
    """Show all nodes; exit code 1 when they cannot be read."""
    return answer("nodes", arguments, lambda client: _nodes(client, arguments), _table)


async def _nodes(client: Client, arguments: argparse.Namespace) -> Document:
    cluster = await read_cluster(client, arguments)
    return {"nodes": list(node_documents(cluster))}


def node_documents(cluster: ClusterNow) -> Iterator[Document]:
    """Each node as JSON, by name."""
    policy = PlacementPolicy()
    snapshot, facts, load = cluster.assessor.load(cluster.now, policy.max_data_age_seconds)
    hardware = {each.node: each for each in cluster.view.described()}
    clock = np.array([_megahertz(hardware.get(name)) for name in snapshot.names], dtype=np.float64)
    slowed = np.array([_frequency_utilisation(cluster, name) for name in snapshot.names], dtype=np.float64)
    left = effective_capacity(facts.capacity_cores, load.total, clock, slowed)
    placed = Counter(
        pod.occupied_node
        for key in cluster.view.registry.workloads
        for pod in cluster.pods_of(key)
        if pod.occupied_node
    )
    verdicts = filter_nodes(_any_pod(cluster.now), snapshot)
    for place, name in enumerate(snapshot.names):
        described, refusal = hardware.get(name), verdicts.of(place)
        out = refusal.words if refusal is not None else None
        if out is None and described is None:
            out = str(Filter.NO_HARDWARE)
        elif out is None and not snapshot.table.nodes[place].ready:
            out = "node is not ready"
        yield {
            "node": name,
            "nodeClass": class_name(described, [snapshot.table.nodes[place]]) if described else None,
            "cores": described.capacity_cores if described else None,
            "effectiveCores": figure(left.cores[place]),
            "megahertz": figure(clock[place], 0),
            "effectiveMegahertz": figure(left.megahertz[place], 0),
            "utilisationPercent": figure(100 * load.total[place], 1),
            "dataAgeSeconds": figure(load.age_seconds[place], 0),
            "gflopsPerCore": figure(described.measured.gflops_per_core) if described else None,
            "copyGigabytesPerSecondPerCore": figure(described.measured.copy_gigabytes_per_second_per_core)
            if described
            else None,
            "podsPlaced": placed[name],
            "hardwareAgeSeconds": _age_seconds(described, cluster.now),
            "out": out,
        }


def _megahertz(hardware: NodeHardware | None) -> float:
    known = (
        (hardware.maximum_megahertz, hardware.base_megahertz, hardware.current_megahertz) if hardware else ()
    )
    return float(next((each for each in known if each), np.nan))


def _frequency_utilisation(cluster: ClusterNow, node: str) -> float:
    """U_F of equation (7); NaN where nobody reads it, and on most virtual machines."""
    utilisation = cluster.assessor.utilisation
    reading = utilisation.node(node).frequency if utilisation is not None else None
    return np.nan if reading is None else reading.value


def _age_seconds(hardware: NodeHardware | None, now: datetime) -> int | None:
    if hardware is None:
        return None
    measured = hardware.measured_at
    measured = measured if measured.tzinfo else measured.replace(tzinfo=UTC)
    return max(0, round((now - measured).total_seconds()))


def _any_pod(now: datetime) -> Pod:
    """A pod that asks for nothing: what refuses it refuses every pod without tolerations."""
    return Pod(uid="", namespace="", name="any", created_at=now, labels={}, requests={})


def _table(document: Document) -> str:
    rows = []
    for each in document["nodes"]:
        cells = {**each, "hardwareAge": _duration(each["hardwareAgeSeconds"])}
        rows.append(tuple(cells[name] for name in _COLUMNS.values()))
    return "\n".join(columns(tuple(_COLUMNS), rows))


def _duration(seconds: int | None) -> str | None:
    """An age as kubectl prints it."""
    if seconds is None:
        return None
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
