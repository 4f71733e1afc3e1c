"""Training Jobs: names that are never two's, what a pod of one may do, and what one tells of its end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.latency_model import LatencyModelSpec
from tailwise.controllers.training_job import (
    TrainingSettings,
    job_facts,
    job_manifest,
    job_name,
    number_of,
    pod_trouble,
    request_config_map,
)
from tailwise.domain.learning_facts import JobState, RunToStart
from tailwise.domain.schedule import Trigger
from tailwise.training.request import RunProgress, RunRequest

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
SETTINGS = TrainingSettings("here", "training:1", pull_secrets=("keys",))
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", fullmatch=True)


def request(**spec: Any) -> RunRequest:
    return RunRequest(
        latency_model="m",
        uid="u",
        version=7,
        namespace="here",
        job=job_name("m", 7),
        spec=LatencyModelSpec.model_validate(spec),
    )


def made(**spec: Any) -> dict[str, Any]:
    run = RunToStart(7, Trigger.SCHEDULE, scheduled_for=NOW)
    return job_manifest(request(**spec), run, SETTINGS, "what-was-served")


@given(NAMES, st.integers(1, 999_999_999))
def test_a_name_fits_a_pods_label_and_tells_its_number(latency_model: str, number: int) -> None:
    name = job_name(latency_model, number)
    assert len(name) <= 63
    assert number_of(name) == number


@given(NAMES, NAMES)
def test_two_latency_models_have_two_names(one: str, other: str) -> None:
    assert (job_name(one, 1) == job_name(other, 1)) is (one == other)


def test_the_jobs_pod_may_do_nothing_but_train() -> None:
    spec = made(trainingJob={"cpuLimitMillicores": 1500, "memoryLimitMebibytes": 512})["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["train", "--run=/etc/tailwise/run", "--threads=2"]
    assert container["resources"]["limits"] == {"cpu": "1500m", "memory": "512Mi"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["securityContext"]["runAsNonRoot"]
    assert (pod["serviceAccountName"], pod["imagePullSecrets"]) == ("tailwise-training", [{"name": "keys"}])
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (
        1,
        3600,
        86400,
    )


def test_a_claim_of_a_dataset_is_mounted_to_be_read() -> None:
    files = {"files": [{"url": "pvc://store/a.parquet"}, {"url": "pvc://store/b.parquet"}]}
    pod = made(dataset=files)["spec"]["template"]["spec"]
    claims = [each for each in pod["volumes"] if "persistentVolumeClaim" in each]
    assert [each["persistentVolumeClaim"] for each in claims] == [{"claimName": "store", "readOnly": True}]
    mounts = {each["mountPath"]: each for each in pod["containers"][0]["volumeMounts"]}
    assert mounts["/var/run/tailwise/volumes/store"]["readOnly"]


def test_what_a_job_is_to_do_comes_back_from_its_config_map() -> None:
    asked = request(dataset={"files": [{"url": "https://example/rows.parquet"}]})
    assert RunRequest.model_validate_json(request_config_map(asked)["data"]["run.json"]) == asked


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([], JobState.RUNNING),
        ([{"type": "Complete", "status": "True"}], JobState.SUCCEEDED),
        ([{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}], JobState.FAILED),
        ([{"type": "Suspended", "status": "True"}], JobState.RUNNING),
    ],
)
def test_a_job_tells_whose_run_it_is_and_how_it_ended(
    conditions: list[dict[str, str]], state: JobState
) -> None:
    job = made()
    job["metadata"] |= {"uid": "j", "creationTimestamp": "2026-06-01T12:00:00Z"}
    job["status"] = {"conditions": conditions}
    facts = job_facts(job)
    assert facts is not None
    assert (facts.latency_model, facts.number, facts.state) == ("m", 7, state)
    assert (facts.trigger, facts.scheduled_for, facts.created_at) == ("Schedule", NOW, NOW)
    assert (facts.message == "DeadlineExceeded") is (state is JobState.FAILED)


def test_somebody_elses_job_is_none_of_ours() -> None:
    job = made()
    job["metadata"] |= {"uid": "j", "creationTimestamp": "2026-06-01T12:00:00Z"}
    assert job_facts({**job, "metadata": {**job["metadata"], "annotations": {}}}) is None
    assert job_facts({**job, "metadata": {**job["metadata"], "name": "backup"}}) is None


def _pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"creationTimestamp": "2026-06-01T12:00:00Z"}, "status": status}


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (_pod(), ""),
        (
            _pod(containerStatuses=[{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]),
            "exit code 137, OOMKilled",
        ),
        (
            _pod(
                containerStatuses=[
                    {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
                ]
            ),
            "ErrImagePull: no such image",
        ),
        (_pod(containerStatuses=[{"state": {"waiting": {"reason": "ContainerCreating"}}}]), ""),
        (
            _pod(
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available",
                    }
                ]
            ),
            "Unschedulable: 0/3 nodes are available",
        ),
        (_pod(reason="Evicted", message="the node was low on memory"), "Evicted: the node was low on memory"),
    ],
)
def test_a_pods_trouble_is_told_in_kubernetes_words(pod: dict[str, Any], words: str) -> None:
    assert pod_trouble([pod]) == words


def test_progress_is_a_sentence() -> None:
    progress = RunProgress(stage="Search", done=3, total=12, what="LightGBM", rows=600, remaining_seconds=120)
    assert progress.words() == "Search: 3 of 12 (LightGBM), 600 rows, about 2 min of it left"
    assert RunProgress(stage="Fetch", what="rows.parquet").words() == "Fetch (rows.parquet)"
