"""One reading of the node: what the kernel says, the limits above the pods, and the probe's speeds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tailwise.agent.cgroups import node_cpus, node_quotas
from tailwise.agent.machine import read_machine
from tailwise.agent.probe import PROBE_VERSION
from tailwise.api.hardware import MeasuredSpeed, NodeHardware


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the host's kernel interfaces can be read; the agent's pod mounts the cgroup tree elsewhere."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    cgroup: Path = Path("/sys/fs/cgroup")
    pod_uid: str | None = None


def read_hardware(node: str, roots: Roots, measured: MeasuredSpeed, measured_at: datetime) -> NodeHardware:
    """Put together what is read now and what the probe measured at ``measured_at``."""
    machine = read_machine(roots.proc, roots.sys)
    return NodeHardware(
        node=node,
        cores=online_cores(roots),
        cpu_model=machine.cpu_model,
        architecture=machine.architecture,
        base_megahertz=machine.base_megahertz,
        maximum_megahertz=machine.maximum_megahertz,
        current_megahertz=machine.current_megahertz,
        l1d_cache_bytes=machine.l1d_cache_bytes,
        l2_cache_bytes=machine.l2_cache_bytes,
        l3_cache_bytes=machine.l3_cache_bytes,
        instruction_sets=machine.instruction_sets,
        memory_bytes=machine.memory_bytes,
        cpu_quotas=node_quotas(roots.cgroup, roots.proc, roots.pod_uid),
        measured=measured,
        measured_at=measured_at,
        probe_version=PROBE_VERSION,
    )


def online_cores(roots: Roots) -> int:
    """Logical CPUs online that the node's own CPU set allows."""
    online = read_machine(roots.proc, roots.sys).cpus
    allowed = node_cpus(roots.cgroup, roots.proc, roots.pod_uid)
    usable = online if allowed is None else online & allowed
    return max(1, len(usable or online))


def lasting_facts(hardware: NodeHardware) -> NodeHardware:
    """The reading without what changes by itself from one moment to the next: the clock as read now."""
    return hardware.model_copy(update={"current_megahertz": None})
