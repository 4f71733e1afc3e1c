"""Instant queries to Prometheus, off the event loop, with bounded time and retries.

prometheus-api-client is synchronous: each client has its own two threads, so that a Prometheus that hangs
holds up nothing else, and a third query waits instead of piling up threads.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

_CONNECT_SECONDS = 3.0
_RETRIES = 2
_RETRY_BACKOFF_SECONDS = 0.2
_MAX_MESSAGE = 300

# Each retry would be told with the whole query; what came of the last is in the error.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class PrometheusError(RuntimeError):
    """A query got no usable answer. The message names the server, the query's purpose and what was wrong."""


class QueryRefusedError(PrometheusError):
    """Prometheus would not evaluate a query; no second try mends that."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of an instant vector. ``value`` may be NaN or infinite: PromQL's arithmetic is IEEE 754."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Vector:
    """An instant vector and when it was evaluated.

    ``evaluated_at`` is by Prometheus' clock in Unix seconds, None for an empty answer. ``asked_at`` is by
    this process's clock just before the question: an age counted from the two is never too small, whatever
    the clocks' offset.
    """

    samples: tuple[Sample, ...]
    evaluated_at: float | None
    asked_at: datetime


class _FormSession(requests.Session):
    """Sends a POST's parameters in its body; prometheus-api-client leaves them in the URL.

    A regular expression over a workload's pods outgrows what proxies let a URL be.
    """

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """As in requests."""
        if request.method == "POST":
            request.data, request.params = request.params, {}
        return super().prepare_request(request)


class Prometheus:
    """A Prometheus server, or anything that answers its query API (Thanos, Mimir, VictoriaMetrics).

    ``timeout_seconds`` bounds one query with all its retries. ``token_file`` holds a bearer token that is
    read anew for each query (projected tokens rotate); ``ca_file`` verifies the server instead of the
    system's authorities.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 10.0,
        token_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> None:
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be above 0, not {timeout_seconds}")
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._token_file = token_file
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="prometheus")
        session = _FormSession()
        session.verify = str(ca_file) if ca_file is not None else True
        self._connect = PrometheusConnect(
            url=self.url,
            session=session,
            method="POST",
            retry=Retry(
                total=_RETRIES,
                backoff_factor=_RETRY_BACKOFF_SECONDS,
                status_forcelist=(502, 503, 504),
                allowed_methods=None,
                # A Retry-After of an hour would sit in the thread for an hour.
                respect_retry_after_header=False,
                redirect=3,
            ),
        )

    async def instant(self, query: str, purpose: str) -> Vector:
        """Evaluate ``query`` now. ``purpose`` names it in errors, such as "CPU utilisation".

        Raises PrometheusError.
        """
        asked_at = datetime.now(UTC)
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + self._timeout_seconds
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await loop.run_in_executor(self._executor, self._ask, query, deadline)
            return _vector(answer, asked_at)
        except TimeoutError as error:
            reason: str = f"no answer within {self._timeout_seconds:g} s; see the operator's --prometheus-url"
            raise PrometheusError(f"Prometheus {self.url}: {purpose}: {reason}") from error
        except requests.ConnectionError as error:
            reason = f"{short(error)}; see the operator's --prometheus-url"
            raise PrometheusError(f"Prometheus {self.url}: {purpose}: {reason}") from error
        except PrometheusApiClientException as error:
            raise answer_error(f"Prometheus {self.url}: {purpose}", error) from error
        except (requests.RequestException, OSError) as error:
            raise PrometheusError(f"Prometheus {self.url}: {purpose}: {short(error)}") from error
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise PrometheusError(
                f"Prometheus {self.url}: {purpose}: the answer is no instant vector ({short(error)}); "
                "the query must give one value for each set of labels"
            ) from error

    def close(self) -> None:
        """Give the connections back; queries under way are not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._connect.close()

    def _ask(self, query: str, deadline: float) -> Any:
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            raise TimeoutError
        if self._token_file is not None:
            self._connect.headers = {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        return self._connect.custom_query(
            query,
            # Prometheus itself gives up too: an abandoned query would go on costing it.
            params={"timeout": f"{max(1, round(left_seconds * 1000))}ms"},
            timeout=(min(_CONNECT_SECONDS, left_seconds), left_seconds),
        )


def _vector(answer: Any, asked_at: datetime) -> Vector:
    samples = []
    evaluated_at = None
    for element in answer:
        when, value = element["value"]
        evaluated_at = float(when)
        samples.append(Sample(element["metric"], float(value)))
    return Vector(tuple(samples), evaluated_at, asked_at)


def answer_error(where: str, error: PrometheusApiClientException) -> PrometheusError:
    """The error for an answer that is none: refused where Prometheus blames the query (400, 422)."""
    refused = any(f"HTTP Status Code {code}" in str(error) for code in (400, 422))
    return (QueryRefusedError if refused else PrometheusError)(f"{where}: {short(error)}")


def short(error: BaseException) -> str:
    """What was wrong, in a sentence; Prometheus' own where it answered."""
    # requests wraps urllib3's error, which begins with the path and comes to the cause at its end.
    inner = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
    text = str(getattr(inner, "reason", error))
    if isinstance(error, PrometheusApiClientException):
        text = _own_words(text)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + " …"


def _own_words(text: str) -> str:
    """The error of an answer that the client library quotes: ``HTTP Status Code 400 (b'{...}')``."""
    begin, end = text.find("(b"), text.rfind(")")
    try:
        answer = json.loads(ast.literal_eval(text[begin + 1 : end]))
        return f"{answer['errorType']}: {answer['error']}"
    except (ValueError, SyntaxError, KeyError, TypeError):
        return text
