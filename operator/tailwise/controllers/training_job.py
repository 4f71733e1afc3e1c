"""The Job of a training run: its manifest, and what a Job that there is tells of its run.

The Job runs ``tailwise train --run`` of the training image in the operator's namespace. What it is to do
stands in a ConfigMap of the Job's name. Its service account may create ConfigMaps there and tell its
progress, and nothing else. One Job a version: the number in its name is the version's.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from tailwise.api.labels import (
    API_VERSION,
    LATENCY_MODEL_LABEL,
    LATENCY_MODEL_VERSION_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    RETRAIN_ANNOTATION,
    SCHEDULED_FOR_ANNOTATION,
    TRIGGER_ANNOTATION,
)
from tailwise.cluster.client import CONFIG_MAPS, JOBS
from tailwise.controllers.job_pods import (
    CONTAINER_SECURITY,
    NOBODY,
    POD_SECURITY,
    in_words,
    unscheduled,
)
from tailwise.domain.learning_facts import JobFacts, JobState, RunToStart
from tailwise.domain.record import parse_time
from tailwise.telemetry.join import JOIN_FILE
from tailwise.training.request import FAILED_FOR_GOOD, REQUEST_FILE, RunRequest

TRAINING_NAME = "tailwise-training"
"""``app.kubernetes.io/name`` of training Jobs, and the name of their container."""

CONTAINER = "train"
RUN_DIRECTORY = "/etc/tailwise/run"
VOLUME_DIRECTORY = "/var/run/tailwise/volumes"
_NUMBER = re.compile(r"-v(\d{1,9})$")
_LONGEST_NAME = 36
_ENDED = ("Complete", "SuccessCriteriaMet", "Failed", "FailureTarget")


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The operator's part: the image (None: nothing is trained), who runs it, what it may read."""

    namespace: str
    image: str | None = None
    service_account: str = TRAINING_NAME
    pull_secrets: tuple[str, ...] = ()
    prometheus_url: str | None = None
    networks: tuple[str, ...] = ()
    refused_networks: tuple[str, ...] = ()
    allow_files: bool = False


def job_name(latency_model: str, version: int) -> str:
    """The name of the Job that makes a version, at most 63 characters, for its pods are labelled with it."""
    name = latency_model
    if len(name) > _LONGEST_NAME or "." in name:
        name = f"{name[:27].replace('.', '-').rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"tailwise-train-{name}-v{version}"


def number_of(job: str) -> int:
    """The version that a Job makes, by its name; 0 for another's name."""
    found = _NUMBER.search(job)
    return int(found.group(1)) if found else 0


def owner(name: str, uid: str) -> dict[str, Any]:
    """The LatencyModel as owner: what belongs to it goes with it."""
    return {"apiVersion": API_VERSION, "kind": "LatencyModel", "name": name, "uid": uid}


def request_config_map(request: RunRequest) -> dict[str, Any]:
    """What the Job is to do, where it finds it."""
    document = request.model_dump_json(by_alias=True, exclude_none=True)
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.kind,
        "metadata": {
            "name": request.job,
            "namespace": request.namespace,
            "labels": {**_labels(request), "app.kubernetes.io/name": TRAINING_NAME},
            "ownerReferences": [owner(request.latency_model, request.uid)],
        },
        "immutable": True,
        "data": {REQUEST_FILE: document},
    }


