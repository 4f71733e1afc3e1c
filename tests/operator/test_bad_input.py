"""Whatever a user gets wrong ends in a condition that names the field and the way out, and one event.

Pods follow spec.placement.fallback, and the operator goes on. All cases run against one operator.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from tailwise.api.labels import NODE_ANNOTATION
from tailwise.cluster import apply
from tailwise.cluster.client import DEPLOYMENTS, INFERENCE_WORKLOADS, PODS
from tests.operator.stage import (
    Look,
    Operator,
    gated,
    gated_pod,
    labelled_deployment,
    pod_spec,
    until,
    workload,
)

# Figures by hand: nothing is read, so that a pod's time is not up before there is a profile.
GIVEN = {"flops": 500_000_000, "parameterBytes": 300_000}
CLOSED_PORT = "http://127.0.0.1:9/model.onnx"


@dataclass(frozen=True, slots=True)
class Case:
    """A model that is wrong, the reason it must lead to, and words of the message: the field, the way out."""

    url: str
    reason: str
    words: tuple[str, ...]
    fallback: str = "DefaultScheduler"
    model: dict[str, Any] = field(default_factory=dict)


URL, BY_HAND = "spec.model.url", "spec.model.profile"
MODELS = {
    "unreachable": Case(CLOSED_PORT, "ModelUnreachable", (URL, "check the host")),
    "no such file": Case("{models}/missing.onnx", "ModelNotFound", (URL, "check the path"), "Hold"),
    "no such file, told late": Case("{models}/late.onnx", "ModelNotFound", (URL, "check the path")),
    "truncated": Case("{models}/truncated.onnx", "ModelInvalid", (URL, "upload it again")),
    "not ONNX": Case("{models}/words.onnx", "ModelInvalid", (URL, "ONNX file"), "Hold"),
    "5 GB, in ranges": Case("{models}/huge-ranges.onnx", "ModelTooLarge", (URL, BY_HAND)),
    "5 GB, sent whole": Case("{models}/huge-whole.onnx", "ModelTooLarge", (URL, BY_HAND), "Hold"),
    "endless, in ranges": Case("{models}/endless-ranges.onnx", "ModelTooLarge", (URL, BY_HAND)),
    "endless, sent whole": Case("{models}/endless-whole.onnx", "ModelTooLarge", (URL, BY_HAND)),
    "redirect to link-local": Case(
        "{models}/redirect.onnx", "AddressRefused", (URL, "169.254.169.254", "--allow-model-network")
    ),
    "dynamic shapes": Case(
        "{models}/dynamic.onnx", "InputShapesMissing", ("spec.model.inputShapes", "for example x0"), "Hold"
    ),
    "another digest": Case(
        "{models}/good.onnx",
        "DigestMismatch",
        ("spec.model.sha256", "correct it"),
        model={"sha256": "0" * 64},
    ),
}


@pytest.mark.parametrize("name", MODELS)
async def test_a_model_that_cannot_be_read_is_named_once_and_its_pods_follow_the_fallback(
    name: str, look: Look, operator: Operator, models: str
) -> None:
    case = MODELS[name]
    # Of this test alone, so that the readings are counted in the log.
    url = f"{case.url.format(models=models)}?{look.namespace}"
    made = workload(
        look.namespace, "w", url, replicas=2, timeout_seconds=1, fallback=case.fallback, **case.model
    )
    await look.create(INFERENCE_WORKLOADS, made)

    async def told(kind: str = "ModelProfiled") -> dict[str, Any]:
        condition = await look.condition("w", kind)
        return condition if case.words[0] in condition.get("message", "") else {}

    async def read_thrice() -> bool:
        return any(f"{url}: " in line and "(attempt 3)" in line for line in operator.log_text.splitlines())

    condition = await until(told, f"the reason {case.reason}", 120)
    assert (condition["status"], condition["reason"]) == ("False", case.reason)
    for word in case.words:
        assert word in condition["message"]
    await until(read_thrice, "two more readings", 120)

    (event,) = await look.told_of("ModelUnreadable", "w")
    assert event["regarding"]["kind"] == "InferenceWorkload"
    assert event["type"] == "Warning"
    assert all(word in event["note"] for word in case.words)
    # The pods' time was up before the model was read: what came of it replaces that it was being read.
    placed = await until(partial(told, "Placed"), "the real reason in condition Placed")
    assert placed["status"] == "False"
    if case.fallback == "Hold":
        assert placed["reason"] == case.reason
        await _assert_held(look, case)
    else:
        assert placed["reason"] == "FellBack"
        await _assert_let_go(look)
    told_of_workload = [each for each in await look.all_events() if each["regarding"]["name"] == "w"]
    assert [each["reason"] for each in told_of_workload] == ["ModelUnreadable"]
    assert operator.running
    assert "Traceback" not in operator.log_text


async def _assert_held(look: Look, case: Case) -> None:
    """Both pods wait at the gate, and each was told why, once."""
    for pod in await look.pods():
        assert gated(pod)
        (held,) = await look.told_of("Held", pod["metadata"]["name"])
        assert all(word in held["note"] for word in case.words)


async def _assert_let_go(look: Look) -> None:
    """Both pods are the default scheduler's, and each was told so, once, in words that stay true."""
    for pod in await until(lambda: look.bound_pods(2), "two pods let go"):
        assert NODE_ANNOTATION not in pod["metadata"]["annotations"]
        (event,) = await look.told_of("FellBack", pod["metadata"]["name"])
        assert "is being read" not in event["note"]


