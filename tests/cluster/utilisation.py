"""Scripted CPU utilisation of a simulated node, and its exact integral, so that its counters never lie.

A script is a list of segments; each holds from its start (epoch seconds) until the next one's. Counters are
integrals of the script from the node's birth: they go on where they were when the exporter starts again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Pattern(StrEnum):
    """How utilisation moves within a segment."""

    STEADY = "steady"
    ON_OFF = "on-off"
    RAMP = "ramp"


@dataclass(frozen=True, slots=True)
class Utilisation:
    """A pattern. Percentages are of all of the node's cores.

    steady: `percent`. on-off: `percent` for the first half of each period, then `low_percent`.
    ramp: from `low_percent` to `percent` over one period, then steady at `percent`.
    """

    pattern: Pattern = Pattern.STEADY
    percent: float = 0.0
    low_percent: float = 0.0
    period_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("percent", "low_percent"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"utilisation: {name} is {getattr(self, name)}, use 0 to 100")
        if self.period_seconds <= 0:
            raise ValueError(f"utilisation: period_seconds is {self.period_seconds}, use more than 0")


@dataclass(frozen=True, slots=True)
class Segment:
    """A pattern that begins at an epoch time."""

    since_epoch_seconds: float
    utilisation: Utilisation


def share_at(segments: Sequence[Segment], epoch_seconds: float) -> float:
    """Return the busy share, 0 to 1, at a time; 0 before the first segment."""
    current = [segment for segment in segments if segment.since_epoch_seconds <= epoch_seconds]
    if not current:
        return 0.0
    pattern, elapsed = current[-1].utilisation, epoch_seconds - current[-1].since_epoch_seconds
    low, high = pattern.low_percent / 100, pattern.percent / 100
    if pattern.pattern is Pattern.ON_OFF:
        return high if elapsed % pattern.period_seconds < pattern.period_seconds / 2 else low
    if pattern.pattern is Pattern.RAMP:
        return low + (high - low) * min(1.0, elapsed / pattern.period_seconds)
    return high


def busy_seconds(segments: Sequence[Segment], epoch_seconds: float) -> float:
    """Return the busy seconds of one core from the first segment to a time: the integral of share_at."""
    total = 0.0
    for index, segment in enumerate(segments):
        following = segments[index + 1].since_epoch_seconds if index + 1 < len(segments) else math.inf
        length = min(following, epoch_seconds) - segment.since_epoch_seconds
        if length > 0:
            total += _integral(segment.utilisation, length)
    return total


def _integral(utilisation: Utilisation, seconds: float) -> float:
    low, high, period = (
        utilisation.low_percent / 100,
        utilisation.percent / 100,
        utilisation.period_seconds,
    )
    if utilisation.pattern is Pattern.ON_OFF:
        whole, rest = divmod(seconds, period)
        on = whole * period / 2 + min(rest, period / 2)
        return high * on + low * (seconds - on)
    if utilisation.pattern is Pattern.RAMP:
        rising = min(seconds, period)
        return (low + (high - low) * rising / period / 2) * rising + high * (seconds - rising)
    return high * seconds


def from_mapping(value: Mapping[str, Any] | float | int) -> Utilisation:
    """Read a pattern from a shapes file: a number is steady, a mapping names Utilisation's fields."""
    if isinstance(value, (int, float)):
        return Utilisation(percent=float(value))
    fields = dict(value)
    return Utilisation(pattern=Pattern(fields.pop("pattern", Pattern.STEADY)), **fields)
