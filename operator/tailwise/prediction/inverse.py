"""The question turned round: what would have to change for a node to meet the SLO, and how far one may go.

Each answer was predicted itself before it is given, so that a promise is never an extrapolation; what no
change within reason attains is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tailwise.api.hardware import NodeHardware
from tailwise.prediction.prediction import NodeLoad, Question, Serving
from tailwise.prediction.predictor import Predictor
from tailwise.prediction.tables import PredictionTable

_LEAST_RATE, _GREATEST_RATE = 0.1, 1e6
_GREATEST_CONCURRENCY = 65_536
_LIMIT_STEP_MILLICORES = 100


@dataclass(frozen=True, slots=True)
class Remedies:
    """Changes, each of which alone attains the SLO; None where none does or it is not in question.

    ``requests_per_second`` and ``concurrency`` are the greatest load that still holds,
    ``cpu_limit_millicores`` the least limit.
    """

    requests_per_second: float | None = None
    concurrency: int | None = None
    cpu_limit_millicores: int | None = None

    def words(self) -> str:
        """``would hold at <= 4 requests/s or with a CPU limit of 1500m``; empty where nothing helps."""
        ways = []
        if self.requests_per_second is not None:
            ways.append(f"at <= {self.requests_per_second:g} requests/s")
        if self.concurrency is not None:
            ways.append(f"at a concurrency of {self.concurrency}")
        if self.cpu_limit_millicores is not None:
            ways.append(f"with a CPU limit of {self.cpu_limit_millicores}m")
        return f"would hold {' or '.join(ways)}" if ways else ""


def remedies(
    predictor: Predictor, question: Question, slo_milliseconds: float, *, threads_follow_limit: bool
) -> Remedies:
    """What would let this node meet the SLO; some dozens of predictions.

    ``threads_follow_limit``: the workload states no number of threads, so a greater limit means more of them.
    """
    holds = _holds(predictor, question, slo_milliseconds)
    serving = question.serving
    rate, concurrency, limit = serving.requests_per_second, serving.concurrency, serving.cpu_limit_millicores
    capacity = question.hardware.capacity_cores
    return Remedies(
        requests_per_second=None if rate is None else _greatest_rate(serving, holds, rate),
        concurrency=None if rate is not None else _greatest_concurrency(serving, holds, concurrency),
        cpu_limit_millicores=None
        if limit is None
        else _least_limit(serving, limit, capacity, holds, threads_follow_limit),
    )


def room(
    predictor: Predictor, question: Question, slo_milliseconds: float, *, threads_follow_limit: bool
) -> Remedies:
    """How far this node may be asked with the SLO still held, whether it holds now or not.

    The greatest rate (of an open loop) or concurrency (of a closed one), and the least CPU limit, each with
    all else as it is; None where it does not hold even at the least rate or with the whole node.
    """
    holds = _holds(predictor, question, slo_milliseconds)
    serving = question.serving
    rate = concurrency = None
    if serving.requests_per_second is None:
        concurrency = _greatest_concurrency(serving, holds, _GREATEST_CONCURRENCY)
    else:
        rate = _greatest_rate(serving, holds, _GREATEST_RATE)
    limit = _least_limit(serving, 0, question.hardware.capacity_cores, holds, threads_follow_limit)
    return Remedies(rate, concurrency, limit)


@dataclass(frozen=True, slots=True)
class IdleAnswer:
    """What is predicted on an idle node of a class; ``hardware`` stands for all of it."""

    hardware: NodeHardware
    p90_milliseconds: float
    bound_milliseconds: float


def on_idle_nodes(tables: Iterable[tuple[NodeHardware, PredictionTable]]) -> list[IdleAnswer]:
    """What each class of nodes could do if it had nothing else to do, the smallest class first.

    Size is cores times their measured speed: without prices it is what a node costs, more or less.
    """
    found = []
    for hardware, table in tables:
        _, p90, bound = table.at(0.0)
        found.append(IdleAnswer(hardware, p90, bound))
    return sorted(found, key=lambda each: (size_gflops(each.hardware), each.hardware.node))


def size_gflops(hardware: NodeHardware) -> float:
    """What all cores that may be used at once compute, in GFLOP/s, by the speed measured on one."""
    measured = hardware.measured
    return hardware.capacity_cores * (measured.runtime_gflops_per_core or measured.gflops_per_core)


def _holds(predictor: Predictor, question: Question, slo_milliseconds: float) -> Callable[[Serving], bool]:
    def holds(serving: Serving) -> bool:
        asked = replace(question, serving=serving, load=NodeLoad(question.load.cpu))
        return predictor.predict(asked).bound_milliseconds <= slo_milliseconds

    return holds


def _greatest_rate(serving: Serving, holds: Callable[[Serving], bool], most: float) -> float | None:
    """By bisection over the logarithm, then down to two digits; a bound grows with the rate."""
    if most <= _LEAST_RATE or not holds(replace(serving, requests_per_second=_LEAST_RATE)):
        return None
    low, high = math.log(_LEAST_RATE), math.log(most)
    while high - low > 0.005:
        middle = (low + high) / 2
        if holds(replace(serving, requests_per_second=math.exp(middle))):
            low = middle
        else:
            high = middle
    found = math.exp(low)
    digit = 10.0 ** (math.floor(math.log10(found)) - 1)
    rounded = math.floor(found / digit) * digit
    return rounded if holds(replace(serving, requests_per_second=rounded)) else None


def _greatest_concurrency(serving: Serving, holds: Callable[[Serving], bool], most: int) -> int | None:
    """Up to ``most``; None where one client at a time is too many, or ``most`` is no more than that."""
    low = 1
    if most <= low or not holds(replace(serving, concurrency=low)):
        return None
    # Doubled first: what holds is mostly few, and a prediction for many costs as much as they are.
    high = 2
    while high < most and holds(replace(serving, concurrency=high)):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(replace(serving, concurrency=middle)):
            low = middle
        else:
            high = middle
    return low


def _least_limit(
    serving: Serving, above: int, cores: float, holds: Callable[[Serving], bool], threads_follow_limit: bool
) -> int | None:
    """In steps of 100m, more than ``above`` up to the whole node; a greater limit throttles less."""

    def limited(steps: int) -> Serving:
        millicores = steps * _LIMIT_STEP_MILLICORES
        threads = math.ceil(millicores / 1000) if threads_follow_limit else serving.threads
        return replace(serving, cpu_limit_millicores=millicores, threads=threads)

    low, high = above // _LIMIT_STEP_MILLICORES, int(cores * 1000) // _LIMIT_STEP_MILLICORES
    if high <= low or not holds(limited(high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if holds(limited(middle)):
            high = middle
        else:
            low = middle
    return high * _LIMIT_STEP_MILLICORES