async def test_a_partial_profile_places_pods_and_names_what_was_not_counted(
    look: Look, operator: Operator, models: str
) -> None:
    await look.create(
        INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/partial.onnx", replicas=1)
    )
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod", 120)
    assert NODE_ANNOTATION in pod["metadata"]["annotations"]

    async def told() -> dict[str, Any]:
        condition = await look.condition("w", "ModelProfiled")
        return condition if condition.get("reason") == "ProfilePartial" else {}

    condition = await until(told, "ProfilePartial")
    assert condition["status"] == "True"
    assert "Whatever" in condition["message"]
    assert "spec.model.profile" in condition["message"]
    assert len(await until(lambda: look.events("ProfilePartial", "w"), "the event")) == 1
    assert operator.running


async def test_dynamic_axes_with_their_shapes_given_are_counted(
    look: Look, operator: Operator, models: str
) -> None:
    shapes = [{"name": "x0", "dimensions": [1, 32, 56, 56]}]
    made = workload(look.namespace, "w", f"{models}/dynamic.onnx", replicas=1, inputShapes=shapes)
    await look.create(INFERENCE_WORKLOADS, made)
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod", 120)
    assert NODE_ANNOTATION in pod["metadata"]["annotations"]
    assert operator.running


async def test_a_workload_without_template_and_pods_says_so(
    look: Look, operator: Operator, models: str
) -> None:
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx"))

    async def told() -> dict[str, Any]:
        condition = await look.condition("w", "Ready")
        return condition if condition.get("reason") == "NoPods" else {}

    condition = await until(told, "the reason NoPods")
    assert condition["status"] == "False"
    assert "tailwise.dev/workload: w" in condition["message"]
    assert "spec.template" in condition["message"]
    assert len(await until(lambda: look.events("NoPods", "w"), "the event")) == 1
    assert operator.running


async def test_a_pod_whose_label_names_no_workload_is_let_go_with_one_event(
    look: Look, operator: Operator
) -> None:
    await look.create(PODS, gated_pod(look.namespace, "stray", "nobody"))
    (pod,) = await until(lambda: look.bound_pods(1), "the stray pod bound")
    assert not gated(pod)
    (event,) = await until(lambda: look.events("UnknownWorkload", "stray"), "the event")
    assert "tailwise.dev/workload" in event["note"]
    assert "nobody" in event["note"]
    assert operator.running


async def test_a_pod_that_two_workloads_claim_falls_back_and_both_are_told(
    look: Look, operator: Operator, models: str
) -> None:
    url = f"{models}/good.onnx"
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "labelled", url, timeout_seconds=1))
    owner = workload(
        look.namespace,
        "owner",
        url,
        replicas=1,
        timeout_seconds=1,
        labels={"tailwise.dev/workload": "labelled"},
    )
    await look.create(INFERENCE_WORKLOADS, owner)
    (pod,) = await until(lambda: look.bound_pods(1), "the pod let go")
    assert NODE_ANNOTATION not in pod["metadata"]["annotations"]
    for name in ("owner", "labelled"):

        async def told(name: str = name) -> dict[str, Any]:
            condition = await look.condition(name, "Placed")
            return condition if condition.get("reason") == "PodsClaimedTwice" else {}

        condition = await until(told, f"PodsClaimedTwice on {name}")
        assert "spec.template.metadata.labels" in condition["message"]
        assert len(await look.told_of("ClaimedTwice", name)) == 1
    assert len(await look.events("ClaimedTwice", pod["metadata"]["name"])) == 1
    assert operator.running


async def test_a_pod_that_fits_no_node_is_held_or_let_go_as_its_workload_says(
    look: Look, operator: Operator, models: str
) -> None:
    url = f"{models}/good.onnx"
    huge = pod_spec(cpu="500")
    for name, fallback in (("released", "DefaultScheduler"), ("held", "Hold")):
        made = workload(
            look.namespace,
            name,
            url,
            replicas=1,
            spec=huge,
            timeout_seconds=3,
            fallback=fallback,
            profile=GIVEN,
        )
        await look.create(INFERENCE_WORKLOADS, made)

    async def told(name: str) -> dict[str, Any]:
        condition = await look.condition(name, "Placed")
        return condition if "nodes fit" in condition.get("message", "") else {}

    for name in ("released", "held"):
        condition = await until(partial(told, name), f"why {name} is not placed", 120)
        assert condition["status"] == "False"
        assert "Insufficient cpu" in condition["message"]

    async def opened() -> bool:
        return sorted(gated(pod) for pod in await look.pods()) == [False, True]

    await until(opened, "one pod let go, the other held")
    (kept,) = [pod for pod in await look.pods() if gated(pod)]
    assert kept["metadata"]["name"].startswith("held")
    assert len(await until(lambda: look.events("Held", kept["metadata"]["name"]), "the event Held")) == 1
    candidates = (await look.workload("held"))["status"]["candidates"]
    assert (
        candidates["feasible"] + sum(each["nodes"] for each in candidates["rejections"])
        == candidates["nodes"]
    )
    assert operator.running


