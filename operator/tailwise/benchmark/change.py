"""What happened when a node slowed down: windows of latencies, and when the SLO held again. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tailwise.benchmark.records import MoveRecord, WindowRecord, nearest_rank

WINDOW_SECONDS = 10.0
_CALM_WINDOWS = 3

Answer = tuple[float, float]
"""Seconds since the clients began when a query was answered, and milliseconds that it took."""


def parse_answers(output: str) -> dict[str, list[Answer]]:
    """Answers of each pod in the clients' output; lines that are not theirs are passed over."""
    found: dict[str, list[Answer]] = defaultdict(list)
    for line in output.splitlines():
        if line.startswith("{") and '"answers"' in line:
            try:
                value = json.loads(line)
                found[str(value["pod"])] += [(ended / 1000, took / 1000) for ended, took in value["answers"]]
            except (ValueError, KeyError, TypeError):
                continue
    return dict(found)


def windows(
    answers: Mapping[str, Sequence[Answer]],
    first_nodes: Mapping[str, str],
    moves: Sequence[MoveRecord],
    seconds: float,
) -> tuple[WindowRecord, ...]:
    """Each pod's latencies, ten seconds at a time; a window without an answer is kept as one."""
    found = []
    for slot, node in sorted(first_nodes.items()):
        own = [move for move in moves if move.slot == slot]
        for number in range(int(seconds / WINDOW_SECONDS)):
            begin, end = number * WINDOW_SECONDS, (number + 1) * WINDOW_SECONDS
            latencies = sorted(took for ended, took in answers.get(slot, ()) if begin < ended <= end)
            at = [move.target for move in own if move.at_seconds <= end]
            found.append(
                WindowRecord(
                    slot=slot,
                    node=at[-1] if at else node,
                    end_seconds=end,
                    queries=len(latencies),
                    p90_milliseconds=nearest_rank(latencies, 90) if latencies else None,
                )
            )
    return tuple(found)


def recovery_seconds(
    found: Iterable[WindowRecord], slo_milliseconds: Mapping[str, float], changed_at_seconds: float
) -> float | None:
    """Time from the change until all pods held their SLO for thirty seconds on end; 0: they never missed it.

    ``slo_milliseconds``: by slot. A window without an answer misses it. None: they did not come to hold it.
    """
    missed: dict[float, bool] = defaultdict(bool)
    for window in found:
        if window.end_seconds > changed_at_seconds:
            late = window.p90_milliseconds is None or window.p90_milliseconds > slo_milliseconds[window.slot]
            missed[window.end_seconds] |= late
    ends = sorted(missed)
    if not any(missed.values()):
        return 0.0
    for place in range(len(ends) - _CALM_WINDOWS + 1):
        calm = not any(missed[end] for end in ends[place : place + _CALM_WINDOWS])
        if calm and any(missed[end] for end in ends[:place]):
            return ends[place] - WINDOW_SECONDS - changed_at_seconds
    return None


def held_percent(
    found: Iterable[WindowRecord], slo_milliseconds: Mapping[str, float], changed_at_seconds: float
) -> float:
    """Share of pods' windows after the change in which the SLO held."""
    after = [window for window in found if window.end_seconds > changed_at_seconds]
    held = sum(
        window.p90_milliseconds is not None and window.p90_milliseconds <= slo_milliseconds[window.slot]
        for window in after
    )
    return 100 * held / len(after) if after else 0.0
