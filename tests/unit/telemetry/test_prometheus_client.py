import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tailwise.telemetry.prometheus import Prometheus, PrometheusError
from tests.unit.telemetry.answering import Answer, answering


@pytest.fixture
def server() -> Iterator[tuple[str, Answer]]:
    with answering() as running:
        yield running


async def test_a_prometheus_that_hangs_costs_no_more_than_the_time_limit(server: tuple[str, Answer]) -> None:
    url, answer = server
    answer.delay_seconds = 60
    prometheus = Prometheus(url, timeout_seconds=0.5)
    began = time.monotonic()
    with pytest.raises(PrometheusError, match=f"{url}: CPU utilisation: "):
        await prometheus.instant("up", "CPU utilisation")
    assert time.monotonic() - began < 30  # far from the 60 s of the server
    prometheus.close()


async def test_the_event_loop_runs_on_while_prometheus_is_asked(server: tuple[str, Answer]) -> None:
    url, answer = server
    answer.delay_seconds = 0.3
    prometheus = Prometheus(url)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    turning = asyncio.create_task(turn())
    await prometheus.instant("up", "anything")
    turning.cancel()
    assert turns > 3
    prometheus.close()


async def test_a_long_query_travels_in_the_body_since_proxies_limit_urls(server: tuple[str, Answer]) -> None:
    url, answer = server
    prometheus = Prometheus(url)
    query = 'up{pod=~"' + "|".join(f"pod-{number}" for number in range(2000)) + '"}'
    await prometheus.instant(query, "anything")
    assert answer.last_path == "/api/v1/query"
    assert parse_qs(answer.last_body.decode())["query"] == [query]
    prometheus.close()


async def test_a_prometheus_that_is_away_is_told_by_its_cause_without_the_query() -> None:
    prometheus = Prometheus("http://127.0.0.1:9")
    with pytest.raises(PrometheusError, match=r"refused.*--prometheus-url") as raised:
        await prometheus.instant("some_metric", "anything")
    assert "some_metric" not in str(raised.value)
    prometheus.close()


async def test_server_errors_are_tried_again_a_few_times_and_then_told(server: tuple[str, Answer]) -> None:
    url, answer = server
    answer.status, answer.headers = 503, {"Retry-After": "3600"}
    prometheus = Prometheus(url, timeout_seconds=10)
    with pytest.raises(PrometheusError, match="503"):
        await prometheus.instant("up", "anything")
    assert 1 < answer.asked <= 4
    prometheus.close()


async def test_a_refused_query_is_told_in_prometheus_words_and_not_repeated(
    server: tuple[str, Answer],
) -> None:
    url, answer = server
    answer.status, answer.content = 400, {"status": "error", "error": "parse error: unexpected )"}
    prometheus = Prometheus(url)
    with pytest.raises(PrometheusError, match=r"latency of a/b: .*parse error: unexpected \)"):
        await prometheus.instant("up)", "latency of a/b")
    assert answer.asked == 1
    prometheus.close()


@pytest.mark.parametrize(
    "content",
    [
        b"<html>a proxy's login page</html>",
        {"status": "success"},
        {"data": {"result": None}},
        {"data": {"resultType": "scalar", "result": [1.0, "2"]}},
        {"data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[1, "2"]]}]}},
        {"data": {"result": [{"metric": {}, "value": [1.0, "not a number"]}]}},
    ],
)
async def test_an_answer_that_is_no_vector_is_an_error_with_the_way_out(
    server: tuple[str, Answer], content: object
) -> None:
    url, answer = server
    answer.content = content
    prometheus = Prometheus(url)
    with pytest.raises(PrometheusError, match="anything: "):
        await prometheus.instant("up", "anything")
    prometheus.close()


async def test_a_rotated_token_is_used_from_the_next_query_on(
    server: tuple[str, Answer], tmp_path: Path
) -> None:
    url, answer = server
    token = tmp_path / "token"
    prometheus = Prometheus(url, token_file=token)
    for value in ("first", "second"):
        token.write_text(f"{value}\n")
        await prometheus.instant("up", "anything")
        assert answer.last_authorization == f"Bearer {value}"
    token.unlink()
    with pytest.raises(PrometheusError, match="token"):
        await prometheus.instant("up", "anything")
    prometheus.close()


async def test_nobody_listening_is_an_error_that_names_the_server() -> None:
    prometheus = Prometheus("http://127.0.0.1:9", timeout_seconds=5)
    with pytest.raises(PrometheusError, match=r"Prometheus http://127.0.0.1:9: anything: "):
        await prometheus.instant("up", "anything")
    prometheus.close()
