"""Models that need credentials or a volume are read by a Job under the workload's own identity.

There is no kubelet on this stage, so a test takes its part: it runs the very command of the Job's pod, with
the Secret and the volume where the pod would have them, and reports its end to the API server. The namespace
enforces the restricted pod security standard, so every pod here has passed it.
"""

import asyncio
import base64
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tailwise.cluster import apply
from tailwise.cluster.client import INFERENCE_WORKLOADS, JOBS, PODS, ContentType, Resource
from tailwise.controllers.inspection_job import (
    INSPECTION_LABEL,
    SECRET_DIRECTORY,
    VOLUME_DIRECTORY,
    JobAccess,
    JobQuestion,
    JobSettings,
    job_manifest,
)
from tests.models.store import Store, serving
from tests.operator.model_server import convolutions
from tests.operator.process import Operator
from tests.operator.stage import Look, until, workload

SECRETS = Resource("", "v1", "secrets", "Secret")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)


@pytest.fixture
async def strict(look: Look, operator: Operator) -> AsyncIterator[Look]:
    """A namespace whose pods must meet the restricted pod security standard."""
    assert operator.running
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await apply.merge_patch(look.client, NAMESPACES, None, look.namespace, {"metadata": {"labels": labels}})
    yield look
    assert "Traceback" not in operator.log_text


async def inspection_pods(look: Look) -> list[dict[str, Any]]:
    return [pod for pod in await look.pods() if INSPECTION_LABEL in pod["metadata"]["labels"]]


async def jobs(look: Look) -> list[dict[str, Any]]:
    return list((await look.client.request("GET", JOBS.path(look.namespace)))["items"])


async def run_as_kubelet(look: Look, directory: Path, volume: Path | None = None) -> dict[str, Any]:
    """Run the one inspection pod's command and report how it ended; returns the pod."""

    async def one() -> list[dict[str, Any]]:
        return await inspection_pods(look)

    pod: dict[str, Any] = (await until(one, "an inspection pod"))[0]
    (container,) = pod["spec"]["containers"]
    report = directory / "termination-log"
    secrets = directory / "secret"
    secrets.mkdir(exist_ok=True)
    for each in pod["spec"]["volumes"]:
        if "secret" in each:
            path = SECRETS.path(look.namespace, each["secret"]["secretName"])
            for name, value in (await look.client.request("GET", path))["data"].items():
                (secrets / name).write_bytes(base64.b64decode(value))
    places = {
        "/dev/termination-log": str(report),
        SECRET_DIRECTORY: str(secrets),
        VOLUME_DIRECTORY: str(volume or directory),
    }
    arguments = []
    for argument in container["args"]:
        for inside, here in places.items():
            argument = argument.replace(inside, here)  # noqa: PLW2901
        arguments.append(argument.replace("$$(", "$("))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tailwise", *arguments)
    code = await asyncio.wait_for(process.wait(), 60)
    message = report.read_text() if report.exists() else ""
    await end_pod(look, pod, code, message)
    return pod


async def end_pod(look: Look, pod: dict[str, Any], code: int, message: str) -> None:
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z"}
    ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": message, **times}
    phase = "Succeeded" if code == 0 else "Failed"
    await write_status(look, pod, phase, {"terminated": ended})


async def write_status(look: Look, pod: dict[str, Any], phase: str, state: dict[str, Any]) -> None:
    """The pod's phase, and the state of its one container, as a kubelet would tell them."""
    container = {
        "name": "inspect",
        "image": "x",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }
    status = {"phase": phase, "containerStatuses": [container]}
    path = PODS.path(look.namespace, pod["metadata"]["name"], "status")
    await look.client.request("PATCH", path, body={"status": status}, content_type=ContentType.MERGE_PATCH)


async def profiled(look: Look, name: str = "w") -> dict[str, Any]:
    found = await look.condition(name, "ModelProfiled")
    return found if found.get("status") == "True" else {}


async def failed(look: Look, *words: str) -> dict[str, Any]:
    found = await look.condition("w", "ModelProfiled")
    return found if all(word in found.get("message", "") for word in words) else {}


async def no_jobs(look: Look) -> bool:
    return not await jobs(look)


async def make_secret(look: Look, name: str, **content: str) -> None:
    await look.create(
        SECRETS, {"metadata": {"name": name, "namespace": look.namespace}, "stringData": content}
    )


async def test_a_model_on_a_volume_is_read_by_a_job_that_leaves_nothing_behind(
    strict: Look, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.onnx").write_bytes(convolutions())
    claim = {
        "metadata": {"name": "store", "namespace": strict.namespace},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
        },
    }
    await strict.create(CLAIMS, claim)
    await strict.create(INFERENCE_WORKLOADS, workload(strict.namespace, "w", "pvc://store/models/net.onnx"))
    pod = await run_as_kubelet(strict, tmp_path)
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert volumes["model"]["persistentVolumeClaim"] == {"claimName": "store", "readOnly": True}
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["containers"][0]["resources"]["limits"]
    await until(partial(profiled, strict), "the profile")
    status = (await strict.workload("w"))["status"]
    assert status["profile"]["flops"] > 0
    await until(partial(no_jobs, strict), "the Job's end")
    supported = await strict.condition("w", "SpecSupported")
    assert supported["status"] == "True"


