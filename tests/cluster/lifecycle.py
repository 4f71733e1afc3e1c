"""Up, down, status and clean for clusters of any size, and whose cluster it is.

A cluster made for one process (a test session) is recorded with its owner's id and start time: `end_orphans`
ends those whose owner is gone. All others live until somebody takes them down.
"""

import importlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster import binaries, controlplane, processes, simulated
from tests.cluster.controlplane import ControlPlane, ControlPlaneSpec
from tests.cluster.locks import Progress, exclusive, say
from tests.cluster.paths import (
    cache_directory,
    cluster_directory,
    cluster_names,
    clusters_directory,
    logs_directory,
    remove_tree,
)
from tests.cluster.simulated import SimulatedCluster
from tests.cluster.sizes import Size

DEFAULT_SIMULATED_NODES = "12"
_LOGS_KEPT_DAYS = 3


def up(
    size: Size,
    name: str,
    *,
    kubernetes_version: str = binaries.DEFAULT_KUBERNETES,
    nodes: str | None = None,
    images: Iterable[Path] = (),
    owned: bool = False,
    progress: Progress = say,
) -> Any:
    """Bring a cluster up and return what its size's module returns (ControlPlane, SimulatedCluster, …).

    `images` are docker-archives that real nodes have from the start.
    `owned` ties its life to this process: `end_orphans` ends it when this process is gone.
    """
    claim(size, name, owned=owned)
    if size is Size.CONTROL_PLANE:
        if nodes is not None:
            raise ValueError("--nodes: a control plane has none; use simulated or real")
        spec = ControlPlaneSpec(name, kubernetes_version=kubernetes_version)
        return controlplane.up(spec, progress)
    if size is Size.SIMULATED:
        return simulated.up(
            name, nodes or DEFAULT_SIMULATED_NODES, kubernetes_version=kubernetes_version, progress=progress
        )
    if kubernetes_version != binaries.DEFAULT_KUBERNETES:
        raise ValueError(f"--kubernetes: real nodes are of {binaries.DEFAULT_KUBERNETES} only")
    shapes = _late("node_shapes").load(Path(nodes)) if nodes is not None else None
    return _late("real").up(name, shapes, progress, images=images)


def down(size: Size, name: str, progress: Progress = say) -> None:
    """End a cluster, as the size it was made with; nothing happens when there is none."""
    if Size(_read(name).get("size", size)) is Size.REAL:
        _late("real").down(name, progress)
    else:
        controlplane.down(name, progress)
    remove_tree(cluster_directory(name))


def clean(progress: Progress = say) -> None:
    """End all clusters of all names, and what crashes left of them."""
    names = cluster_names()
    for name in names:
        down(size_of(name), name, progress)
    left = sum(
        processes.end_marked(directory, progress=progress)
        for directory in (clusters_directory(), cache_directory())
    )
    if left:
        progress(f"{left} processes ended that belonged to no cluster any more")
    progress(f"{len(names)} clusters ended" if names else "no cluster was there")


def end_unrecorded(progress: Progress = say) -> None:
    """End real nodes' pods and namespaces that no record knows of; see `real.end_unrecorded`."""
    if os.geteuid() == 0:
        _late("real").end_unrecorded(progress)


def end_orphans(progress: Progress = say) -> None:
    """End the clusters whose owner is gone, such as a test session's that was killed; forget old logs."""
    for directory in logs_directory("any").parent.glob("*"):
        if not cluster_directory(directory.name).exists() and _days_old(directory) > _LOGS_KEPT_DAYS:
            remove_tree(directory)
    for name in cluster_names():
        owner = _read(name).get("owner")
        if owner is not None and processes.start_ticks(owner["pid"]) != owner["start_ticks"]:
            progress(f"cluster {name}: its owner, process {owner['pid']}, is gone")
            down(size_of(name), name, progress)


def kubeconfig(name: str) -> Path:
    """Return the path of a cluster's kubeconfig; raises ValueError when there is no such cluster."""
    path = cluster_directory(name) / "kubeconfig"
    if not path.exists():
        present = ", ".join(cluster_names()) or "none"
        raise ValueError(f"no cluster {name}; there are: {present}")
    return path


def show_all() -> int:
    """Print the state of every cluster; returns 0 when all of them are whole."""
    names = cluster_names()
    if not names:
        print("no clusters")
    return max([show(name) for name in names], default=0)


def show(name: str) -> int:
    """Print the state of a cluster; returns 0 when every daemon that was started still runs."""
    directory = cluster_directory(name)
    daemons = processes.recorded(directory)
    if not daemons:
        print(f"{name}: not up")
        return 1
    print(f"{name}: {size_of(name)}, in {directory}")
    dead = 0
    for daemon in daemons:
        alive = processes.is_alive(daemon)
        dead += not alive
        print(f"  {daemon.name:32} {'running' if alive else 'ENDED':8} {daemon.pid:>8}  {daemon.log}")
    if dead:
        print(f"  {dead} ended by themselves: `up` again heals it")
    return 1 if dead else 0


def existing(name: str) -> ControlPlane | SimulatedCluster | None:
    """Return a cluster without real nodes that somebody else keeps up, by its name."""
    return simulated.get(name) or controlplane.get(name)


def size_of(name: str) -> Size:
    """Return a cluster's size by what its directory holds, also when its module was called directly."""
    directory = cluster_directory(name)
    for size, file in ((Size.REAL, "real.json"), (Size.SIMULATED, "simulated.json")):
        if (directory / file).exists():
            return size
    return Size(_read(name).get("size", Size.CONTROL_PLANE))


def claim(size: Size, name: str, *, owned: bool) -> None:
    """Write down a cluster's size and, if `owned`, that it lives as long as this process.

    Raises ValueError when the name belongs to a cluster of another size.
    """
    directory = cluster_directory(name)
    with exclusive(clusters_directory() / f".{name}.lock", f"cluster {name}"):
        present = size_of(name)
        if directory.exists() and present != size:
            raise ValueError(
                f"cluster {name} is {present}, not {size}: take it down first, or use another --name"
            )
        owner = {"pid": os.getpid(), "start_ticks": processes.start_ticks(os.getpid())} if owned else None
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cluster.json").write_text(json.dumps({"size": size, "owner": owner}))


def _read(name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((cluster_directory(name) / "cluster.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content


def _days_old(directory: Path) -> float:
    newest = max((path.stat().st_mtime for path in directory.iterdir()), default=0.0)
    return (time.time() - newest) / 86_400


def _late(module: str) -> Any:
    # What the size `real` needs is no business of the other two.
    return importlib.import_module(f"tests.cluster.{module}")
