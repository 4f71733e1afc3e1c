"""Runs ONNX Runtime queries in a cgroup with a CFS quota and returns their wall clock latencies.

Needs root and cgroup v1 or v2. The child is a process of its own that joins the cgroup before it starts the
runtime, as a container does. ``cpu.shares`` (v2: ``cpu.weight``) of the cgroup is raised so that whatever
else runs on the machine does not become part of the measurement: what is left is the quota.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PERIOD_MICROSECONDS = 100_000
V1_ROOT = Path("/sys/fs/cgroup/cpu")
V2_ROOT = Path("/sys/fs/cgroup")


def can_limit() -> bool:
    """Whether this process may create cgroups with CPU limits here."""
    root = V1_ROOT if (V1_ROOT / "cpu.cfs_quota_us").exists() else V2_ROOT
    return os.geteuid() == 0 and os.access(root, os.W_OK)


@contextlib.contextmanager
def cpu_cgroup(millicores: int | None, period_microseconds: int = PERIOD_MICROSECONDS) -> Iterator[Path]:
    """A new cgroup limited to ``millicores`` (none: no limit); removed afterwards."""
    name = f"tailwise-bench-{os.getpid()}-{time.monotonic_ns()}"
    quota = None if millicores is None else millicores * period_microseconds // 1000
    if (V1_ROOT / "cpu.cfs_quota_us").exists():
        group = V1_ROOT / name
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(period_microseconds))
        (group / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota))
        (group / "cpu.shares").write_text("262144")
    else:
        with contextlib.suppress(OSError):
            (V2_ROOT / "cgroup.subtree_control").write_text("+cpu")
        group = V2_ROOT / name
        group.mkdir()
        (group / "cpu.max").write_text(f"{'max' if quota is None else quota} {period_microseconds}")
        (group / "cpu.weight").write_text("10000")
    try:
        yield group
    finally:
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)


def latencies_milliseconds(
    path: Path,
    millicores: int | None,
    threads: int,
    seconds: float = 6.0,
    least_queries: int = 60,
    batch_size: int = 1,
    period_microseconds: int = PERIOD_MICROSECONDS,
) -> dict[str, list[float]]:
    """Wall clock and CPU time of back-to-back queries in milliseconds, after a warm-up outside the limit."""
    with cpu_cgroup(millicores, period_microseconds) as group:
        request = {
            "path": str(path), "threads": threads, "seconds": seconds, "least": least_queries,
            "batch": batch_size, "group": str(group),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "bench.prior.limited"],
            input=json.dumps(request), capture_output=True, text=True, check=False, timeout=60 + 20 * seconds,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{path.name}: {done.stderr[-500:]}")
    answer: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def child() -> int:
    """Open the model, join the cgroup, run queries, print their latencies."""
    from bench.prior.measure import session  # noqa: PLC0415 - only the child starts the runtime

    request = json.loads(sys.stdin.read())
    # Threads inherit the cgroup: join first, or the runtime's pool would stay outside the limit.
    (Path(request["group"]) / "cgroup.procs").write_text(str(os.getpid()))
    opened, inputs = session(Path(request["path"]), request["threads"], request["batch"])
    for _ in range(3):
        opened.run(None, inputs)
    wall: list[float] = []
    burnt = time.process_time()
    end = time.perf_counter() + request["seconds"]
    hard_end = end + 5 * request["seconds"]
    while (time.perf_counter() < end or len(wall) < request["least"]) and time.perf_counter() < hard_end:
        # perf_counter only: asking for CPU time enters the kernel, which would notice a spent quota between
        # two queries, where a server's own clock does not look.
        started = time.perf_counter()
        opened.run(None, inputs)
        wall.append((time.perf_counter() - started) * 1e3)
    burnt = (time.process_time() - burnt) * 1e3
    print(json.dumps({"wall": wall, "cpu": [burnt / len(wall)]}))
    return 0


if __name__ == "__main__":
    raise SystemExit(child())
