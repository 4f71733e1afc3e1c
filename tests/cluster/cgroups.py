"""Control groups of real nodes: made, limited, read and removed, on cgroup v1 or on cgroup v2 alone.

A group is named as kubelet names it, `/CLUSTER/NODE`, from the root of each hierarchy.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

CLUSTER_PREFIX = "tailwise-"
_ROOT = Path("/sys/fs/cgroup")
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")
# Default 100 ms periods make tails by throttling that a slower machine would not have; 10 ms was measured to
# be near a truly slower one (x2 meant: P50 x2.05, P90 x2.23). The kernel refuses quotas below 1 ms.
QUOTA_PERIOD_MICROSECONDS = 10_000
_LEAST_QUOTA_MICROSECONDS = 1_000
_REMOVAL_SECONDS = 10.0


class ControlGroupError(RuntimeError):
    """A control group could not be made, limited or removed."""


def is_v2() -> bool:
    """Whether the machine has cgroup v2 alone; v2 beside v1 hierarchies counts as v1, as for kubelet."""
    return (_ROOT / "cgroup.controllers").exists()


def hierarchies() -> tuple[Path, ...]:
    """Mount points of every hierarchy a group must exist in: one for v2, one a controller for v1."""
    return (_ROOT,) if is_v2() else _mounts("cgroup")


def _mounts(*kinds: str) -> tuple[Path, ...]:
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return tuple(sorted({Path(fields[1]) for fields in lines if fields[2] in kinds}))


def ensure(group: str, *, cores: float | None = None) -> None:
    """Make the group in every hierarchy and let it use at most `cores` cores (None: all of them).

    Raises:
        ControlGroupError: when `cores` is too little for the kernel's least quota.
    """
    for hierarchy in hierarchies():
        directory = hierarchy
        for part in group.strip("/").split("/"):
            _hand_down_controllers(directory)
            parent, directory = directory, directory / part
            directory.mkdir(exist_ok=True)
            _fill_cpuset(parent, directory)
    _limit(group, cores)


def confine(group: str, cpus: Sequence[int]) -> None:
    """Let the groups below run on these CPUs alone; what is made below them later inherits that.

    On v1 the group itself keeps all, because kubelet gives its own below it all of the machine when it starts
    and dies where that is refused: call this after it.
    """
    if is_v2():
        _path("", group, "cpuset.cpus").write_text(",".join(map(str, cpus)))
        return
    top = _ROOT / "cpuset" / group.strip("/")
    # The deepest first: a parent may not give up a CPU that a child has.
    for directory, _, _ in os.walk(top, topdown=False):
        if Path(directory) != top:
            with suppress(FileNotFoundError):  # a pod that ended meanwhile
                (Path(directory) / "cpuset.cpus").write_text(",".join(map(str, cpus)))


def cpu_seconds(group: str) -> float:
    """CPU time that the group's processes have used since it was made."""
    if is_v2():
        stat = dict(line.split() for line in _path("", group, "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6
    return int(_path("cpuacct", group, "cpuacct.usage").read_text()) / 1e9


def cpu_seconds_by_mode(group: str) -> tuple[float, float]:
    """CPU time that the group's processes have used in user mode and in the kernel."""
    if is_v2():
        stat = dict(line.split() for line in _path("", group, "cpu.stat").read_text().splitlines())
        return int(stat["user_usec"]) / 1e6, int(stat["system_usec"]) / 1e6
    user, system = (
        int(_path("cpuacct", group, f"cpuacct.usage_{mode}").read_text()) / 1e9 for mode in ("user", "sys")
    )
    return user, system


def memory_bytes(group: str) -> int:
    """Memory charged to the group that cannot be had back at once, as kubelet counts a working set."""
    used, inactive = (
        ("memory.current", "inactive_file") if is_v2() else ("memory.usage_in_bytes", "total_inactive_file")
    )
    directory = _path("" if is_v2() else "memory", group, "")
    stat = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
    return max(0, int((directory / used).read_text()) - int(stat.get(inactive, 0)))


def set_shares(group: str, shares: int) -> None:
    """Weigh the group against its siblings: `shares` in v1's scale (1024 = one core's worth of requests)."""
    if is_v2():
        # The mapping of KEP-2254, which kubelet uses too: [2, 262144] onto [1, 10000].
        weight = 1 + (shares - 2) * 9999 // 262142
        _path("", group, "cpu.weight").write_text(str(weight))
    else:
        _path("cpu", group, "cpu.shares").write_text(str(shares))


def membership_files(group: str) -> tuple[Path, ...]:
    """Files into which a process writes its id to join the group, one a hierarchy."""
    return tuple(hierarchy / group.strip("/") / "cgroup.procs" for hierarchy in hierarchies())


def processes(group: str) -> frozenset[int]:
    """Ids of all processes in the group and below, in any hierarchy."""
    found: set[int] = set()
    for directory in _directories(group):
        with suppress(OSError):
            found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
    return frozenset(found)


def kill(group: str) -> None:
    """Kill every process of the group and below, until none is left.

    Raises:
        ControlGroupError: when some survive.
    """
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while pids := processes(group):
        if time.monotonic() > deadline:
            raise ControlGroupError(f"processes {sorted(pids)} in control group {group} survive SIGKILL")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def clusters() -> frozenset[str]:
    """Names of the clusters that have a control group, in any hierarchy."""
    found = (group for mount in _mounts("cgroup", "cgroup2") for group in mount.glob(f"{CLUSTER_PREFIX}*"))
    return frozenset(group.name.removeprefix(CLUSTER_PREFIX) for group in found if group.is_dir())


def remove(group: str) -> None:
    """Kill what runs in the group and remove it with all below it; an absent group is no error."""
    kill(group)
    deadline = time.monotonic() + _REMOVAL_SECONDS
    for directory in _directories(group):
        while directory.exists():
            try:
                directory.rmdir()
            except OSError as error:  # an ended process leaves its group a moment after its death
                if time.monotonic() > deadline:
                    raise ControlGroupError(f"{directory}: {error.strerror}") from error
                time.sleep(0.02)


def _directories(group: str) -> Iterator[Path]:
    """Every directory of the group, the deepest first; kubelet also makes them on a v2 mount beside v1."""
    for hierarchy in _mounts("cgroup", "cgroup2"):
        for directory, _, _ in os.walk(hierarchy / group.strip("/"), topdown=False):
            yield Path(directory)


def _path(controller: str, group: str, file: str) -> Path:
    return _ROOT / controller / group.strip("/") / file


def _limit(group: str, cores: float | None) -> None:
    quota = -1 if cores is None else round(cores * QUOTA_PERIOD_MICROSECONDS)
    if 0 <= quota < _LEAST_QUOTA_MICROSECONDS:
        least = _LEAST_QUOTA_MICROSECONDS / QUOTA_PERIOD_MICROSECONDS
        raise ControlGroupError(
            f"control group {group}: {cores} cores is below the least quota, {least} cores"
        )
    if is_v2():
        _path("", group, "cpu.max").write_text(f"{'max' if quota < 0 else quota} {QUOTA_PERIOD_MICROSECONDS}")
        return
    # The quota goes first when it is lifted and last when it is set, else the kernel may see a forbidden
    # mixture.
    _path("cpu", group, "cpu.cfs_quota_us").write_text("-1")
    _path("cpu", group, "cpu.cfs_period_us").write_text(str(QUOTA_PERIOD_MICROSECONDS))
    _path("cpu", group, "cpu.cfs_quota_us").write_text(str(quota))


def _hand_down_controllers(directory: Path) -> None:
    if not is_v2():
        return
    present = (directory / "cgroup.controllers").read_text().split()
    for controller in _V2_CONTROLLERS:
        if controller in present:
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _fill_cpuset(parent: Path, directory: Path) -> None:
    """On v1 a new cpuset is empty and takes no process until it is given CPUs and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = directory / name
        if not is_v2() and file.exists() and not file.read_text().strip():
            file.write_text((parent / name).read_text())
