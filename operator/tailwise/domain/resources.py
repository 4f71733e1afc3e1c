"""Quantities, and what a pod requests and may use: the arithmetic of k8s.io/component-helpers/resource.

CPU is counted in millicores; everything else in its own unit (bytes, devices). Fractions round up, as
Quantity.MilliValue and Quantity.Value do, so that a request never counts for less than was asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

CPU = "cpu"
MEMORY = "memory"
EPHEMERAL_STORAGE = "ephemeral-storage"
PODS = "pods"

# Resource name -> millicores of CPU, bytes of memory and storage, or a count.
Amounts = Mapping[str, int]

_LARGEST = 2**63 - 1  # quantities are int64 where the scheduler counts them
_LONGEST = 64
_LARGEST_EXPONENT = 40  # beyond it the value saturates or is below a nano-unit anyway
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)(?P<digits>\d+\.?\d*|\.\d+)"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE]?)|[eE](?P<exponent>[+-]?\d+))",
    re.ASCII,
)
_SUFFIXES = (
    {"": Fraction(1)}
    | {suffix: Fraction(1, 1000**power) for power, suffix in enumerate("mun", start=1)}
    | {suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", start=1)}
    | {f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)}
)


class QuantityError(ValueError):
    """The text is no Kubernetes quantity; the message names it and shows what one looks like."""


@lru_cache(maxsize=8192)
def parse_quantity(text: str) -> Fraction:
    """Exact value of a quantity such as ``100m``, ``1.5``, ``1Gi``, ``1e3`` or ``500u``.

    Values beyond int64 saturate, as they do in the API server.

    Raises:
        QuantityError: not a quantity.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise QuantityError(f"{text[:_LONGEST]!r} is no quantity: write a number like 500m, 1.5, 2Gi or 1e3")
    exponent = match["exponent"]
    if exponent is None:
        scale = _SUFFIXES[match["suffix"]]
    else:
        scale = Fraction(10) ** max(-_LARGEST_EXPONENT, min(int(exponent), _LARGEST_EXPONENT))
    value = min(Fraction(match["digits"]) * scale, Fraction(_LARGEST))
    return -value if match["sign"] == "-" else value


# A cluster's thousands of pods ask for a few amounts.
@lru_cache(maxsize=4096)
def whole(quantity: str | int | float) -> int:
    """The quantity in its own unit, rounded up away from zero: Quantity.Value."""
    return _away_from_zero(parse_quantity(str(quantity)))


@lru_cache(maxsize=4096)
def millicores(quantity: str | int | float) -> int:
    """A CPU quantity in thousandths of a core, rounded up: Quantity.MilliValue."""
    return _away_from_zero(parse_quantity(str(quantity)) * 1000)


def _away_from_zero(value: Fraction) -> int:
    rounded = -(-abs(value.numerator) // value.denominator)
    return min(rounded, _LARGEST) if value >= 0 else -min(rounded, _LARGEST)


def amounts_from_object(resource_list: Mapping[str, Any] | None) -> dict[str, int]:
    """A ResourceList of the API, by name, in the units of this module."""
    return {
        name: millicores(quantity) if name == CPU else whole(quantity)
        for name, quantity in (resource_list or {}).items()
    }


@dataclass(frozen=True, slots=True)
class ContainerAmounts:
    """What one container requests and is limited to; ``restartable`` marks a sidecar (KEP-753)."""

    name: str
    requests: Amounts
    limits: Amounts
    restartable: bool = False


def pod_requests(
    containers: Iterable[ContainerAmounts],
    init_containers: Iterable[ContainerAmounts] = (),
    *,
    pod_level: Amounts | None = None,
    overhead: Amounts | None = None,
) -> dict[str, int]:
    """What the pod takes of its node: containers and sidecars together, or the largest moment of starting.

    While an init container runs, the sidecars before it run too (KEP-753). Pod-level requests (KEP-2837)
    replace the sum for CPU, memory and huge pages; overhead (KEP-688) is added last.
    """
    total = aggregate(containers, init_containers, lambda container: container.requests)
    total |= _pod_level(pod_level)
    return _sum(total, overhead or {})


def pod_limits(
    containers: Iterable[ContainerAmounts],
    init_containers: Iterable[ContainerAmounts] = (),
    *,
    pod_level: Amounts | None = None,
) -> dict[str, int]:
    """Limits of the pod's cgroup; a resource that some container leaves unlimited has no entry."""
    running = tuple(containers)
    started = tuple(init_containers)
    total = aggregate(running, started, lambda container: container.limits)
    for container in (*running, *started):
        for name in total.keys() - container.limits.keys():
            del total[name]
    return total | _pod_level(pod_level)


def aggregate(
    containers: Iterable[ContainerAmounts],
    init_containers: Iterable[ContainerAmounts],
    amounts_of: Callable[[ContainerAmounts], Amounts],
) -> dict[str, int]:
    """The pod's amounts without pod-level ones and overhead (AggregateContainerRequests)."""
    total: dict[str, int] = {}
    for container in containers:
        total = _sum(total, amounts_of(container))
    sidecars: dict[str, int] = {}
    starting: dict[str, int] = {}
    for container in init_containers:
        amounts = amounts_of(container)
        if container.restartable:
            total = _sum(total, amounts)
            sidecars = _sum(sidecars, amounts)
            starting = largest(starting, sidecars)
        else:
            starting = largest(starting, _sum(sidecars, amounts))
    return largest(total, starting)


def largest(*several: Amounts) -> dict[str, int]:
    """The greater amount of each resource."""
    result: dict[str, int] = {}
    for amounts in several:
        for name, amount in amounts.items():
            result[name] = max(amount, result.get(name, amount))
    return result


def _sum(left: Amounts, right: Amounts) -> dict[str, int]:
    result = dict(left)
    for name, amount in right.items():
        result[name] = result.get(name, 0) + amount
    return result


def _pod_level(amounts: Amounts | None) -> dict[str, int]:
    return {
        name: amount
        for name, amount in (amounts or {}).items()
        if name in (CPU, MEMORY) or name.startswith("hugepages-")
    }