async def test_a_store_that_asks_for_a_secret_is_read_with_it_under_the_service_account(
    strict: Look, tmp_path: Path
) -> None:
    await strict.create(SERVICE_ACCOUNTS, {"metadata": {"name": "reader", "namespace": strict.namespace}})
    with contextlib.ExitStack() as stack:
        server, seen = stack.enter_context(_guarded(convolutions()))
        host = server.partition("//")[2].partition(":")[0]
        await make_secret(
            strict, "web", **{"https-host": host, "headers": '{"Authorization": "Bearer open sesame"}'}
        )
        made = workload(
            strict.namespace,
            "w",
            f"{server}/model.onnx",
            serviceAccountName="reader",
            secretRef={"name": "web"},
        )
        await strict.create(INFERENCE_WORKLOADS, made)
        pod = await run_as_kubelet(strict, tmp_path)
        await until(partial(profiled, strict), "the profile")
    assert pod["spec"]["serviceAccountName"] == "reader"
    assert set(seen) == {"Bearer open sesame"}, "the operator itself has not asked"


async def test_two_workloads_of_one_question_have_one_job(strict: Look, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(convolutions())
    for name in ("w", "v"):
        await strict.create(INFERENCE_WORKLOADS, workload(strict.namespace, name, "pvc://shared/net.onnx"))
    assert len(await until(partial(jobs, strict), "the Job")) == 1
    await run_as_kubelet(strict, tmp_path)
    for name in ("w", "v"):
        await until(partial(profiled, strict, name), f"the profile of {name}")


async def test_a_job_that_an_operator_before_has_made_is_waited_for(strict: Look, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(convolutions())
    question = JobQuestion("pvc://shared/net.onnx", JobAccess(strict.namespace))
    made = await strict.create(JOBS, job_manifest(question, JobSettings("registry.invalid/tailwise:0", 120)))
    await strict.create(INFERENCE_WORKLOADS, workload(strict.namespace, "w", question.url))
    await run_as_kubelet(strict, tmp_path)
    await until(partial(profiled, strict), "the profile")
    await until(partial(no_jobs, strict), "the Job's end")
    assert made["metadata"]["name"] == question.job_name


async def test_an_error_that_the_job_finds_is_the_condition_and_one_event(
    strict: Look, tmp_path: Path
) -> None:
    (tmp_path / "net.onnx").write_bytes(b"<html>")
    await strict.create(INFERENCE_WORKLOADS, workload(strict.namespace, "w", "pvc://store/net.onnx"))
    await run_as_kubelet(strict, tmp_path)
    condition = await until(partial(failed, strict, "not an ONNX model"), "the error")
    assert (condition["status"], condition["reason"]) == ("False", "ModelInvalid")
    (event,) = await strict.told_of("ModelUnreadable", "w")
    assert "not an ONNX model" in event["note"]


async def _no_image(look: Look, pod: dict[str, Any]) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such host registry.invalid"}}
    await write_status(look, pod, "Pending", waiting)


async def _crash(look: Look, pod: dict[str, Any]) -> None:
    await end_pod(look, pod, 137, "")


async def _gibberish(look: Look, pod: dict[str, Any]) -> None:
    await end_pod(look, pod, 0, "zlib:nothing of the kind")


async def _nothing(look: Look, pod: dict[str, Any]) -> None:
    _ = look, pod


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (_no_image, ("ImagePullBackOff", "registry.invalid", "--inspection-image")),
        (_crash, ("137",)),
        (_gibberish, ("no answer",)),
        (_nothing, ("DeadlineExceeded",)),
    ],
    ids=["image cannot be pulled", "crash", "no answer", "deadline"],
)
async def test_a_job_that_gives_no_answer_is_a_condition_and_one_event(
    strict: Look, happens: Callable[[Look, dict[str, Any]], Any], words: tuple[str, ...]
) -> None:
    await make_secret(strict, "keys", AWS_ACCESS_KEY_ID="id")
    made = workload(strict.namespace, "w", "s3://bucket/net.onnx", secretRef={"name": "keys"})
    await strict.create(INFERENCE_WORKLOADS, made)
    pod = (await until(partial(inspection_pods, strict), "an inspection pod"))[0]
    await happens(strict, pod)
    condition = await until(partial(failed, strict, *words), "the failure", 120)
    assert (condition["status"], condition["reason"]) == ("False", "InspectionJobFailed")
    (event,) = await strict.told_of("ModelUnreadable", "w")
    assert event["type"] == "Warning"


async def test_a_claim_that_does_not_exist_is_named(strict: Look) -> None:
    await strict.create(INFERENCE_WORKLOADS, workload(strict.namespace, "w", "pvc://missing/net.onnx"))
    condition = await until(partial(failed, strict, 'persistentvolumeclaim "missing" not found'), "it", 120)
    assert condition["reason"] == "InspectionJobFailed"
    assert len(await strict.told_of("ModelUnreadable", "w")) == 1


async def test_a_service_account_that_does_not_exist_is_named(strict: Look) -> None:
    made = workload(strict.namespace, "w", "s3://bucket/net.onnx", serviceAccountName="nobody")
    await strict.create(INFERENCE_WORKLOADS, made)
    condition = await until(partial(failed, strict, "gave no answer"), "it", 120)
    assert condition["reason"] == "InspectionJobFailed"


@contextlib.contextmanager
def _guarded(content: bytes) -> Any:
    """A web server that wants a bearer token; gives its URL and the tokens it was shown."""
    with serving(Store(files={"/model.onnx": content}, wanted="Bearer open sesame")) as store:
        yield store.url, store.authorizations
