"""What this machine and its processes used, from /proc: every figure of a benchmark stands beside it.

On a machine that others use too a figure means little without the share that they took, so that is told as
well: CPU time of the whole machine less that of the processes that took part.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# Fields of /proc/stat's first line (proc(5)): idle and iowait are no work, guests are counted in user.
_NO_WORK, _COUNTED = (3, 4), 8


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that was measured on, as far as its name tells."""

    cores: int
    architecture: str
    memory_mebibytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds so far: of the whole machine, and of each process that takes part."""

    at: float
    machine: float
    processes: dict[str, float]


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used between two readings; ``others_cores`` is what everything else on the machine took."""

    seconds: float
    cpu_seconds: dict[str, float]
    others_cores: float


def machine() -> Machine:
    """This machine."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Machine(len(os.sched_getaffinity(0)), platform.machine(), pages * size // 2**20)


def load() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]


def reading(processes: Iterable[tuple[str, int]]) -> Reading:
    """CPU seconds of the named processes and of the machine up to now."""
    taking_part = {name: cpu_seconds(pid) for name, pid in processes}
    return Reading(time.monotonic(), _machine_seconds(), taking_part)


def usage(before: Reading, after: Reading) -> Usage:
    """What happened between two readings of the same processes."""
    seconds = after.at - before.at
    spent = {name: after.processes[name] - before.processes[name] for name in before.processes}
    others = after.machine - before.machine - sum(spent.values())
    return Usage(seconds, spent, max(0.0, others) / seconds)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its threads; raises OSError when it is gone."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mebibytes(pid: int) -> float:
    """The most memory that was resident at once since the process began, or since ``forget_peak``."""
    return _status_mebibytes(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Have ``peak_mebibytes`` begin anew (proc(5), clear_refs); only one's own processes, or as root."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def resident_mebibytes(pid: int) -> float:
    """Memory that is resident now."""
    return _status_mebibytes(pid, "VmRSS")


def _status_mebibytes(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/status has no {field}")


def _machine_seconds() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1 : _COUNTED + 1]
    return sum(int(ticks) for place, ticks in enumerate(fields) if place not in _NO_WORK) / _TICKS
