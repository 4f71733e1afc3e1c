"""Reads what needs credentials or a volume: by a Job in the workload's namespace, under its own identity.

The Job runs ``tailwise inspect`` in this program's image, with the service account, the Secret or the claim
that the workload names, and leaves its answer as its pod's termination message. The operator reads none of
the three. A Job's name follows from its question, so an operator that was started anew finds the Job of the
one before, and two workloads with one question have one Job.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.labels import MANAGED_BY, MANAGED_BY_LABEL
from tailwise.api.profile import ModelProfile
from tailwise.cluster import apply
from tailwise.cluster.apply import Outcome
from tailwise.cluster.client import JOBS, PODS, ApiError, Client
from tailwise.controllers.job_pods import CONTAINER_SECURITY, POD_SECURITY, in_words, unscheduled
from tailwise.models.errors import InspectionJobFailed, InvalidUrl
from tailwise.models.report import answer_of

_LOGGER = logging.getLogger(__name__)

# Object stores' own libraries look for an identity, which must be the workload's and never the operator's.
_OF_A_NAMESPACE = frozenset({"s3", "gs", "az", "pvc"})
INSPECTION_LABEL = "tailwise.dev/inspection"
SECRET_DIRECTORY = "/var/run/tailwise/credentials"  # noqa: S105 - a path
VOLUME_DIRECTORY = "/var/run/tailwise/volume"
_KEPT_SECONDS = 600
_SPARE_SECONDS = 30.0
# A container that waits for one of these will not start by itself soon.
_TROUBLES = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
    }
)


@dataclass(frozen=True, slots=True)
class JobAccess:
    """Whose identity reads a model: of which namespace, service account and Secret."""

    namespace: str
    service_account: str | None = None
    secret: str | None = None

    @staticmethod
    def of(spec: InferenceWorkloadSpec, namespace: str) -> JobAccess | None:
        """What a workload's model needs; None where the operator may read it itself."""
        model = spec.model
        secret = model.secret_ref.name if model.secret_ref is not None else None
        scheme = model.url.partition("://")[0]
        if scheme == "file":
            return None
        if scheme in _OF_A_NAMESPACE or model.service_account_name is not None or secret is not None:
            return JobAccess(namespace, model.service_account_name, secret)
        return None


@dataclass(frozen=True, slots=True)
class JobQuestion:
    """What a Job is to read; the sizes as ``tailwise inspect`` takes them."""

    url: str
    access: JobAccess
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    batch_size: int = 1
    sha256: str | None = None

    @property
    def job_name(self) -> str:
        """The Job's name: the same for the same question."""
        return f"tailwise-inspect-{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The operator's part: the image, the time a Job has, and how often it is looked after."""

    image: str
    deadline_seconds: int = 300
    poll_seconds: float = 2.0


