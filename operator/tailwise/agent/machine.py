"""The processor and memory as the kernel describes them: /proc/cpuinfo, sysfs caches and clocks, meminfo.

Virtual machines leave most of it out. What cannot be read is None or absent, never a guess.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from tailwise.agent.cgroups import parse_cpu_list

RELEVANT_INSTRUCTIONS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "sve",
    "sve2", "i8mm", "bf16",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """What the kernel says of the processor and memory; clocks in MHz are None where unknown."""

    cpus: frozenset[int]
    cpu_model: str
    architecture: str
    base_megahertz: int | None
    maximum_megahertz: int | None
    current_megahertz: int | None
    l1d_cache_bytes: int
    l2_cache_bytes: int
    l3_cache_bytes: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int


def read_machine(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Machine:
    """Read the machine from these roots (a test's own, or the host's mounted elsewhere)."""
    cpuinfo = _cpuinfo(_text(proc / "cpuinfo"))
    online = _text(sys / "devices/system/cpu/online")
    count = _text(proc / "cpuinfo").count("\nprocessor") + _text(proc / "cpuinfo").startswith("processor")
    cpus = parse_cpu_list(online) if online else frozenset(range(max(1, count)))
    model = cpuinfo.get("model name") or cpuinfo.get("CPU part", "")
    frequencies = sys / "devices/system/cpu/cpu0/cpufreq"
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features", "")).split())
    caches = _caches(sys / "devices/system/cpu")
    return Machine(
        cpus=cpus,
        cpu_model=model[:200],
        architecture=platform.machine(),
        base_megahertz=_kilohertz(frequencies / "base_frequency") or _nominal(model),
        maximum_megahertz=_kilohertz(frequencies / "cpuinfo_max_freq"),
        current_megahertz=_kilohertz(frequencies / "scaling_cur_freq") or _megahertz(cpuinfo.get("cpu MHz")),
        l1d_cache_bytes=caches.get((1, "Data"), 0),
        l2_cache_bytes=caches.get((2, "Unified"), 0),
        l3_cache_bytes=caches.get((3, "Unified"), 0),
        instruction_sets=tuple(name for name in RELEVANT_INSTRUCTIONS if name in flags),
        memory_bytes=_memory(_text(proc / "meminfo")),
    )


def _cpuinfo(text: str) -> dict[str, str]:
    """The first processor's fields."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _caches(cpus: Path) -> dict[tuple[int, str], int]:
    """Cache bytes by level and kind: of one core for levels 1 and 2, of all instances for level 3."""
    found: dict[tuple[int, str], dict[str, int]] = {}
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, kind, size = _text(index / "level"), _text(index / "type"), _text(index / "size")
        if level and kind and size:
            shared = _text(index / "shared_cpu_list") or index.parts[-3]
            found.setdefault((int(level), kind), {})[shared] = _size(size)
    return {key: sum(sizes.values()) if key[0] >= 3 else max(sizes.values()) for key, sizes in found.items()}


def _size(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def _kilohertz(path: Path) -> int | None:
    text = _text(path)
    return int(text) // 1000 if text.isdigit() and int(text) else None


def _megahertz(text: str | None) -> int | None:
    return round(float(text)) if text else None


def _nominal(model: str) -> int | None:
    """The clock some processors carry in their name: ``… @ 2.30GHz``."""
    match = re.search(r"@\s*([0-9.]+)\s*GHz", model)
    return round(float(match[1]) * 1000) if match else None


def _memory(meminfo: str) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