def job_manifest(
    request: RunRequest, run: RunToStart, settings: TrainingSettings, join: str | None = None
) -> dict[str, Any]:
    """The Job; its pod meets the restricted pod security standard.

    ``join`` is the ConfigMap that says what names in Prometheus stood for, None where nothing is read there.
    """
    job = request.spec.training_job
    labels = {**_labels(request), "app.kubernetes.io/name": TRAINING_NAME}
    annotations = {
        LATENCY_MODEL_LABEL: request.latency_model,
        TRIGGER_ANNOTATION: run.trigger.value,
        **({RETRAIN_ANNOTATION: run.request} if run.request else {}),
        **({SCHEDULED_FOR_ANNOTATION: run.scheduled_for.isoformat()} if run.scheduled_for else {}),
    }
    volumes, mounts = _volumes(request, join)
    cpu, memory = job.cpu_limit_millicores, job.memory_limit_mebibytes
    container = {
        "name": CONTAINER,
        "image": settings.image,
        "args": ["train", f"--run={RUN_DIRECTORY}", f"--threads={max(1, math.ceil(cpu / 1000))}"],
        "resources": {
            "requests": {"cpu": f"{max(100, cpu // 2)}m", "memory": f"{memory}Mi"},
            "limits": {"cpu": f"{cpu}m", "memory": f"{memory}Mi"},
        },
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": job.service_account_name or settings.service_account,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "nodeSelector": dict(job.node_selector),
        "securityContext": {**POD_SECURITY, "fsGroup": NOBODY},
        "containers": [container],
        "volumes": volumes,
    }
    if settings.pull_secrets:
        pod["imagePullSecrets"] = [{"name": each} for each in settings.pull_secrets]
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            "name": request.job,
            "namespace": request.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner(request.latency_model, request.uid)],
        },
        "spec": {
            "backoffLimit": job.backoff_limit,
            "activeDeadlineSeconds": job.deadline_seconds,
            "ttlSecondsAfterFinished": job.ttl_seconds,
            # What would fail the same way again is not tried again.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": [FAILED_FOR_GOOD],
                        },
                    }
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def job_facts(obj: Mapping[str, Any]) -> JobFacts | None:
    """What a Job tells of its run; None where it is no training Job of ours."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    annotations = metadata.get("annotations") or {}
    latency_model = annotations.get(LATENCY_MODEL_LABEL)
    number = number_of(metadata["name"])
    if not latency_model or not number or "deletionTimestamp" in metadata:
        return None
    state, message, ended_at = JobState.RUNNING, "", None
    for condition in status.get("conditions") or ():
        if condition.get("type") in _ENDED and condition.get("status") == "True":
            failed = condition["type"] in ("Failed", "FailureTarget")
            state = JobState.FAILED if failed else JobState.SUCCEEDED
            message = in_words(condition)
            ended_at = parse_time(condition.get("lastTransitionTime"))
    return JobFacts(
        latency_model=latency_model,
        name=metadata["name"],
        uid=metadata["uid"],
        number=number,
        state=state,
        message=message,
        trigger=annotations.get(TRIGGER_ANNOTATION, ""),
        request=annotations.get(RETRAIN_ANNOTATION, ""),
        scheduled_for=parse_time(annotations.get(SCHEDULED_FOR_ANNOTATION)),
        created_at=_required_time(metadata["creationTimestamp"]),
        ended_at=ended_at,
    )


def pod_trouble(pods: Sequence[Mapping[str, Any]]) -> str:
    """Why a run's newest pod does not start or ended, in the words of scheduler and kubelet."""
    for pod in sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp")), reverse=True):
        status = pod.get("status") or {}
        for container in status.get("containerStatuses") or ():
            state = container.get("state") or {}
            ended, waiting = state.get("terminated"), state.get("waiting") or {}
            if ended is not None and ended.get("exitCode"):
                said = str(ended.get("message") or "")[-500:].strip()
                why = f"exit code {ended['exitCode']}, {ended.get('reason', 'no reason')}"
                return f"{why}: {said}" if said else why
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                return in_words(waiting)
        if waits := unscheduled(status):
            return waits
        if status.get("reason"):  # such as DeadlineExceeded or Evicted
            return in_words(status)
    return ""


def _labels(request: RunRequest) -> dict[str, str]:
    return {
        LATENCY_MODEL_LABEL: request.latency_model[:63].rstrip("-."),
        LATENCY_MODEL_VERSION_LABEL: str(request.version),
        MANAGED_BY_LABEL: MANAGED_BY,
    }


def _volumes(request: RunRequest, join: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    sources: list[dict[str, Any]] = [{"configMap": {"name": request.job}}]
    if join is not None:
        sources.append({"configMap": {"name": join, "items": [{"key": JOIN_FILE, "path": JOIN_FILE}]}})
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}},
        {"name": "run", "projected": {"sources": sources}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        {"name": "run", "mountPath": RUN_DIRECTORY, "readOnly": True},
    ]
    for place, claim in enumerate(_claims(request)):
        name = f"claim-{place}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": name, "mountPath": f"{VOLUME_DIRECTORY}/{claim}", "readOnly": True})
    return volumes, mounts


def _claims(request: RunRequest) -> tuple[str, ...]:
    urls = [urlsplit(each.url) for each in request.spec.dataset.files]
    return tuple(dict.fromkeys(each.netloc for each in urls if each.scheme == "pvc" and each.netloc))


def _required_time(text: str) -> datetime:
    time = parse_time(text)
    if time is None:
        raise ValueError(f"{text!r} is no time")
    return time
