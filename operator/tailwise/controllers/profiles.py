"""Profiles of models, each read once for all workloads that ask the same question.

A question is a URL with everything that changes the answer. The answer is a profile, a failure that is
tried again later, or nothing yet. After a restart statuses seed the store, so that no model is read twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import ProfileKey
from tailwise.api.profile import ModelProfile
from tailwise.models.errors import InspectionCrashed, InspectionError
from tailwise.telemetry.metrics import OperatorMetrics

_LOGGER = logging.getLogger(__name__)

# Each reading is a process of its own with some 100 MiB.
_READINGS_AT_ONCE = 2
# In first waits: what comes from the network passes sooner or later; what the file itself is to blame for
# may be mended in place, but not by waiting.
_LONGEST_RETRY = 60
_RETRY_OF_LASTING_FAILURES = 120


@dataclass(frozen=True, slots=True)
class ProfileQuestion:
    """What to read and how; equal questions have equal answers."""

    url: str
    format: str
    sha256: str | None
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...]
    batch_size: int

    @staticmethod
    def of(spec: InferenceWorkloadSpec) -> ProfileQuestion:
        """The question that a workload asks."""
        model = spec.model
        shapes = tuple(sorted((shape.name, shape.dimensions) for shape in model.input_shapes))
        return ProfileQuestion(model.url, model.format.value, model.sha256, shapes, spec.load.batch_size)

    @property
    def inputs_hash(self) -> str:
        """Digest of everything but the URL."""
        fields = [self.format, self.sha256, self.input_shapes, self.batch_size]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]

    def key(self, profile: ModelProfile) -> ProfileKey:
        """What a status remembers of the question beside the answer."""
        return ProfileKey(url=self.url, digest=profile.digest, inputs_hash=self.inputs_hash)

    def made(self, key: ProfileKey) -> bool:
        """Whether a status' profile is an answer to this question."""
        return (key.url, key.inputs_hash) == (self.url, self.inputs_hash)


@dataclass(frozen=True, slots=True)
class ProfileFailure:
    """A reading that gave no profile; it is tried again."""

    error: InspectionError
    attempts: int


Answer = ModelProfile | ProfileFailure
Inspect = Callable[[ProfileQuestion], Awaitable[ModelProfile]]


class ProfileStore:
    """The answers. ``on_answer`` is called in the event loop whenever one is new or differs.

    A failure is tried again after ``retry_seconds``, then after twice that, up to 60 times that.
    """

    def __init__(
        self,
        inspect: Inspect,
        on_answer: Callable[[ProfileQuestion], None],
        metrics: OperatorMetrics | None = None,
        *,
        retry_seconds: float = 5.0,
    ) -> None:
        self._retry_seconds = retry_seconds
        self._inspect = inspect
        self._on_answer = on_answer
        self._metrics = metrics
        self._answers: dict[ProfileQuestion, Answer] = {}
        self._asked: dict[ProfileQuestion, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_READINGS_AT_ONCE)

    def get(self, question: ProfileQuestion) -> Answer | None:
        """The answer so far; a question that is new is begun to be answered."""
        if question not in self._asked and not isinstance(self._answers.get(question), ModelProfile):
            self._asked[question] = asyncio.create_task(
                self._answer(question), name=f"inspect {question.url}"
            )
        return self._answers.get(question)

    def seed(self, question: ProfileQuestion, profile: ModelProfile) -> None:
        """Take an answer that an earlier process has found."""
        self._answers.setdefault(question, profile)

    def forget_all_but(self, wanted: set[ProfileQuestion]) -> None:
        """Drop what no workload asks any more."""
        for question in self._answers.keys() | self._asked.keys():
            if question not in wanted:
                self._answers.pop(question, None)
                task = self._asked.pop(question, None)
                if task is not None:
                    task.cancel()

    async def close(self) -> None:
        """End all readings."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, question: ProfileQuestion) -> None:
        attempts = 0
        while True:
            attempts += 1
            answer = await self._read(question, attempts)
            self._answers[question] = answer
            if isinstance(answer, ModelProfile):
                self._asked.pop(question, None)
                self._on_answer(question)
                return
            self._on_answer(question)
            _LOGGER.info(
                "model %s: %s: %s (attempt %d)", question.url, answer.error.reason, answer.error, attempts
            )
            await asyncio.sleep(self._retry_seconds * _retry_factor(answer))

    async def _read(self, question: ProfileQuestion, attempts: int) -> Answer:
        async with self._slots:
            began = time.monotonic()
            answer: Answer
            try:
                answer = await self._inspect(question)
                result = answer.completeness.value
            except InspectionError as error:
                answer, result = ProfileFailure(error, attempts), error.reason
            except Exception as error:
                _LOGGER.exception("model %s: the reader failed", question.url)
                crashed = InspectionCrashed(f"the reader failed: {type(error).__name__}: {error}")
                answer, result = ProfileFailure(crashed, attempts), crashed.reason
            if self._metrics is not None:
                self._metrics.inspected(result, time.monotonic() - began)
            return answer


def _retry_factor(failure: ProfileFailure) -> float:
    if not failure.error.retryable:
        return _RETRY_OF_LASTING_FAILURES
    return float(min(2 ** min(failure.attempts - 1, 10), _LONGEST_RETRY))
