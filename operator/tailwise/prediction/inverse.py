"""The question turned round: what would have to change for a node to meet the SLO.

Each answer was predicted itself before it is given, so that a promise is never an extrapolation; what no
change within reason attains is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from tailwise.prediction.prediction import NodeLoad, Question, Serving
from tailwise.prediction.predictor import Predictor

_LEAST_RATE = 0.1
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

    def holds(serving: Serving) -> bool:
        asked = replace(question, serving=serving, load=NodeLoad(question.load.cpu))
        return predictor.predict(asked).bound_milliseconds <= slo_milliseconds

    serving = question.serving
    return Remedies(
        requests_per_second=_greatest_rate(serving, holds),
        concurrency=_greatest_concurrency(serving, holds),
        cpu_limit_millicores=_least_limit(
            serving, question.hardware.capacity_cores, holds, threads_follow_limit
        ),
    )


def _greatest_rate(serving: Serving, holds: Callable[[Serving], bool]) -> float | None:
    """By bisection over the logarithm, then down to two digits; a bound grows with the rate."""
    rate = serving.requests_per_second
    if rate is None or rate <= _LEAST_RATE or not holds(replace(serving, requests_per_second=_LEAST_RATE)):
        return None
    low, high = math.log(_LEAST_RATE), math.log(rate)
    for _ in range(12):
        middle = (low + high) / 2
        if holds(replace(serving, requests_per_second=math.exp(middle))):
            low = middle
        else:
            high = middle
    found = math.exp(low)
    digit = 10.0 ** (math.floor(math.log10(found)) - 1)
    rounded = math.floor(found / digit) * digit
    return rounded if holds(replace(serving, requests_per_second=rounded)) else None


def _greatest_concurrency(serving: Serving, holds: Callable[[Serving], bool]) -> int | None:
    if serving.requests_per_second is not None or serving.concurrency <= 1:
        return None
    low, high = 1, serving.concurrency
    if not holds(replace(serving, concurrency=low)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if holds(replace(serving, concurrency=middle)):
            low = middle
        else:
            high = middle
    return low


def _least_limit(
    serving: Serving, cores: float, holds: Callable[[Serving], bool], threads_follow_limit: bool
) -> int | None:
    """In steps of 100m up to the whole node; a greater limit throttles less, if not at every step."""
    limit = serving.cpu_limit_millicores

    def limited(steps: int) -> Serving:
        millicores = steps * _LIMIT_STEP_MILLICORES
        threads = math.ceil(millicores / 1000) if threads_follow_limit else serving.threads
        return replace(serving, cpu_limit_millicores=millicores, threads=threads)

    if limit is None:
        return None
    low, high = limit // _LIMIT_STEP_MILLICORES, int(cores * 1000) // _LIMIT_STEP_MILLICORES
    if high <= low or not holds(limited(high)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if holds(limited(middle)):
            high = middle
        else:
            low = middle
    return high * _LIMIT_STEP_MILLICORES
