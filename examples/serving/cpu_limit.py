"""How many threads inference may use: the pod's CPU limit, rounded up.

One thread more than the limit allows makes the kernel throttle all of them: measured, that triples the P90.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def threads(environment: Mapping[str, str] = os.environ, cgroup: Path = _CGROUP) -> int:
    """Threads for inference, at least 1.

    THREADS says it outright. Else the limit comes from CPU_LIMIT_MILLICORES (the downward API's limits.cpu
    with divisor 1m), else from the container's own cgroup, and is never above the CPUs this process may run
    on. Raises ValueError for a variable that is no whole number above 0.
    """
    if "THREADS" in environment:
        return _positive("THREADS", environment["THREADS"])
    allowed = len(os.sched_getaffinity(0))
    if "CPU_LIMIT_MILLICORES" in environment:
        limit: float | None = _positive("CPU_LIMIT_MILLICORES", environment["CPU_LIMIT_MILLICORES"]) / 1000
    else:
        limit = quota_cores(cgroup)
    return allowed if limit is None else max(1, min(allowed, math.ceil(limit)))


def quota_cores(cgroup: Path = _CGROUP) -> float | None:
    """Cores of the CFS quota on this container, by cgroup v2 or v1; None where there is none."""
    unified = cgroup / "cpu.max"
    if unified.exists():
        quota, period = unified.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    for controller in ("cpu", "cpu,cpuacct"):
        directory = cgroup / controller
        if (directory / "cpu.cfs_quota_us").exists():
            microseconds = int((directory / "cpu.cfs_quota_us").read_text())
            period_microseconds = int((directory / "cpu.cfs_period_us").read_text())
            return microseconds / period_microseconds if microseconds > 0 else None
    return None


def _positive(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {text!r}")
    return value
