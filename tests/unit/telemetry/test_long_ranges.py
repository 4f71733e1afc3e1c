"""Ranges that are too much for Prometheus at once; what it says of them no small server says by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from tailwise.telemetry.prometheus import Prometheus, PrometheusError, QueryRefusedError
from tailwise.telemetry.ranges import Span, read_range
from tests.unit.telemetry.answering import answering

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=300)
TOO_MANY = "query processing would load too many samples into memory in query execution"


def span(points: int) -> Span:
    return Span(BEGIN, BEGIN + (points - 1) * STEP, STEP)


def answers_at_most(points: int) -> Any:
    """A server that refuses longer ranges as Prometheus does, and else gives one series of the times."""

    def respond(body: bytes) -> tuple[int, Any]:
        asked = parse_qs(body.decode())
        begin, end = (round(float(asked[name][0])) for name in ("start", "end"))
        times = list(range(begin, end + 1, int(STEP.total_seconds())))
        if len(times) > points:
            return 422, {"status": "error", "errorType": "execution", "error": TOO_MANY}
        values = [[time, str(time)] for time in times]
        return 200, {
            "status": "success",
            "data": {"resultType": "matrix", "result": [{"metric": {"pod": "a"}, "values": values}]},
        }

    return respond


async def test_a_chunk_that_is_too_much_for_prometheus_is_asked_for_in_halves() -> None:
    with answering() as (url, answer):
        answer.respond = answers_at_most(7)
        prometheus = Prometheus(url)
        (series,) = await read_range(prometheus, "x", span(60), "everything")
        prometheus.close()
    wanted = [(BEGIN + place * STEP).timestamp() for place in range(60)]
    assert [time for time, _ in series.points] == wanted


async def test_one_window_that_is_too_much_is_told_in_prometheus_words() -> None:
    with answering() as (url, answer):
        answer.respond = answers_at_most(0)
        prometheus = Prometheus(url)
        with pytest.raises(QueryRefusedError, match=TOO_MANY):
            await read_range(prometheus, "x", span(2), "everything")
        prometheus.close()


@pytest.mark.parametrize(
    ("status", "content", "refused", "told"),
    [
        (
            400,
            {"status": "error", "errorType": "bad_data", "error": "it's wrong"},
            True,
            "bad_data: it's wrong",
        ),
        (400, b"no JSON (at all)", True, "no JSON"),
        (403, {"status": "error", "errorType": "x", "error": "forbidden"}, False, "x: forbidden"),
        (500, b"oops", False, "oops"),
    ],
)
async def test_what_prometheus_answers_is_passed_on_without_the_clients_wrapping(
    status: int, content: Any, refused: bool, told: str
) -> None:
    with answering() as (url, answer):
        answer.status, answer.content = status, content
        prometheus = Prometheus(url)
        for ask in (prometheus.instant("x", "p"), read_range(prometheus, "x", span(2), "p")):
            with pytest.raises(PrometheusError) as raised:
                await ask
            assert isinstance(raised.value, QueryRefusedError) is refused
            assert told in str(raised.value)
            assert json.dumps(str(raised.value)).count(url) == 1
        prometheus.close()
