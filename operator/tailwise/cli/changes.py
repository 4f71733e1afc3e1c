"""What would be otherwise: the options of ``tailwise what-if``, and a question with them put into it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tailwise.api.inference_workload import InferenceWorkloadSpec, Serving
from tailwise.api.profile import ModelProfile
from tailwise.cli.answering import Document, NoAnswerError
from tailwise.cli.argument_types import whole_number
from tailwise.cli.inspect import failure, inspected, shape_argument
from tailwise.cli.predict import UsageError, read_profile
from tailwise.domain.objects import Container, Pod, serving_container
from tailwise.domain.resources import CPU
from tailwise.models.errors import InspectionError

_PROFILES = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a pod of a workload with this spec, whose model has this profile."""

    spec: InferenceWorkloadSpec
    pod: Pod
    profile: ModelProfile


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that would be otherwise."""

    field: str
    today: object
    then: object

    @property
    def words(self) -> str:
        """As a sentence has it."""
        if self.today is None:
            return f"{self.field} {self.then}"
        return f"{self.field} {self.then} instead of {self.today}"

    def document(self) -> Document:
        """As JSON."""
        return {"field": self.field, "today": self.today, "then": self.then}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options by which a workload would be otherwise."""
    group = parser.add_argument_group("what would be otherwise")
    group.add_argument(
        "--slo-milliseconds", type=whole_number(1, 3_600_000), metavar="MS", help="another SLO"
    )
    group.add_argument(
        "--requests-per-second", type=whole_number(1, 10_000_000), metavar="N", help="another rate to one pod"
    )
    group.add_argument(
        "--concurrency",
        type=whole_number(1, 65_536),
        metavar="N",
        help="another number of queries in flight; without --requests-per-second a closed loop of so many",
    )
    group.add_argument(
        "--cpu-limit-millicores",
        type=whole_number(0),
        metavar="M",
        help="another CPU limit of the server's container; 0: none",
    )
    group.add_argument(
        "--cpu-request-millicores", type=whole_number(0), metavar="M", help="another CPU request of it"
    )
    group.add_argument(
        "--threads", type=whole_number(1, 4096), metavar="N", help="other spec.serving.threads"
    )
    group.add_argument(
        "--batch-size",
        type=whole_number(1, 65_536),
        metavar="N",
        help="another batch; the model is read at it, from this machine",
    )
    group.add_argument(
        "--model",
        metavar="FILE_OR_URL",
        help="another model: an ONNX file or its URL, read from this machine, or a profile (.json, .yaml)",
    )
    group.add_argument(
        "--input-shape",
        action="append",
        default=[],
        type=shape_argument,
        metavar="NAME=1,3,224,224",
        help="sizes of an input with dynamic axes of --model; may be repeated",
    )


def changed(question: Question, arguments: argparse.Namespace) -> tuple[Question, list[Change]]:
    """The question as the options want it, and what that changes.

    Raises:
        NoAnswerError: the model cannot be read, or an option does not go with the workload.
    """
    spec, changes = _changed_spec(question.spec, arguments)
    profile = _changed_profile(question, spec, arguments, changes)
    pod = _changed_pod(question.pod, spec, arguments, changes)
    return Question(spec, pod, profile), changes


def _changed_spec(
    spec: InferenceWorkloadSpec, arguments: argparse.Namespace
) -> tuple[InferenceWorkloadSpec, list[Change]]:
    changes: list[Change] = []

    def put(field: str, today: object, then: object) -> bool:
        if then is None or then == today:
            return False
        changes.append(Change(field, today, then))
        return True

    if put("slo.latencyMilliseconds", spec.slo.latency_milliseconds, arguments.slo_milliseconds):
        slo = spec.slo.model_copy(update={"latency_milliseconds": arguments.slo_milliseconds})
        spec = spec.model_copy(update={"slo": slo})
    load: dict[str, Any] = {}
    if put("load.requestsPerSecond", spec.load.requests_per_second, arguments.requests_per_second):
        load["requests_per_second"] = arguments.requests_per_second
    if put("load.concurrency", spec.load.concurrency, arguments.concurrency):
        load["concurrency"] = arguments.concurrency
    if arguments.concurrency and not arguments.requests_per_second and spec.load.requests_per_second:
        changes.append(Change("load.requestsPerSecond", spec.load.requests_per_second, "none"))
        load["requests_per_second"] = None
    if put("load.batchSize", spec.load.batch_size, arguments.batch_size):
        load["batch_size"] = arguments.batch_size
    if load:
        spec = spec.model_copy(update={"load": spec.load.model_copy(update=load)})
    serving = spec.serving or Serving()
    if put("serving.threads", serving.threads, arguments.threads):
        serving = serving.model_copy(update={"threads": arguments.threads})
        spec = spec.model_copy(update={"serving": serving})
    return spec, changes


