"""CPU limits above the pods: quotas and CPU sets of the node's cgroup and its parents, cgroup v1 and v2.

The agent runs in a pod, so its own path leads through ``kubepods``. Levels from the root to ``kubepods`` bind
everything on the node and are read; the levels below are the agent's own quality class, pod and container
and are not. Outside of Kubernetes every level of the own path is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tailwise.api.hardware import CpuQuota

_MOST_QUOTAS = 8
_SEARCH_DEPTH = 4


def node_quotas(cgroup_root: Path, proc: Path, pod_uid: str | None = None) -> tuple[CpuQuota, ...]:
    """CFS limits of the levels above the pods, the outermost first.

    ``cgroup_root`` is where the host's /sys/fs/cgroup can be read, ``proc`` where /proc can. In a cgroup
    namespace the own path says nothing; then ``pod_uid`` finds the agent's pod in the host's tree.
    """
    quotas = (_quota(level) for level in _levels(cgroup_root, proc, "cpu", pod_uid))
    return tuple(quota for quota in quotas if quota is not None)[:_MOST_QUOTAS]


def node_cpus(cgroup_root: Path, proc: Path, pod_uid: str | None = None) -> frozenset[int] | None:
    """CPUs that the levels above the pods may run on; None where no CPU set says so."""
    allowed: frozenset[int] | None = None
    for level in _levels(cgroup_root, proc, "cpuset", pod_uid):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            text = _read(level / name)
            if text:
                cpus = parse_cpu_list(text)
                allowed = cpus if allowed is None else allowed & cpus
                break
    return allowed


def parse_cpu_list(text: str) -> frozenset[int]:
    """Read the kernel's list format: ``0-3,8`` is {0, 1, 2, 3, 8}."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.strip():
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def _levels(cgroup_root: Path, proc: Path, controller: str, pod_uid: str | None) -> Iterator[Path]:
    """Directories of the levels above the pods, from the root of the hierarchy down."""
    hierarchy = _hierarchy(cgroup_root, controller)
    if hierarchy is None:
        return
    path = _own_path(proc, controller)
    if "kubepods" not in path.as_posix() and pod_uid:
        path = _find_pod(hierarchy, pod_uid) or path
    level = hierarchy
    yield level
    for part in path.parts[1:]:
        level = level / part
        yield level
        if part.startswith("kubepods"):
            return


def _hierarchy(cgroup_root: Path, controller: str) -> Path | None:
    """The root of the tree that holds a controller: v2 has one tree, v1 one for each (or for two)."""
    if (cgroup_root / "cgroup.controllers").exists():
        return cgroup_root
    for name in (controller, "cpu,cpuacct", "cpuacct,cpu"):
        if controller in {name, "cpu"} and (cgroup_root / name).is_dir():
            return cgroup_root / name
    return None


def _own_path(proc: Path, controller: str) -> PurePosixPath:
    unified = PurePosixPath("/")
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
        if not controllers:
            unified = PurePosixPath(path)
    return unified


def _find_pod(hierarchy: Path, pod_uid: str) -> PurePosixPath | None:
    """Find the pod's directory by its uid; systemd's names have underscores where the uid has dashes."""
    names = (f"pod{pod_uid}", f"pod{pod_uid.replace('-', '_')}")
    # kubepods may lie at the root or below a slice, and a quality class may lie between it and the pod.
    for depth in range(1, _SEARCH_DEPTH + 2):
        for kubepods in hierarchy.glob("/".join(["*"] * (depth - 1) + ["kubepods*"])):
            for found in (*kubepods.glob("*pod*"), *kubepods.glob("*/*pod*")):
                if any(name in found.name for name in names):
                    return PurePosixPath("/", found.relative_to(hierarchy).as_posix())
    return None


def _quota(level: Path) -> CpuQuota | None:
    v2 = _read(level / "cpu.max").split()
    if len(v2) == 2:
        return None if v2[0] == "max" else _valid(int(v2[0]), int(v2[1]))
    quota, period = _read(level / "cpu.cfs_quota_us"), _read(level / "cpu.cfs_period_us")
    return _valid(int(quota), int(period)) if quota and period else None


def _valid(quota: int, period: int) -> CpuQuota | None:
    return CpuQuota(quota_microseconds=quota, period_microseconds=period) if min(quota, period) > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
