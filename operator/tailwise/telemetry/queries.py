"""What is asked of Prometheus about nodes, as data.

Each query is PromQL whose answer is an instant vector with one element a node. The node is told by the label
``node`` where scraping sets it, else by ``instance``, whose address the caller knows the node of.
The time of a value is asked in the same query (``with_time``): an expression's own timestamp is that of its
evaluation, which would make a value that is minutes old look fresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NODE_LABELS = ("node", "instance")
PART_LABEL = "tailwise_part"
PART_VALUE = "value"
PART_TIME = "sampled_at"

DEFAULT_WINDOW_SECONDS = 60


class CpuUnit(StrEnum):
    """Unit of the CPU query's answer."""

    FRACTION = "Fraction"
    """Of all logical CPUs of the node, in [0, 1]."""
    CORES = "Cores"
    """CPU seconds a second; the node's capacity is known elsewhere."""


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """One figure of all nodes.

    ``value`` is the figure, ``sampled_at`` the time of the newest sample behind it in Unix seconds by
    Prometheus' clock, by the same labels. Without ``sampled_at`` the value counts as new whenever it is
    answered, so its age says only how long Prometheus has been away.
    """

    value: str
    sampled_at: str | None

    def with_time(self) -> str:
        """Both parts as one query; label ``tailwise_part`` tells them apart."""
        parts = [f'label_replace({self.value}, "{PART_LABEL}", "{PART_VALUE}", "", "")']
        if self.sampled_at is not None:
            parts.append(f'label_replace({self.sampled_at}, "{PART_LABEL}", "{PART_TIME}", "", "")')
        return " or ".join(parts)


@dataclass(frozen=True, slots=True)
class UtilisationQueries:
    """U_C and U_F of equations (6) and (7) for all nodes.

    ``frequency`` is None where the source cannot know it. ``window_seconds`` is how far back a value
    reaches: a pod's load is wholly in a value only when it is that much younger than the pod. ``selector`` is
    what a preset was narrowed by.
    """

    name: str
    cpu: NodeQuery
    cpu_unit: CpuUnit
    frequency: NodeQuery | None
    window_seconds: int
    selector: str = ""


def node_exporter(window_seconds: int = DEFAULT_WINDOW_SECONDS, selector: str = "") -> UtilisationQueries:
    """Utilisation by node-exporter, of everything on the node, system processes included.

    ``window_seconds`` should be at least twice the scrape interval, or rates have nothing to go by.
    ``selector`` narrows the series, such as ``job="node-exporter"``.

    Idle and waiting for I/O count as free, stolen time as in use: a core that the hypervisor gave away is
    not there for a pod. U_F is the clock now as a fraction of the processor's highest (of the governor's,
    where the processor's is unknown); most virtual machines have no cpufreq and answer nothing.
    """
    free = _series("node_cpu_seconds_total", 'mode=~"idle|iowait"', selector)
    idle = _series("node_cpu_seconds_total", 'mode="idle"', selector)
    now = _series("node_cpu_scaling_frequency_hertz", selector)
    highest = _series("node_cpu_frequency_max_hertz", selector)
    governed = _series("node_cpu_scaling_frequency_max_hertz", selector)
    return UtilisationQueries(
        name="NodeExporter",
        cpu=NodeQuery(
            value=f"1 - avg by (node, instance) (sum without (mode) (rate({free}[{window_seconds}s])))",
            sampled_at=f"max by (node, instance) (timestamp({idle}))",
        ),
        cpu_unit=CpuUnit.FRACTION,
        frequency=NodeQuery(
            value=f"avg by (node, instance) ({now} / ({highest} or {governed}))",
            sampled_at=f"max by (node, instance) (timestamp({now}))",
        ),
        window_seconds=window_seconds,
        selector=selector,
    )


def cadvisor(window_seconds: int = DEFAULT_WINDOW_SECONDS, selector: str = "") -> UtilisationQueries:
    """Utilisation by the kubelets' cAdvisor: cores used by containers.

    ``selector`` as for ``node_exporter``. Containers are summed rather than the root cgroup read: many
    installations drop series without a pod, and a kubelet that has a part of a machine sees the whole
    machine in the root cgroup. Two jobs that scrape the same kubelet are not added up.
    """
    used = _series("container_cpu_usage_seconds_total", 'container!=""', 'container!="POD"', selector)
    return UtilisationQueries(
        name="CAdvisor",
        cpu=NodeQuery(
            value=f"max by (node, instance) (sum by (node, instance, job) (rate({used}[{window_seconds}s])))",
            sampled_at=f"max by (node, instance) (timestamp({used}))",
        ),
        cpu_unit=CpuUnit.CORES,
        frequency=None,
        window_seconds=window_seconds,
        selector=selector,
    )


def custom(
    *,
    cpu: str,
    cpu_unit: CpuUnit,
    cpu_sampled_at: str | None = None,
    frequency: str | None = None,
    frequency_sampled_at: str | None = None,
    window_seconds: int = DEFAULT_WINDOW_SECONDS,
) -> UtilisationQueries:
    """Queries of one's own; each answers by label ``node`` or ``instance``, one element a node.

    Raises ValueError for an empty query.
    """
    for field, query in (("cpu", cpu), ("frequency", frequency)):
        if query is not None and not query.strip():
            raise ValueError(f"utilisation query {field} is empty: give PromQL or leave it out")
    return UtilisationQueries(
        name="Custom",
        cpu=NodeQuery(cpu, cpu_sampled_at),
        cpu_unit=cpu_unit,
        frequency=NodeQuery(frequency, frequency_sampled_at) if frequency is not None else None,
        window_seconds=window_seconds,
    )


def _series(name: str, *matchers: str) -> str:
    return f"{name}{{{','.join(matcher for matcher in matchers if matcher)}}}"
