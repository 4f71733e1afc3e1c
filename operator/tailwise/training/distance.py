"""How unlike anything seen a question is: the gate behind source OutOfDistribution.

Three things can be new: the model, the node, the way of serving. For each the distance is to the nearest of
its kind that was seen, over standardised logarithms of its features, divided by how far those that were seen
lie from each other; and a single feature far beyond its range is enough, for a mean over many would drown it.
Above 1 is out of distribution. What changes with load is no part of it: beyond the load
that was seen the prior extrapolates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tailwise.prediction.quota import FloatArray
from tailwise.training.candidates import known_values
from tailwise.training.matrix import Float32Array, Matrix

_NODE = (
    "node_cores", "capacity_cores", "gflops_per_core", "runtime_gflops_per_core",
    "copy_gigabytes_per_second_per_core", "operator_overhead_nanoseconds", "l2_cache_mebibytes",
    "l3_cache_mebibytes", "has_avx512", "effective_megahertz",
)  # fmt: skip
_SERVING = (
    "cpu_limit_cores", "threads", "server_overhead_milliseconds", "concurrency", "requests_per_second",
)  # fmt: skip
_MODEL = ("flops", "parameter_mebibytes", "moved_bytes", "flops_per_byte", "operator_count", "batch_size")
_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"model": _MODEL, "node": _NODE, "serving": _SERVING}
)

_LEAST_SCALE = 0.2
"""Logarithmic units: where all that was seen is alike, 20 % off is one standard step."""

_BEYOND_SHARE = 0.25
_BEYOND: Mapping[str, float] = MappingProxyType({"model": 0.7, "node": 0.7, "serving": 0.3})
_BEYOND_SHARE_OF_WORK = 0.3
"""How far beyond the range that was seen a feature may lie: a quarter of the range, and these logarithmic
units more (0.7: a factor of two)."""

MOST_PROTOTYPES = 256


@dataclass(frozen=True, slots=True)
class Gate:
    """One kind's nearest-prototype distance.

    ``columns``: places among the features, (d,). ``mean``, ``scale``: of ``log(1 + max(0, x))``, (d,).
    ``prototypes``: standardised, (p, d). ``reach``: root mean square distance that counts as 1. ``middle``,
    ``allowed``: of the logarithms, (d,): a feature so far from the middle of its range counts as 1.
    """

    kind: str
    columns: tuple[int, ...]
    mean: FloatArray
    scale: FloatArray
    prototypes: FloatArray
    reach: float
    middle: FloatArray
    allowed: FloatArray

    def distance(self, values: Float32Array) -> FloatArray:
        """Distance of each row, (rows,); NaN features count as unknown alike."""
        logs = _logs(values, self.columns)
        near = np.sqrt(_nearest((logs - self.mean) / self.scale, self.prototypes)) / self.reach
        beyond = np.max(np.abs(logs - self.middle) / self.allowed, axis=1)
        return np.asarray(np.maximum(near, beyond))


def fit_gates(rows: Matrix, out_of_distribution_percent: int) -> tuple[Gate, ...]:
    """One gate a kind; none when nothing may ever count as out of distribution (0 %).

    The reach is so wide that at most ``out_of_distribution_percent`` of the rows would be out of distribution
    if the model, node or way of serving they belong to had not been seen.
    """
    if not out_of_distribution_percent:
        return ()
    gates = []
    for kind, names in _KINDS.items():
        columns = tuple(
            place
            for place, name in enumerate(rows.names)
            if name in names or (kind == "model" and _is_share(name))
        )
        if columns:
            gates.append(_gate(kind, columns, rows, out_of_distribution_percent))
    return tuple(gates)


def distance(gates: Sequence[Gate], values: Float32Array) -> FloatArray:
    """The largest over all kinds, (rows,); above 1 is out of distribution, 0 without gates."""
    return np.max([gate.distance(values) for gate in gates], axis=0) if gates else np.zeros(len(values))


def _gate(kind: str, columns: tuple[int, ...], rows: Matrix, percent: int) -> Gate:
    logs = _logs(rows.values, columns)
    distinct, place = np.unique(logs.round(4), axis=0, return_inverse=True)
    weights = np.bincount(place.reshape(-1))
    mean = distinct.mean(axis=0)
    scale = np.maximum(distinct.std(axis=0), _LEAST_SCALE)
    standard = (distinct - mean) / scale
    reach = 1.0
    if len(standard) > 2:
        apart = np.sqrt(_nearest_other(standard))
        order = np.argsort(apart)
        share = np.cumsum(weights[order]) / weights.sum()
        reach = max(reach, float(apart[order][np.searchsorted(share, 1 - percent / 100)]))
    least, most = distinct.min(axis=0), distinct.max(axis=0)
    beyond = np.array(
        [_BEYOND_SHARE_OF_WORK if _is_share(rows.names[place]) else _BEYOND[kind] for place in columns]
    )
    allowed = (most - least) * (0.5 + _BEYOND_SHARE) + beyond
    return Gate(kind, columns, mean, scale, _spread_out(standard), reach, (least + most) / 2, allowed)


def _is_share(name: str) -> bool:
    return name.startswith("share_of_")


def _logs(values: Float32Array, columns: tuple[int, ...]) -> FloatArray:
    return np.log1p(np.maximum(known_values(values)[:, list(columns)], 0.0), dtype=np.float64)


def _nearest(points: FloatArray, prototypes: FloatArray) -> FloatArray:
    """Mean square difference to the nearest prototype, (points,)."""
    least = np.full(len(points), np.inf)
    for prototype in prototypes:
        least = np.minimum(least, ((points - prototype) ** 2).mean(axis=1))
    return least


def _nearest_other(points: FloatArray) -> FloatArray:
    chosen = points if len(points) <= MOST_PROTOTYPES else _spread_out(points)
    least = np.full(len(points), np.inf)
    for prototype in chosen:
        difference = ((points - prototype) ** 2).mean(axis=1)
        least = np.minimum(least, np.where(difference > 1e-12, difference, np.inf))
    return np.where(np.isfinite(least), least, 0.0)


def _spread_out(points: FloatArray) -> FloatArray:
    """At most MOST_PROTOTYPES points that leave none far away: farthest first, from the one in the middle."""
    if len(points) <= MOST_PROTOTYPES:
        return points
    chosen = [int(np.argmin((points**2).sum(axis=1)))]
    least = ((points - points[chosen[0]]) ** 2).mean(axis=1)
    while len(chosen) < MOST_PROTOTYPES:
        chosen.append(int(np.argmax(least)))
        least = np.minimum(least, ((points - points[chosen[-1]]) ** 2).mean(axis=1))
    return points[chosen]
