"""Control groups of pods on the harness's nodes: CPU limits as kubelet writes them, CPU time, throttling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cgroups
from tests.cluster.real_node import cluster_group

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 100_000
_USUAL_SHARES = 1024
_MOST_SHARES = 262_144


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of a group since it was made."""

    cpu_seconds: float
    periods: int
    throttled_periods: int

    def since(self, before: Usage) -> Usage:
        """What was added since."""
        return Usage(
            self.cpu_seconds - before.cpu_seconds,
            self.periods - before.periods,
            self.throttled_periods - before.throttled_periods,
        )


@dataclass(frozen=True, slots=True)
class PodGroup:
    """A pod's group and its one container's, as paths below the hierarchies' roots."""

    pod: str
    container: str

    def limit(self, millicores: int | None) -> None:
        """Give pod and container this CPU limit; None lifts it."""
        # A child's quota may never exceed its parent's: lift both from below, then set both from above.
        for group in (self.container, self.pod):
            _write_quota(group, None)
        for group in (self.pod, self.container):
            _write_quota(group, millicores)

    def request(self, millicores: int) -> None:
        """Weigh pod and container as kubelet weighs a CPU request.

        Pods of all models stand on a node at once; requests for all of them would not fit. A weight near
        nothing is no way out: threads of such a group starve on a CPU where it has not run lately.
        """
        for group in (self.pod, self.container):
            cgroups.set_shares(group, max(2, millicores * 1024 // 1000))

    def usage(self) -> Usage:
        """The pod's CPU time, and the container's periods and throttling."""
        stat = dict(
            line.split() for line in _file("cpu", self.container, "cpu.stat").read_text().splitlines()
        )
        return Usage(
            cgroups.cpu_seconds(self.pod), int(stat.get("nr_periods", 0)), int(stat.get("nr_throttled", 0))
        )


def pod_group(node_group: str, uid: str) -> PodGroup:
    """Find the groups of a pod of one container on a node.

    Raises:
        RuntimeError: it is not there.
    """
    base = _ROOT if cgroups.is_v2() else _ROOT / "cpu"
    for pod in sorted((base / node_group.strip("/")).glob(f"kubepods/**/pod{uid}")):
        # The pause container uses no CPU: the one that used most is the server.
        children = [f"/{child.relative_to(base)}" for child in pod.iterdir() if child.is_dir()]
        if children:
            return PodGroup(f"/{pod.relative_to(base)}", max(children, key=cgroups.cpu_seconds))
    raise RuntimeError(f"pod {uid}: no control group below {node_group}")


def raise_shares(cluster: str, nodes: Iterable[str]) -> None:
    """Weigh what is measured, and its load generators, above the machine's daemons.

    On a cluster elsewhere they are other machines; here a daemon's work must not become a pod's latency.
    """
    _weigh(cluster, nodes, _MOST_SHARES)


def put_shares_back(cluster: str, nodes: Iterable[str]) -> None:
    """Weigh the cluster as it came up."""
    _weigh(cluster, nodes, _USUAL_SHARES)


def _weigh(cluster: str, nodes: Iterable[str], shares: int) -> None:
    cgroups.set_shares(cluster_group(cluster), shares)
    for node in nodes:
        cgroups.set_shares(f"{cluster_group(cluster)}/{node}", shares)


def _write_quota(group: str, millicores: int | None) -> None:
    quota = None if millicores is None else millicores * _PERIOD_MICROSECONDS // 1000
    if cgroups.is_v2():
        _file("", group, "cpu.max").write_text(f"{'max' if quota is None else quota} {_PERIOD_MICROSECONDS}")
        return
    _file("cpu", group, "cpu.cfs_quota_us").write_text("-1" if quota is None else str(quota))


def _file(controller: str, group: str, name: str) -> Path:
    return _ROOT / ("" if cgroups.is_v2() else controller) / group.strip("/") / name
