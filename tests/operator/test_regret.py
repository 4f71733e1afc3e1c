"""``tailwise regret``: predicted, observed and what the best other node would save, of pods as they stand."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from tailwise.api.inference_workload_status import InferenceWorkloadStatus, Placement
from tailwise.cli.cluster_now import ClusterNow
from tailwise.cli.regret import _pod_table, _workload_table, workload_document
from tailwise.cluster.client import INFERENCE_WORKLOADS
from tests.cluster.controlplane import ControlPlane
from tests.operator.conftest import FAST, OPERATOR_NAMESPACE
from tests.operator.live_stage import MODEL, LiveStage, live_stage
from tests.operator.process import Operator
from tests.operator.stage import Look, until, workload


def now_of(stage: LiveStage, **observed: int) -> ClusterNow:
    """The cluster as a command reads it: figures of pods stand in the workload's status."""
    placements = tuple(
        Placement(pod=pod.replace("_", "-"), observed_p90_milliseconds=p90) for pod, p90 in observed.items()
    )
    status = InferenceWorkloadStatus(
        profile=MODEL, placements=placements, observed_p90_milliseconds=max(observed.values(), default=None)
    )
    stage.view.registry.workloads[stage.known.key] = replace(stage.known, status=status)
    return ClusterNow(stage.view, stage.assessor, stage.now)


async def regret(stage: LiveStage, **observed: int) -> dict[str, Any]:
    return await workload_document(now_of(stage, **observed), stage.known, None)


async def test_a_pod_on_a_worse_node_is_told_with_what_the_best_other_would_save() -> None:
    async with live_stage() as stage:
        await stage.place("iris-1")
        await stage.place("iris-2", node="slow")
        found = await regret(stage, iris_1=40, iris_2=400)
    best, worse = found["placements"]
    assert (best["node"], best["regretPercent"], best["regretMilliseconds"]) == ("fast", 0.0, 0.0)
    assert (worse["node"], worse["bestOtherNode"]) == ("slow", "fast")
    share = 1 - worse["bestOtherP90Milliseconds"] / worse["predictedP90Milliseconds"]
    assert worse["regretPercent"] == pytest.approx(100 * share, abs=0.2)
    assert worse["regretMilliseconds"] == pytest.approx(400 * share, rel=0.01)
    assert (found["worstPod"], found["betterNode"]) == ("iris-2", "fast")
    assert found["meanRegretPercent"] == pytest.approx(worse["regretPercent"] / 2, abs=0.1)


async def test_errors_are_of_the_prediction_under_the_load_of_now_and_bounds_as_promised() -> None:
    async with live_stage() as stage:
        await stage.place("iris-1")
        (quiet,) = (await regret(stage, iris_1=1))["placements"]
        promised = quiet["promisedP90Milliseconds"]
        stage.sample_nodes({"fast": 1.0})
        found = await regret(stage, iris_1=10 * promised)
    (busy,) = found["placements"]
    assert busy["predictedP90Milliseconds"] > quiet["predictedP90Milliseconds"]
    assert busy["promisedP90Milliseconds"] == promised
    assert busy["errorPercent"] == pytest.approx(
        100 * (busy["predictedP90Milliseconds"] / (10 * promised) - 1), abs=0.1
    )
    assert busy["exceeded"]
    assert found["exceedances"] == 1
    assert not quiet["exceeded"]


async def test_what_nobody_observed_has_no_error_and_still_an_alternative() -> None:
    async with live_stage(metrics=None) as stage:
        await stage.place("iris-1", node="slow")
        found = await regret(stage)
    (pod,) = found["placements"]
    assert pod["errorPercent"] is None
    assert pod["observedP90Milliseconds"] is None
    assert pod["regretMilliseconds"] > 0
    assert "spec.metrics" in found["note"]


async def test_tables_show_workloads_and_pods() -> None:
    async with live_stage() as stage:
        await stage.place("iris-1", node="slow")
        document = {"workloads": [await regret(stage, iris_1=40)]}
    for table, words in ((_workload_table, "WORST POD"), (_pod_table, "BEST OTHER")):
        text = table(document)
        assert words in text
        assert "default/iris" in text
        assert "iris-1" in text
        assert "as the status last told it" in text
    assert "-A" in _workload_table({"workloads": []})
    assert isinstance(stage.now, datetime)


async def _tailwise(plane: ControlPlane, *arguments: str) -> tuple[int, str, str]:
    words = ("--kubeconfig", str(plane.kubeconfig), "--operator-namespace", OPERATOR_NAMESPACE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tailwise", "regret", *words, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_answers_from_a_cluster_that_an_operator_placed_pods_in(
    control_plane: ControlPlane, look: Look, operator: Operator, models: str
) -> None:
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", replicas=1))
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod", 120)

    async def profiled() -> Any:
        return (await look.workload("w")).get("status", {}).get("profile")

    await until(profiled, "the profile in status")
    code, out, err = await _tailwise(control_plane, "w", "-n", look.namespace, "-o", "json")
    assert code == 0, err
    (found,) = json.loads(out)["workloads"]
    (told,) = found["placements"]
    assert told["pod"] == pod["metadata"]["name"]
    assert told["node"] == FAST
    assert told["promisedP90Milliseconds"] > 0
    assert told["bestOtherNode"] not in (None, FAST)
    assert told["regretPercent"] == 0
    code, out, err = await _tailwise(control_plane, "-n", look.namespace)
    assert code == 0, err
    assert f"{look.namespace}/w" in out
    code, _, err = await _tailwise(control_plane, "nobody", "-n", look.namespace)
    assert code == 1
    assert f"{look.namespace}/nobody" in err
    code, _, err = await _tailwise(control_plane, "w", "-A")
    assert code == 1
    assert "--all-namespaces" in err
    assert operator.running
