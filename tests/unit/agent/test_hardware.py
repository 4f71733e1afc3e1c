from __future__ import annotations

import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tailwise.agent.machine import read_machine
from tailwise.agent.probe import measure
from tailwise.agent.publishing import REPROBE_AFTER, needs_probe
from tailwise.agent.reading import Roots, lasting_facts, read_hardware
from tailwise.api.hardware import MeasuredSpeed, NodeHardware
from tailwise.cli.main import main
from tests.unit.agent.test_cgroups import tree
from tests.unit.prediction.builders import node

CPUINFO = """processor\t: 0
model name\t: Intel(R) Xeon(R) Gold 6140 CPU @ 2.30GHz
cpu MHz\t\t: 2294.608
flags\t\t: fpu avx avx2 fma avx512f hypervisor

processor\t: 1
model name\t: Intel(R) Xeon(R) Gold 6140 CPU @ 2.30GHz
cpu MHz\t\t: 2300.000
flags\t\t: fpu avx avx2 fma avx512f hypervisor
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimddp sve
CPU part\t: 0xd0c
"""
SPEED = MeasuredSpeed(gflops_per_core=100.0, copy_gigabytes_per_second_per_core=10.0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def machine_roots(root: Path, cpuinfo: str) -> Roots:
    tree(root / "proc", {"cpuinfo": cpuinfo, "meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB"})
    caches: dict[str, str] = {}
    for cpu in (0, 1):
        for index, (level, kind, size, shared) in enumerate(
            [
                ("1", "Data", "32K", str(cpu)),
                ("2", "Unified", "1024K", str(cpu)),
                ("3", "Unified", "32M", "0-1"),
            ]
        ):
            base = f"devices/system/cpu/cpu{cpu}/cache/index{index}"
            caches |= {
                f"{base}/level": level,
                f"{base}/type": kind,
                f"{base}/size": size,
                f"{base}/shared_cpu_list": shared,
            }
    tree(root / "sys", caches | {"devices/system/cpu/online": "0-1"})
    return Roots(proc=root / "proc", sys=root / "sys", cgroup=root / "none")


def test_a_virtual_machine_is_read_without_guessing_its_clocks(tmp_path: Path) -> None:
    roots = machine_roots(tmp_path, CPUINFO)
    machine = read_machine(roots.proc, roots.sys)
    assert machine.cpus == {0, 1}
    assert (machine.base_megahertz, machine.maximum_megahertz, machine.current_megahertz) == (
        2300,
        None,
        2295,
    )
    assert (machine.l1d_cache_bytes, machine.l2_cache_bytes, machine.l3_cache_bytes) == (
        32 * 2**10,
        2**20,
        32 * 2**20,
    )
    assert machine.instruction_sets == ("avx", "avx2", "fma", "avx512f")
    assert machine.memory_bytes == 16 * 2**20


def test_real_clocks_come_from_cpufreq(tmp_path: Path) -> None:
    roots = machine_roots(tmp_path, CPUINFO)
    clocks = {"base_frequency": "2100000", "cpuinfo_max_freq": "3700000", "scaling_cur_freq": "2900000"}
    tree(roots.sys, {f"devices/system/cpu/cpu0/cpufreq/{name}": text for name, text in clocks.items()})
    machine = read_machine(roots.proc, roots.sys)
    assert (machine.base_megahertz, machine.maximum_megahertz, machine.current_megahertz) == (
        2100,
        3700,
        2900,
    )


def test_an_arm_machine_names_its_part_and_features(tmp_path: Path) -> None:
    machine = read_machine(machine_roots(tmp_path, ARM).proc, tmp_path / "sys")
    assert machine.cpu_model == "0xd0c"
    assert machine.instruction_sets == ("asimd", "asimddp", "sve")


def test_an_empty_kernel_interface_gives_one_core_and_no_more(tmp_path: Path) -> None:
    hardware = read_hardware("n", Roots(tmp_path, tmp_path, tmp_path), SPEED, NOW)
    assert (hardware.cores, hardware.cpu_quotas, hardware.memory_bytes) == (1, (), 0)


def test_node_yaml_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    hardware = read_hardware("n", machine_roots(tmp_path, CPUINFO), SPEED, NOW)
    text = yaml.safe_dump(hardware.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert NodeHardware.model_validate(yaml.safe_load(text)) == hardware


def test_speeds_are_measured_again_on_another_machine_or_after_a_day() -> None:
    last = node(4, cpu_model="A")
    soon = last.measured_at + timedelta(minutes=10)
    assert needs_probe(None, 4, "A", soon)
    assert not needs_probe(last, 4, "A", soon)
    assert needs_probe(last, 8, "A", soon)
    assert needs_probe(last, 4, "B", soon)
    assert needs_probe(last, 4, "A", last.measured_at + REPROBE_AFTER)


def test_a_clock_that_moves_is_no_change_worth_publishing() -> None:
    assert lasting_facts(node(current_megahertz=2000)) == lasting_facts(node(current_megahertz=2100))
    assert lasting_facts(node(2)) != lasting_facts(node(4))


def test_this_machine_is_probed_within_two_seconds_of_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)  # the probe is a process of its own
    assert main(["agent", "--print", "--node-name", "here"]) == 0
    hardware = NodeHardware.model_validate(yaml.safe_load(capsys.readouterr().out))
    assert hardware.node == "here"
    assert hardware.measured.runtime_gflops_per_core is not None
    assert hardware.measured.operator_overhead_nanoseconds is not None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_two_probes_agree() -> None:
    one, other = measure(1), measure(1)
    assert one.runtime_gflops_per_core == pytest.approx(other.runtime_gflops_per_core, rel=0.25)
    assert one.gflops_per_core == pytest.approx(other.gflops_per_core, rel=0.25)
