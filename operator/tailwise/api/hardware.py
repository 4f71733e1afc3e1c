"""A node's hardware as its agent measured it: the document in the node's ConfigMap.

``tailwise agent --print`` prints this document as YAML; ``tailwise predict --node`` reads it. The agent's
ConfigMap carries the label ``tailwise.dev/node-hardware: "true"``, the name ``tailwise-hardware-NODE``
and the document under the key ``hardware.yaml``.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tailwise.api.document import Document

HARDWARE_LABEL = "tailwise.dev/node-hardware"
HARDWARE_KEY = "hardware.yaml"


class CpuQuota(Document):
    """A CFS bandwidth limit that binds everything on the node (not the agent's own pod)."""

    quota_microseconds: int = Field(gt=0, description="CPU time allowed in each period.")
    period_microseconds: int = Field(gt=0, description="Length of a period.")

    @property
    def cores(self) -> float:
        """Cores the quota is worth."""
        return self.quota_microseconds / self.period_microseconds


class MeasuredSpeed(Document):
    """Speeds that the agent's probe measured by CPU time, so that neighbours and quotas do not lower them."""

    gflops_per_core: float = Field(gt=0, description="Single precision matrix product on one core, GFLOP/s.")
    copy_gigabytes_per_second_per_core: float = Field(gt=0, description="Memory copy by one core, GB/s.")
    gflops_all_cores: float | None = Field(None, gt=0, description="The same on all cores at once.")
    copy_gigabytes_per_second_all_cores: float | None = Field(
        None, gt=0, description="The same on all cores."
    )
    runtime_gflops_per_core: float | None = Field(
        None, gt=0, description="Convolution-like work in the inference runtime itself on one core, GFLOP/s."
    )
    operator_overhead_nanoseconds: float | None = Field(
        None, gt=0, description="Fixed cost of one small operator in the inference runtime."
    )


class NodeHardware(Document):
    """What prediction knows of a node that does not change with load."""

    node: str = Field(max_length=253, description="Name of the Node object.")
    cores: int = Field(ge=1, description="Logical CPUs online.")
    cpu_model: str = Field("", max_length=200, description="Model name of the processor.")
    architecture: str = Field("", max_length=32, description="Machine architecture, as uname prints it.")
    base_megahertz: int | None = Field(
        None, ge=0, description="Nominal clock; none where it cannot be known."
    )
    maximum_megahertz: int | None = Field(None, ge=0, description="Highest clock; none where unknown.")
    current_megahertz: int | None = Field(None, ge=0, description="Clock when read; none where unknown.")
    l1d_cache_bytes: int = Field(0, ge=0, description="Level 1 data cache of a core.")
    l2_cache_bytes: int = Field(0, ge=0, description="Level 2 cache of a core.")
    l3_cache_bytes: int = Field(0, ge=0, description="Level 3 cache, all instances.")
    instruction_sets: tuple[str, ...] = Field(
        default=(), max_length=64, description="ISA extensions that matter: avx2, avx512f, amx …"
    )
    memory_bytes: int = Field(0, ge=0, description="Memory of the node.")
    cpu_quotas: tuple[CpuQuota, ...] = Field(
        default=(),
        max_length=8,
        description="CFS limits above the pods: of the node's cgroup and its parents.",
    )
    measured: MeasuredSpeed = Field(description="Speeds measured by the agent's probe.")
    measured_at: datetime = Field(description="When the probe ran.")
    probe_version: int = Field(1, ge=1, description="Version of the probe; figures compare within one only.")

    @property
    def capacity_cores(self) -> float:
        """Cores that everything on the node can use at once: CPU of equation (6)."""
        return min([float(self.cores), *(quota.cores for quota in self.cpu_quotas)])

    @property
    def node_class(self) -> str:
        """Nodes of one class share prediction tables: same processor, cores and limits."""
        quotas = ",".join(f"{q.quota_microseconds}/{q.period_microseconds}" for q in self.cpu_quotas)
        return f"{self.cpu_model}|{self.architecture}|{self.cores}|{quotas}"