async def test_an_slo_that_no_node_meets_is_told_with_what_the_best_one_lacks(
    look: Look, operator: Operator, models: str
) -> None:
    throttled = pod_spec(cpu="10m", limit="20m")
    made = workload(
        look.namespace,
        "w",
        f"{models}/good.onnx",
        slo_milliseconds=1,
        replicas=1,
        spec=throttled,
        timeout_seconds=3,
        profile=GIVEN,
    )
    await look.create(INFERENCE_WORKLOADS, made)

    async def told() -> dict[str, Any]:
        condition = await look.condition("w", "SLOAttainable")
        return condition if condition.get("reason") == "NoNodeMeetsSLO" else {}

    condition = await until(told, "NoNodeMeetsSLO", 120)
    assert "spec.slo.latencyMilliseconds" in condition["message"]
    await until(lambda: look.bound_pods(1), "the pod let go")
    assert operator.running


async def test_an_slo_of_nothing_is_refused_by_the_api_server(look: Look, models: str) -> None:
    made = workload(look.namespace, "w", f"{models}/good.onnx", slo_milliseconds=0)
    refused = await apply.create(look.client, INFERENCE_WORKLOADS, made)
    assert refused.outcome is apply.Outcome.REFUSED
    assert "latencyMilliseconds" in refused.message


async def test_a_node_without_an_agent_is_counted_and_gets_no_pod(
    look: Look, operator: Operator, models: str
) -> None:
    selector = pod_spec(nodeSelector={"kubernetes.io/hostname": "op-without-agent"})
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=1, spec=selector, timeout_seconds=3)
    await look.create(INFERENCE_WORKLOADS, made)

    async def told() -> dict[str, Any]:
        condition = await look.condition("w", "Placed")
        return condition if "hardware" in condition.get("message", "") else {}

    condition = await until(told, "hardware data in the message", 120)
    assert "agent" in condition["message"]
    (pod,) = await until(lambda: look.bound_pods(1), "the pod let go")
    assert NODE_ANNOTATION not in pod["metadata"]["annotations"]
    assert operator.running


async def test_a_deployment_that_is_somebody_elses_is_left_alone(
    look: Look, operator: Operator, models: str
) -> None:
    foreign = labelled_deployment(look.namespace, "w", "elsewhere", 0)
    await look.create(DEPLOYMENTS, foreign)
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", replicas=3))

    async def told() -> dict[str, Any]:
        condition = await look.condition("w", "Ready")
        return condition if condition.get("reason") == "DeploymentNotOurs" else {}

    condition = await until(told, "DeploymentNotOurs")
    assert "rename" in condition["message"]
    kept = await look.client.request("GET", DEPLOYMENTS.path(look.namespace, "w"))
    assert kept["spec"]["replicas"] == 0
    assert operator.running


async def test_fields_without_behaviour_are_named(look: Look, operator: Operator, models: str) -> None:
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=1)
    made["spec"]["placement"]["policy"] = "Feasible"
    await look.create(INFERENCE_WORKLOADS, made)

    async def told() -> dict[str, Any]:
        condition = await look.condition("w", "SpecSupported")
        return condition if condition.get("reason") == "NotImplemented" else {}

    condition = await until(told, "NotImplemented")
    assert "spec.placement.policy" in condition["message"]
    assert operator.running


async def test_a_prometheus_that_is_away_is_told_and_pods_are_placed_all_the_same(
    look: Look, operator: Operator, models: str
) -> None:
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=1)
    made["spec"]["metrics"] = {"preset": "KServe"}
    await look.create(INFERENCE_WORKLOADS, made)
    await until(lambda: look.bound_pods(1), "a bound pod", 120)

    async def told() -> dict[str, Any]:
        condition = await look.condition("w", "Observed")
        return condition if condition.get("reason") == "PrometheusUnavailable" else {}

    condition = await until(told, "PrometheusUnavailable")
    assert condition["status"] == "False"
    assert "Prometheus" in condition["message"]
    assert len(await look.told_of("PrometheusUnavailable", "w")) == 1
    (placement,) = (await look.workload("w"))["status"]["placements"]
    assert placement["source"] == "Stale"
    assert "dataAgeSeconds" not in placement
    assert operator.running