def _changed_profile(
    question: Question, spec: InferenceWorkloadSpec, arguments: argparse.Namespace, changes: list[Change]
) -> ModelProfile:
    batch_size = spec.load.batch_size
    if arguments.model is not None:
        changes.append(Change("model", spec.model.url, arguments.model))
        return _profile(arguments.model, batch_size, arguments.input_shape)
    if arguments.input_shape:
        raise NoAnswerError("--input-shape is for --model, which is not given")
    if batch_size == question.spec.load.batch_size:
        return question.profile
    override = spec.model.profile
    if override is not None and override.is_complete:
        raise NoAnswerError(
            f"--batch-size {batch_size}: the figures in spec.model.profile are those of a batch of "
            f"{question.spec.load.batch_size}; give a profile of the other one with --model FILE.yaml"
        )
    shapes = [(each.name, each.dimensions) for each in spec.model.input_shapes]
    counted = _profile(spec.model.url, batch_size, shapes)
    return override.over(counted) if override is not None else counted


def _profile(model: str, batch_size: int, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> ModelProfile:
    try:
        if model.endswith(_PROFILES):
            return read_profile(Path(model), batch_size)
        return inspected(model, batch_size, shapes)
    except InspectionError as error:
        raise NoAnswerError(f"--model {failure(model, error)}") from error
    except UsageError as error:
        raise NoAnswerError(str(error)) from error


def _changed_pod(
    pod: Pod, spec: InferenceWorkloadSpec, arguments: argparse.Namespace, changes: list[Change]
) -> Pod:
    limit, request = arguments.cpu_limit_millicores, arguments.cpu_request_millicores
    if limit is None and request is None:
        return pod
    server = serving_container(pod, spec.serving.container if spec.serving else None)
    if server is None:
        raise NoAnswerError("the pod has no container that spec.serving.container names: no limit to change")
    then = server
    if limit is not None:
        then = replace(then, cpu_limit_millicores=limit or None)
    if request is not None:
        then = replace(then, cpu_request_millicores=request)
    elif limit and (server.cpu_request_millicores or 0) > limit:
        # Kubernetes refuses a request above the limit: who lowers the one lowers the other.
        then = replace(then, cpu_request_millicores=limit)
    if (then.cpu_request_millicores or 0) > (then.cpu_limit_millicores or 2**63):
        raise NoAnswerError(
            f"--cpu-request-millicores {then.cpu_request_millicores} is above the container's limit of "
            f"{then.cpu_limit_millicores}m: give --cpu-limit-millicores too"
        )
    for what, before, after in (
        ("resources.limits.cpu", server.cpu_limit_millicores, then.cpu_limit_millicores),
        ("resources.requests.cpu", server.cpu_request_millicores, then.cpu_request_millicores),
    ):
        if before != after:
            changes.append(Change(what, _millicores(before), _millicores(after)))
    return _with_container(pod, server, then)


def _with_container(pod: Pod, server: Container, then: Container) -> Pod:
    containers = tuple(then if each is server else each for each in pod.containers)
    whole = pod.cpu_limit_millicores
    limits = [each.cpu_limit_millicores for each in containers]
    if whole is None or whole == sum(each.cpu_limit_millicores or 0 for each in pod.containers):
        # The pod's limit is the sum of its containers', not one of its own.
        known = [limit for limit in limits if limit is not None]
        whole = sum(known) if len(known) == len(limits) else None
    more = (then.cpu_request_millicores or 0) - (server.cpu_request_millicores or 0)
    requests = {**pod.requests, CPU: max(0, pod.requests.get(CPU, 0) + more)}
    return replace(pod, containers=containers, cpu_limit_millicores=whole, requests=requests)


def _millicores(value: int | None) -> str:
    return "none" if value is None else f"{value}m"
