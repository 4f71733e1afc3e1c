from __future__ import annotations

from pathlib import Path

import pytest

from tailwise.agent.cgroups import node_cpus, node_quotas, parse_cpu_list
from tailwise.api.hardware import CpuQuota

UID = "0d3b8f5e-7a41-4f6c-9b1e-2f6f3f0f7c11"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def quota(microseconds: int, period: int = 100_000) -> CpuQuota:
    return CpuQuota(quota_microseconds=microseconds, period_microseconds=period)


def test_limits_above_the_pods_are_read_and_the_agents_own_are_not_in_v2(tmp_path: Path) -> None:
    pod = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
    cgroup = tree(
        tmp_path / "cgroup",
        {
            "cgroup.controllers": "cpu memory",
            "kubepods.slice/cpu.max": "800000 100000",
            "kubepods.slice/kubepods-burstable.slice/cpu.max": "max 100000",
            f"{pod}/cpu.max": "20000 100000",
            f"{pod}/cri-containerd-abc.scope/cpu.max": "10000 100000",
        },
    )
    proc = tree(tmp_path / "proc", {"self/cgroup": f"0::/{pod}/cri-containerd-abc.scope"})
    assert node_quotas(cgroup, proc) == (quota(800_000),)


def test_nested_limits_with_periods_of_their_own_are_read_in_v1(tmp_path: Path) -> None:
    cgroup = tree(
        tmp_path / "cgroup",
        {
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "cpu/node-a/cpu.cfs_quota_us": "15000",
            "cpu/node-a/cpu.cfs_period_us": "10000",
            "cpu/node-a/kubepods/cpu.cfs_quota_us": "-1",
            "cpu/node-a/kubepods/cpu.cfs_period_us": "100000",
            f"cpu/node-a/kubepods/burstable/pod{UID}/cpu.cfs_quota_us": "5000",
            f"cpu/node-a/kubepods/burstable/pod{UID}/cpu.cfs_period_us": "100000",
            "cpuset/cpuset.effective_cpus": "0-7",
            "cpuset/node-a/cpuset.cpus": "0-1,4",
            f"cpuset/node-a/kubepods/burstable/pod{UID}/cpuset.cpus": "0",
        },
    )
    own = f"/node-a/kubepods/burstable/pod{UID}/c1"
    proc = tree(
        tmp_path / "proc", {"self/cgroup": f"9:name=systemd:/\n3:cpuset:{own}\n2:cpu,cpuacct:{own}\n0::/"}
    )
    assert node_quotas(cgroup, proc) == (quota(15_000, 10_000),)
    assert node_cpus(cgroup, proc) == frozenset({0, 1, 4})


def test_a_cgroup_namespace_hides_the_path_and_the_pods_uid_finds_it(tmp_path: Path) -> None:
    cgroup = tree(
        tmp_path / "cgroup",
        {
            "cgroup.controllers": "cpu",
            "other/kubepods/cpu.max": "max 100000",
            "other/cpu.max": "100000 100000",
            "node-b/cpu.max": "300000 100000",
            f"node-b/kubepods/besteffort/pod{UID}/cpu.max": "max 100000",
        },
    )
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/"})
    assert node_quotas(cgroup, proc, UID) == (quota(300_000),)
    assert node_quotas(cgroup, proc) == ()


def test_a_machine_without_cgroups_has_no_limits(tmp_path: Path) -> None:
    assert node_quotas(tmp_path / "none", tmp_path / "proc") == ()
    assert node_cpus(tmp_path / "none", tmp_path / "proc") is None


@pytest.mark.parametrize(("text", "cpus"), [("0-3,8", {0, 1, 2, 3, 8}), ("5\n", {5}), ("", set())])
def test_cpu_lists_are_read_in_the_kernels_format(text: str, cpus: set[int]) -> None:
    assert parse_cpu_list(text) == cpus
