"""What each carved-out node would show of itself, as text files for its node-exporter.

node-exporter reads /proc, which shows the whole machine. A node here is a control group with a quota, so its
CPU and memory are accounted from the group: a node of 0.15 cores appears as one CPU, which is busy all the
time when the quota is used up. Hence `1 - rate(idle)`, and every other ratio of modes, is the node's own
utilisation. Run as a program with the path of a JSON file: [{"group", "cores", "memory_bytes", "file"}], one
entry a node.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster import cgroups

_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Account:
    """One node: its control group, its size, and the text file to write."""

    group: str
    cores: float
    memory_bytes: int
    file: str

    @property
    def shown_cpus(self) -> int:
        """CPUs that the node seems to have: whole ones, each as slow as makes `cores` in all."""
        return math.ceil(self.cores)


@dataclass(frozen=True, slots=True)
class Totals:
    """Seconds so far, each summed over the CPUs shown. They only grow."""

    user: float = 0.0
    system: float = 0.0
    idle: float = 0.0


def advance(
    totals: Totals, account: Account, elapsed: float, user_seconds: float, system_seconds: float
) -> Totals:
    """Add `elapsed` wall seconds with these CPU seconds of the group, as time of slower whole CPUs."""
    available = elapsed * account.shown_cpus
    stretch = account.shown_cpus / account.cores
    busy = min(available, stretch * (user_seconds + system_seconds))
    system_part = (
        system_seconds / (user_seconds + system_seconds) if user_seconds + system_seconds > 0 else 0.0
    )
    return Totals(
        user=totals.user + busy * (1 - system_part),
        system=totals.system + busy * system_part,
        idle=totals.idle + available - busy,
    )


def text(totals: Totals, account: Account, memory_used_bytes: int) -> str:
    """The metrics in Prometheus' text format, under node-exporter's own names."""
    lines = ["# TYPE node_cpu_seconds_total counter"]
    for cpu in range(account.shown_cpus):
        for mode, seconds in asdict(totals).items():
            share = seconds / account.shown_cpus
            lines.append(f'node_cpu_seconds_total{{cpu="{cpu}",mode="{mode}"}} {share:.6f}')
    available = max(0, account.memory_bytes - memory_used_bytes)
    for name, value in (("MemTotal", account.memory_bytes), ("MemAvailable", available)):
        lines += [f"# TYPE node_memory_{name}_bytes gauge", f"node_memory_{name}_bytes {value}"]
    return "\n".join(lines) + "\n"


def run(accounts: Sequence[Account]) -> None:
    """Write every node's file once a second, for ever; a node whose group is gone is left out."""
    known: dict[str, tuple[Totals, float, tuple[float, float]]] = {}
    while True:
        for account in accounts:
            for now, used, memory_used in _read(account):
                totals, before, used_before = known.get(account.group, (Totals(), now, used))
                # A group made anew begins again at nothing.
                grown = [max(0.0, new - old) for new, old in zip(used, used_before, strict=True)]
                totals = advance(totals, account, now - before, *grown)
                known[account.group] = (totals, now, used)
                _replace(Path(account.file), text(totals, account, memory_used))
        time.sleep(_INTERVAL_SECONDS)


def _read(account: Account) -> Iterator[tuple[float, tuple[float, float], int]]:
    try:
        yield (
            time.monotonic(),
            cgroups.cpu_seconds_by_mode(account.group),
            cgroups.memory_bytes(account.group),
        )
    except OSError:
        return


def _replace(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".new")  # node-exporter reads *.prom only
    temporary.write_text(content)
    temporary.replace(file)


if __name__ == "__main__":
    run([Account(**entry) for entry in json.loads(Path(sys.argv[1]).read_text())])
