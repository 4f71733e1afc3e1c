"""Nodes that do not exist yet, for a question: from a NODE.yaml, or from a few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from tailwise.api.hardware import CpuQuota, MeasuredSpeed, NodeHardware
from tailwise.cli.answering import NoAnswerError
from tailwise.controllers.assessment import Assessor
from tailwise.domain.objects import Node
from tailwise.domain.resources import CPU, EPHEMERAL_STORAGE, MEMORY, PODS
from tailwise.telemetry.queries import CpuUnit
from tailwise.telemetry.utilisation import NodeUtilisation, Reading, Utilisation

_GIBIBYTE = 2**30
# What clouds' general machines have, and what a kubelet takes by default.
_GIBIBYTES_A_CORE, _PODS, _STORAGE_GIBIBYTES = 4, 110, 100
_PERIOD_MICROSECONDS = 100_000

WORDS = "name, cores, gflops, copy, megahertz, memory, limit, like"


@dataclass(frozen=True, slots=True)
class NodeWords:
    """``--add-node``: what was said of a node; ``like`` names one whose processor it shares."""

    name: str | None = None
    like: str | None = None
    cores: int | None = None
    gflops_per_core: float | None = None
    copy_gigabytes_per_second: float | None = None
    megahertz: int | None = None
    memory_gibibytes: float | None = None
    limit_cores: float | None = None


_PARSED: Mapping[str, tuple[str, type]] = MappingProxyType(
    {
        "name": ("name", str),
        "like": ("like", str),
        "cores": ("cores", int),
        "gflops": ("gflops_per_core", float),
        "copy": ("copy_gigabytes_per_second", float),
        "megahertz": ("megahertz", int),
        "memory": ("memory_gibibytes", float),
        "limit": ("limit_cores", float),
    }
)


def parse_words(text: str) -> NodeWords:
    """``cores=8,gflops=80`` or ``like=node-a,cores=32``.

    Raises:
        ValueError: a word is not known, or its value is no number above 0.
    """
    given: dict[str, object] = {}
    for part in text.split(","):
        word, equals, value = part.partition("=")
        if not equals or word not in _PARSED or not value:
            raise ValueError(f"{part!r}: give WORD=VALUE with a word of {WORDS}")
        field, kind = _PARSED[word]
        try:
            given[field] = kind(value)
        except ValueError:
            raise ValueError(f"{part!r}: {value!r} is not a number") from None
        number = given[field]
        if isinstance(number, int | float) and not 0 < number < float("inf"):
            raise ValueError(f"{part!r}: {value} is not above 0")
    return NodeWords(**given)  # type: ignore[arg-type]


def hardware_from_words(words: NodeWords, described: Iterable[NodeHardware], now: datetime) -> NodeHardware:
    """The hardware that was said, the rest as of the node it is ``like``.

    Raises:
        NoAnswerError: that node is not described, or neither it nor the figures themselves are given.
    """
    like = None
    if words.like is not None:
        by_name = {each.node: each for each in described}
        like = by_name.get(words.like)
        if like is None:
            raise NoAnswerError(
                f"--add-node like={words.like}: no agent has described such a node; described are "
                f"{', '.join(sorted(by_name)) or 'none'}"
            )
    cores = words.cores or (like.cores if like else None)
    gflops = words.gflops_per_core or (like.measured.gflops_per_core if like else None)
    if cores is None or gflops is None:
        missing = "cores" if cores is None else "gflops (GFLOP/s of one core)"
        raise NoAnswerError(f"--add-node: {missing} is missing: give it, or like=NODE for one that is there")
    clock = words.megahertz or (like.maximum_megahertz if like else None)
    return NodeHardware(
        node=words.name or f"new-{cores}-cores",
        cores=cores,
        cpu_model=like.cpu_model if like else "",
        architecture=like.architecture if like else "",
        maximum_megahertz=clock,
        l1d_cache_bytes=like.l1d_cache_bytes if like else 0,
        l2_cache_bytes=like.l2_cache_bytes if like else 0,
        l3_cache_bytes=like.l3_cache_bytes if like else 0,
        instruction_sets=like.instruction_sets if like else (),
        memory_bytes=round((words.memory_gibibytes or _GIBIBYTES_A_CORE * cores) * _GIBIBYTE),
        cpu_quotas=()
        if words.limit_cores is None
        else (
            CpuQuota(
                quota_microseconds=round(words.limit_cores * _PERIOD_MICROSECONDS),
                period_microseconds=_PERIOD_MICROSECONDS,
            ),
        ),
        measured=_speed(words, like, gflops),
        measured_at=now,
    )


def _speed(words: NodeWords, like: NodeHardware | None, gflops: float) -> MeasuredSpeed:
    known = like.measured if like else None
    same = known is not None and gflops == known.gflops_per_core
    copy = words.copy_gigabytes_per_second or (
        known.copy_gigabytes_per_second_per_core if known else gflops / 5
    )
    return MeasuredSpeed(
        gflops_per_core=gflops,
        copy_gigabytes_per_second_per_core=copy,
        # Of another speed of a core nobody measured what the runtime makes.
        runtime_gflops_per_core=known.runtime_gflops_per_core if known and same else None,
        operator_overhead_nanoseconds=known.operator_overhead_nanoseconds if known and same else None,
    )


def add_nodes(
    assessor: Assessor,
    hardware: Sequence[NodeHardware],
    labels: Mapping[str, str],
    utilisation: float,
    now: datetime,
) -> list[NodeHardware]:
    """Add the nodes to what the assessor sees, busy to the given fraction; returns them under their names."""
    added = []
    taken = set(assessor.view.state.snapshot().names)
    current = assessor.utilisation or Utilisation(CpuUnit.FRACTION, 0.0)
    readings = dict(current.nodes)
    for each in hardware:
        described = each.model_copy(update={"node": _free_name(each.node, taken)})
        taken.add(described.node)
        assessor.view.imagine(_node(described, labels), described)
        cores = utilisation * described.capacity_cores
        value = cores if current.cpu_unit is CpuUnit.CORES else cores / described.cores
        readings[described.node] = NodeUtilisation(cpu=Reading(value, now))
        added.append(described)
    assessor.hardware_changed()
    assessor.sampled(replace(current, nodes=MappingProxyType(readings)))
    return added


def _free_name(name: str, taken: set[str]) -> str:
    """The name, or one after it where a node has it already."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _node(hardware: NodeHardware, labels: Mapping[str, str]) -> Node:
    memory = hardware.memory_bytes or _GIBIBYTES_A_CORE * hardware.cores * _GIBIBYTE
    own = {"kubernetes.io/hostname": hardware.node, "kubernetes.io/os": "linux"}
    return Node(
        name=hardware.node,
        labels={**own, **labels},
        allocatable={
            CPU: hardware.cores * 1000,
            MEMORY: memory,
            EPHEMERAL_STORAGE: _STORAGE_GIBIBYTES * _GIBIBYTE,
            PODS: _PODS,
        },
    )
