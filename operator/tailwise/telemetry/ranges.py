"""Long ranges from Prometheus, in chunks, one point a window.

A range query answers at most 11,000 points a series and costs Prometheus memory in proportion: a week is
asked for in pieces, one after another, and each piece is told.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from prometheus_api_client.exceptions import PrometheusApiClientException

from tailwise.telemetry.prometheus import Prometheus, PrometheusError, answer_error, short

POINTS_A_CHUNK = 500
# What Prometheus says of a query that loads more than its --query.max-samples at once.
_TOO_MUCH = "too many samples"


@dataclass(frozen=True, slots=True)
class Span:
    """Window ends from ``begin`` to ``end``, both included, every ``step``."""

    begin: datetime
    end: datetime
    step: timedelta

    @property
    def points(self) -> int:
        """Number of window ends."""
        return max(0, int((self.end - self.begin) / self.step) + 1)

    def chunks(self, points: int = POINTS_A_CHUNK) -> Iterator[Span]:
        """The same window ends in pieces of at most ``points``."""
        begin = self.begin
        while begin <= self.end:
            end = min(self.end, begin + (points - 1) * self.step)
            yield Span(begin, end, self.step)
            begin = end + self.step


def windows_before(now: datetime, window_seconds: int, lookback: timedelta) -> Span:
    """Whole windows of the time before ``now``, aligned to the epoch: two reads see the same windows."""
    last = int(now.timestamp()) // window_seconds * window_seconds
    count = max(1, int(lookback.total_seconds()) // window_seconds)
    end = datetime.fromtimestamp(last, UTC)
    return Span(end - (count - 1) * timedelta(seconds=window_seconds), end, timedelta(seconds=window_seconds))


Point = tuple[float, float]
"""Time in Unix seconds, value; the value may be NaN or infinite."""


@dataclass(slots=True)
class Series:
    """One series over all chunks."""

    labels: Mapping[str, str]
    points: list[Point] = field(default_factory=list)


async def read_range(
    prometheus: Prometheus,
    query: str,
    span: Span,
    purpose: str,
    told: Callable[[int, int], object] = lambda _done, _of: None,
) -> list[Series]:
    """Evaluate ``query`` at every window's end. ``told`` hears of chunks done, of how many.

    A chunk that is too much for Prometheus is asked for in halves. Raises PrometheusError, with Prometheus'
    own words where it refuses the query.
    """
    chunks = list(span.chunks())
    series: dict[tuple[tuple[str, str], ...], Series] = {}
    for done, chunk in enumerate(chunks):
        told(done, len(chunks))
        for element in await _ask_in_pieces(prometheus, query, chunk, purpose):
            labels = element["metric"]
            key = tuple(sorted(labels.items()))
            known = series.setdefault(key, Series(labels))
            known.points += [(float(when), float(value)) for when, value in element.get("values") or ()]
    told(len(chunks), len(chunks))
    return list(series.values())


async def _ask_in_pieces(prometheus: Prometheus, query: str, chunk: Span, purpose: str) -> list[Any]:
    try:
        return list(await _ask(prometheus, query, chunk, purpose))
    except PrometheusError as error:
        if _TOO_MUCH not in str(error) or chunk.points == 1:
            raise
    answers = []
    for half in chunk.chunks(math.ceil(chunk.points / 2)):
        answers += await _ask_in_pieces(prometheus, query, half, purpose)
    return answers


async def _ask(prometheus: Prometheus, query: str, chunk: Span, purpose: str) -> Any:
    loop = asyncio.get_running_loop()
    # The client's own threads, session and time limit; this module is its other half.
    seconds = prometheus._timeout_seconds
    deadline = time.monotonic() + seconds
    where = f"Prometheus {prometheus.url}: {purpose}"
    try:
        async with asyncio.timeout(seconds):
            return await loop.run_in_executor(
                prometheus._executor, _request, prometheus, query, chunk, deadline
            )
    except TimeoutError as error:
        raise PrometheusError(f"{where}: no answer within {seconds:g} s") from error
    except PrometheusApiClientException as error:
        raise answer_error(where, error) from error
    except (requests.RequestException, OSError) as error:
        raise PrometheusError(f"{where}: {short(error)}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise PrometheusError(f"{where}: the answer is no range of values ({short(error)})") from error


def _request(prometheus: Prometheus, query: str, chunk: Span, deadline: float) -> Any:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if prometheus._token_file is not None:
        token = prometheus._token_file.read_text().strip()
        prometheus._connect.headers = {"Authorization": f"Bearer {token}"}
    return prometheus._connect.custom_query_range(
        query,
        start_time=chunk.begin,
        end_time=chunk.end,
        step=f"{chunk.step.total_seconds():g}",
        params={"timeout": f"{max(1, round(left * 1000))}ms"},
        timeout=(min(3.0, left), left),
    )