def job_manifest(question: JobQuestion, settings: JobSettings) -> dict[str, Any]:
    """The Job; its pod meets the restricted pod security standard. Raises InvalidUrl."""
    access, name = question.access, question.job_name
    labels = {
        INSPECTION_LABEL: name,
        MANAGED_BY_LABEL: MANAGED_BY,
        "app.kubernetes.io/name": "tailwise-inspection",
    }
    url, claim = _volume(question.url)
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the container's own
    if claim:
        volumes.append({"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": "model", "mountPath": VOLUME_DIRECTORY, "readOnly": True})
    if access.secret:
        volumes.append({"name": "credentials", "secret": {"secretName": access.secret, "defaultMode": 0o444}})
        mounts.append({"name": "credentials", "mountPath": SECRET_DIRECTORY, "readOnly": True})
    container = {
        "name": "inspect",
        "image": settings.image,
        "args": [_escaped(each) for each in _arguments(question, url, settings)],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": volumes,
    }
    if access.service_account:
        pod["serviceAccountName"] = access.service_account
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {"name": name, "namespace": access.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": settings.deadline_seconds,
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


class JobReader:
    """Reads models by Jobs; ``read`` may be called for several questions at once."""

    def __init__(self, client: Client, settings: JobSettings) -> None:
        self._client = client
        self._settings = settings

    async def read(self, question: JobQuestion) -> ModelProfile:
        """Make the Job, wait for its answer, remove it. Raises ``InspectionError``.

        Cancelled, it leaves the Job to its deadline, or to an operator that asks the same again.
        """
        namespace, name = question.access.namespace, question.job_name
        written = await apply.create(self._client, JOBS, job_manifest(question, self._settings))
        if written.outcome is Outcome.CONFLICT:
            _LOGGER.info("inspection Job %s/%s exists already: waiting for its answer", namespace, name)
        elif not written.done:
            raise InspectionJobFailed(f"the inspection Job is refused: {written.message}")
        message = await self._message(namespace, name)
        await self._remove(namespace, name)
        return answer_of(message)

    async def _message(self, namespace: str, name: str) -> str:
        """The termination message of the Job's pod; raises when there will be none."""
        trouble = ""
        until = time.monotonic() + self._settings.deadline_seconds + _SPARE_SECONDS
        while time.monotonic() < until:
            job = await self._job(namespace, name)
            pods = await self._pods(namespace, name)
            for pod in pods:
                if (message := _terminated(pod)) is not None:
                    return message
                trouble = _trouble(pod) or trouble
            failure = _failure(job)
            if failure or job is None:
                await self._remove(namespace, name)
                why = failure or "it was deleted before it had answered"
                raise InspectionJobFailed(_told(name, why, trouble))
            await asyncio.sleep(self._settings.poll_seconds)
        await self._remove(namespace, name)
        raise InspectionJobFailed(_told(name, "it did not end by its deadline", trouble))

    async def _job(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        try:
            return await self._client.request("GET", JOBS.path(namespace, name))
        except ApiError as error:
            if error.reason == "NotFound":
                return None
            raise

    async def _pods(self, namespace: str, name: str) -> Sequence[Mapping[str, Any]]:
        query = {"labelSelector": f"{INSPECTION_LABEL}={name}"}
        return (await self._client.request("GET", PODS.path(namespace), query=query)).get("items") or ()

    async def _remove(self, namespace: str, name: str) -> None:
        await apply.delete(self._client, JOBS, namespace, name, with_dependents=True)


def _arguments(question: JobQuestion, url: str, settings: JobSettings) -> list[str]:
    arguments = ["inspect", url, f"--batch-size={question.batch_size}"]
    arguments += [
        f"--input-shape={name}={','.join(map(str, sizes))}" for name, sizes in question.input_shapes
    ]
    if question.sha256:
        arguments.append(f"--sha256={question.sha256}")
    if question.access.secret:
        arguments.append(f"--credentials-directory={SECRET_DIRECTORY}")
    arguments += [f"--timeout={settings.deadline_seconds}", "--report=/dev/termination-log"]
    return arguments


def _escaped(argument: str) -> str:
    """An argument that Kubernetes takes as it is: $(NAME) would be replaced by a variable's value."""
    return argument.replace("$(", "$$(")


def _volume(url: str) -> tuple[str, str]:
    """The URL as the Job sees it, and the claim it needs, if any."""
    parts = urlsplit(url)
    if parts.scheme != "pvc":
        return url, ""
    path = unquote(parts.path).strip("/")
    if not parts.netloc or not path or ".." in path.split("/"):
        raise InvalidUrl(f"a file on a volume is pvc://CLAIM/PATH.onnx, not {url[:200]!r}")
    return f"file://{VOLUME_DIRECTORY}/{quote(path)}", parts.netloc


def _terminated(pod: Mapping[str, Any]) -> str | None:
    """What the pod's container has left behind; None while it has not ended."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = (status.get("state") or {}).get("terminated")
        if ended is not None:
            said = str(ended.get("message") or "")
            return said or f"exit code {ended.get('exitCode')}, {ended.get('reason', 'no reason')}"
    return None


def _trouble(pod: Mapping[str, Any]) -> str:
    """Why the pod does not start, in the words of scheduler and kubelet; empty where nothing is wrong."""
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _TROUBLES:
            return in_words(waiting)
    return unscheduled(status)


def _failure(job: Mapping[str, Any] | None) -> str:
    for condition in ((job or {}).get("status") or {}).get("conditions") or ():
        if condition.get("type") in ("Failed", "FailureTarget") and condition.get("status") == "True":
            return in_words(condition)
    return ""


def _told(name: str, why: str, trouble: str) -> str:
    detail = f"; its pod: {trouble[:500]}" if trouble else ""
    return (
        f"the inspection Job {name} gave no answer ({why}{detail}); check serviceAccountName, secretRef and "
        "the volume that spec.model names, and the operator's --inspection-image"
    )
