"""Profiles of models, each read once for all workloads that ask the same question.

A question is a URL with everything that changes the answer. The answer is a profile, a failure that is
tried again later, or nothing yet. After a restart statuses seed the store, so that no model is read twice.
Now and then each store is asked whether the file is still the one that was read: a moved tag or a file that
was replaced is read anew, and the old profile serves until the new one is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import aiohttp

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import ProfileKey
from tailwise.api.profile import ModelProfile
from tailwise.cluster.client import ApiError, Client
from tailwise.controllers.inspection_job import JobAccess, JobQuestion, JobReader, JobSettings
from tailwise.controllers.options import OperatorOptions
from tailwise.models.errors import InspectionCrashed, InspectionError, InspectionJobFailed
from tailwise.models.sources import Identity
from tailwise.telemetry.metrics import OperatorMetrics

_LOGGER = logging.getLogger(__name__)

# Each reading is a process of its own with some 100 MiB; a Job is another machine's.
_READINGS_AT_ONCE = 2
_JOBS_AT_ONCE = 8
# What only a new reading can tell to have changed is read again seldom: it may cost a pod.
_REREAD_SECONDS = 6 * 3600.0
# In first waits: what comes from the network passes sooner or later; what the file itself is to blame for
# may be mended in place, but not by waiting.
_LONGEST_RETRY = 60
_RETRY_OF_LASTING_FAILURES = 120


@dataclass(frozen=True, slots=True)
class ProfileQuestion:
    """What to read and how; equal questions have equal answers.

    ``access`` is whose identity reads it, None for the operator's own: what one namespace may read is not
    told to another.
    """

    url: str
    format: str
    sha256: str | None
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...]
    batch_size: int
    access: JobAccess | None = None

    @staticmethod
    def of(spec: InferenceWorkloadSpec, namespace: str) -> ProfileQuestion:
        """The question that a workload of that namespace asks."""
        model = spec.model
        shapes = tuple(sorted((shape.name, shape.dimensions) for shape in model.input_shapes))
        return ProfileQuestion(
            model.url,
            model.format.value,
            model.sha256,
            shapes,
            spec.load.batch_size,
            JobAccess.of(spec, namespace),
        )

    @property
    def inputs_hash(self) -> str:
        """Digest of everything but the URL."""
        fields: list[object] = [self.format, self.sha256, self.input_shapes, self.batch_size]
        if self.access is not None:
            fields.append([self.access.service_account, self.access.secret])
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
Identify = Callable[[ProfileQuestion], Awaitable[Identity]]


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
        identify: Identify | None = None,
    ) -> None:
        self._retry_seconds = retry_seconds
        self._inspect = inspect
        self._on_answer = on_answer
        self._metrics = metrics
        self._answers: dict[ProfileQuestion, Answer] = {}
        self._asked: dict[ProfileQuestion, asyncio.Task[None]] = {}
        self._checks: dict[ProfileQuestion, asyncio.Task[None]] = {}
        self._answered_at: dict[ProfileQuestion, float] = {}
        self._identify = identify
        self._slots = asyncio.Semaphore(_READINGS_AT_ONCE)
        self._job_slots = asyncio.Semaphore(_JOBS_AT_ONCE)

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
        self._answered_at.setdefault(question, time.monotonic())

    def forget(self, question: ProfileQuestion) -> None:
        """Drop what no workload asks any more."""
        self._answers.pop(question, None)
        self._answered_at.pop(question, None)
        for tasks in (self._asked, self._checks):
            task = tasks.pop(question, None)
            if task is not None:
                task.cancel()

    def check_all(self) -> None:
        """Begin to ask all stores whether what was read is still what they hold."""
        for question, answer in self._answers.items():
            if question in self._asked or question in self._checks or not isinstance(answer, ModelProfile):
                continue
            if question.sha256 is not None:
                continue  # A pinned file is the one it is.
            task = asyncio.create_task(self._check(question, answer), name=f"check {question.url}")
            self._checks[question] = task
            task.add_done_callback(partial(self._checked, question))

    def _checked(self, question: ProfileQuestion, task: asyncio.Task[None]) -> None:
        if self._checks.get(question) is task:
            del self._checks[question]
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOGGER.error("model %s: the check for changes failed: %r", question.url, error)

    async def close(self) -> None:
        """End all readings."""
        tasks = [*self._asked.values(), *self._checks.values()]
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
                self._answered_at[question] = time.monotonic()
                self._asked.pop(question, None)
                self._on_answer(question)
                return
            self._on_answer(question)
            _LOGGER.info(
                "model %s: %s: %s (attempt %d)", question.url, answer.error.reason, answer.error, attempts
            )
            await asyncio.sleep(self._retry_seconds * _retry_factor(answer))

    async def _check(self, question: ProfileQuestion, known: ModelProfile) -> None:
        """Read again what has changed. A store that does not answer proves nothing: the profile stays."""
        if not await self._changed(question, known):
            return
        _LOGGER.info("model %s: the file may have changed and is read again", question.url)
        answer = await self._read(question, attempts=1)
        if self._answers.get(question) is not known:
            return
        if isinstance(answer, ProfileFailure):
            if answer.error.retryable:
                _LOGGER.warning("model %s: %s; its last profile stays", question.url, answer.error)
                return
            # As if it were asked for the first time: told, and tried again.
            del self._answers[question]
            self.get(question)
            return
        self._answers[question] = answer
        self._answered_at[question] = time.monotonic()
        if answer != known:
            self._on_answer(question)

    async def _changed(self, question: ProfileQuestion, known: ModelProfile) -> bool:
        if question.access is not None or known.digest_source == "GraphSha256":
            # Of the latter's store nothing tells a change but reading.
            return time.monotonic() - self._answered_at.get(question, 0.0) > _REREAD_SECONDS
        if self._identify is None:
            return False
        try:
            async with self._slots:
                now = await self._identify(question)
        except InspectionError as error:
            _LOGGER.info("model %s: not checked for changes: %s", question.url, error)
            return False
        return bool(now.value) and (now.value, now.source) != (known.digest, known.digest_source)

    async def _read(self, question: ProfileQuestion, attempts: int) -> Answer:
        async with self._slots if question.access is None else self._job_slots:
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


def job_reader(client: Client, options: OperatorOptions) -> JobReader | None:
    """What reads models by Jobs; None where the operator was given no image for them."""
    if not options.inspection_image:
        return None
    return JobReader(client, JobSettings(options.inspection_image, options.inspection_deadline_seconds))


async def read_by_job(jobs: JobReader | None, question: ProfileQuestion) -> ModelProfile:
    """Answer a question that has an ``access``; raises ``InspectionError``."""
    if question.access is None:
        raise ValueError("this question needs no Job")
    if jobs is None:
        raise InspectionJobFailed(
            "it is read by a Job in the workload's namespace, and this operator has no --inspection-image"
        )
    asked = JobQuestion(
        question.url, question.access, question.input_shapes, question.batch_size, question.sha256
    )
    try:
        return await jobs.read(asked)
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        raise InspectionJobFailed(f"the API server did not take the inspection Job ({error})") from error
