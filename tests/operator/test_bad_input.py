"""Whatever a user gets wrong ends in a condition that names the field and the way out, and one event.

Pods follow spec.placement.fallback, and the operator goes on. All cases run against one operator. Each
case names every event that may be told, of the workload and of its pod; after two more retries there are
no others, and none has been told again. Models that cannot be read are in ``test_bad_models``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tailwise.api.labels import NODE_ANNOTATION, WORKLOAD_LABEL
from tailwise.cluster import apply
from tailwise.cluster.client import DEPLOYMENTS, INFERENCE_WORKLOADS, PODS, ContentType, Resource
from tests.operator.conftest import BARE
from tests.operator.process import Operator
from tests.operator.stage import Look, gated, gated_pod, labelled_deployment, pod_spec, until, workload

# Figures by hand: nothing is read, so that a pod's time is not up before there is a profile.
GIVEN = {"flops": 500_000_000, "parameterBytes": 300_000}
# A pod that is not placed is tried each second until its time is up: twice again at the least.
# A status is written each two seconds at most: what is said before the time-out must get its turn.
TIMEOUT_SECONDS = 6

Beside = Callable[[str, str], tuple[Resource, dict[str, Any]]]


def _second_workload(namespace: str, url: str) -> tuple[Resource, dict[str, Any]]:
    return INFERENCE_WORKLOADS, workload(namespace, "labelled", url, timeout_seconds=TIMEOUT_SECONDS)


def _foreign_deployment(namespace: str, _: str) -> tuple[Resource, dict[str, Any]]:
    return DEPLOYMENTS, labelled_deployment(namespace, "w", "elsewhere", 0)


def _ungated_pod(namespace: str, _: str) -> tuple[Resource, dict[str, Any]]:
    pod = gated_pod(namespace, "hasty", "w")
    pod["spec"].pop("schedulingGates")
    return PODS, pod


@dataclass(frozen=True, slots=True)
class Situation:
    """What a user got wrong, what a condition must say of it, and every event that may be told.

    An event is "w" or "pod", whom it is about, and its reason. ``ends`` is what became of the pod.
    """

    condition: str
    reason: str
    words: tuple[str, ...]
    events: tuple[str, ...]
    ends: str
    status: str = "False"
    model: str = "good"
    given: bool = True
    more: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    beside: Beside | None = None


PLACED, LET_GO, HELD, NO_POD = "placed on a node that was chosen", "let go", "held", "there is none"
HUGE, NO_AGENT = pod_spec(cpu="500"), pod_spec(nodeSelector={"kubernetes.io/hostname": BARE})
THROTTLED = pod_spec(cpu="10m", limit="20m")
NO_FIT, HELD_TOO = ("w NoFeasibleNode", "pod NoFeasibleNode"), ("pod Held",)
NO_DATA = ("w NoNodeHardware", "pod NoFeasibleNode")
REQUESTS = ("nodes fit", "Insufficient cpu", "resources.requests")
AGENT = ("without hardware data", "agent.tolerations")
SLO = ("spec.slo.latencyMilliseconds", "raise")

SITUATIONS = {
    "neither template nor labelled pod": Situation(
        "Ready", "NoPods", ("tailwise.dev/workload: w", "spec.template"), ("w NoPods",), NO_POD
    ),
    "two workloads for one pod": Situation(
        "Placed",
        "PodsClaimedTwice",
        ("spec.template.metadata.labels", "remove it"),
        ("w ClaimedTwice", "labelled ClaimedTwice", "pod ClaimedTwice", "pod FellBack"),
        LET_GO,
        more={"replicas": 1, "labels": {WORKLOAD_LABEL: "labelled"}},
        beside=_second_workload,
    ),
    "a profile that is Partial": Situation(
        "ModelProfiled",
        "ProfilePartial",
        ("Whatever", "spec.model.profile"),
        ("w ProfilePartial", "pod Placed"),
        PLACED,
        status="True",
        model="partial",
        given=False,
        more={"replicas": 1, "timeout_seconds": 120},
    ),
    "Prometheus away": Situation(
        "Observed",
        "PrometheusUnavailable",
        ("Prometheus", "--prometheus-url"),
        ("w PrometheusUnavailable", "pod Placed"),
        PLACED,
        more={"replicas": 1},
        spec={"metrics": {"preset": "KServe"}},
    ),
    "no agent on the node, released": Situation(
        "Placed",
        "FellBack",
        AGENT,
        (*NO_DATA, "pod FellBack"),
        LET_GO,
        more={"replicas": 1, "spec": NO_AGENT},
    ),
    "no agent on the node, held": Situation(
        "Placed",
        "NoNodeHardware",
        AGENT,
        (*NO_DATA, *HELD_TOO),
        HELD,
        more={"replicas": 1, "spec": NO_AGENT, "fallback": "Hold"},
    ),
    "no node that fits, released": Situation(
        "Placed", "FellBack", REQUESTS, (*NO_FIT, "pod FellBack"), LET_GO, more={"replicas": 1, "spec": HUGE}
    ),
    "no node that fits, held": Situation(
        "Placed",
        "NoFeasibleNode",
        REQUESTS,
        (*NO_FIT, *HELD_TOO),
        HELD,
        more={"replicas": 1, "spec": HUGE, "fallback": "Hold"},
    ),
    "no node that meets the SLO, released": Situation(
        "SLOAttainable",
        "NoNodeMeetsSLO",
        SLO,
        (*NO_FIT, "pod FellBack"),
        LET_GO,
        more={"replicas": 1, "spec": THROTTLED, "slo_milliseconds": 1},
    ),
    "no node that meets the SLO, held": Situation(
        "SLOAttainable",
        "NoNodeMeetsSLO",
        SLO,
        (*NO_FIT, *HELD_TOO),
        HELD,
        more={"replicas": 1, "spec": THROTTLED, "slo_milliseconds": 1, "fallback": "Hold"},
    ),
    "a pod that came without the gate": Situation(
        "Placed", "FellBack", ("hasty", "schedulingGates"), ("w FellBack",), LET_GO, beside=_ungated_pod
    ),
    "a Deployment that is somebody else's": Situation(
        "Ready",
        "DeploymentNotOurs",
        ("rename",),
        ("w DeploymentNotOurs",),
        NO_POD,
        more={"replicas": 3},
        beside=_foreign_deployment,
    ),
    "a template that the API server refuses": Situation(
        "Ready",
        "TemplateRefused",
        ("spec.template", "must be less than or equal to cpu limit"),
        ("w TemplateRefused",),
        NO_POD,
        more={"replicas": 1, "spec": pod_spec(cpu="2", limit="1")},
    ),
    "a LatencyModel that is not there": Situation(
        "Ready",
        "LatencyModelNotFound",
        ("spec.latencyModelRef.name", "nowhere", "Create it"),
        ("w LatencyModelNotFound", "pod Placed"),
        PLACED,
        more={"replicas": 1},
        spec={"latencyModelRef": {"name": "nowhere"}},
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
async def test_what_is_wrong_is_in_a_condition_and_told_once_however_often_it_is_tried_again(
    name: str, look: Look, operator: Operator, models: str
) -> None:
    case, url = SITUATIONS[name], f"{models}/{SITUATIONS[name].model}.onnx"
    if case.beside is not None:
        await look.create(*case.beside(look.namespace, url))
    given: dict[str, Any] = {"profile": GIVEN} if case.given else {}
    made = workload(look.namespace, "w", url, **{"timeout_seconds": TIMEOUT_SECONDS, **case.more}, **given)
    made["spec"] |= case.spec
    await look.create(INFERENCE_WORKLOADS, made)

    async def condition() -> dict[str, Any]:
        found = await look.condition("w", case.condition)
        right = (found.get("status"), found.get("reason")) == (case.status, case.reason)
        return found if right else {}

    async def all_told() -> bool:
        return set(case.events) <= {each for each, _ in await _told(look)}

    await until(condition, f"the reason {case.reason} on {case.condition}", 120)
    await until(all_told, f"the events {', '.join(case.events)}")
    await until(lambda: _became(look, case.ends), f"the pod to be {case.ends}")
    for _ in range(2):
        await _tried_again(look)
    # Its words at the end: what was said while the pods still waited is replaced.
    message = (await condition())["message"]
    for word in case.words:
        assert word in message
    told = await _told(look)
    assert sorted(each for each, _ in told) == sorted(case.events)
    assert [count for _, count in told] == [1] * len(told)
    assert await _became(look, case.ends)
    assert operator.running
    assert "Traceback" not in operator.log_text


async def _told(look: Look) -> list[tuple[str, int]]:
    """Each event as whom it is about and its reason, and how often it was told."""
    return [
        (f"{_whom(event)} {event['reason']}", event.get("series", {}).get("count", 1))
        for event in await look.all_events()
    ]


def _whom(event: dict[str, Any]) -> str:
    about = event["regarding"]
    return "pod" if about["kind"] == "Pod" else str(about["name"])


async def _became(look: Look, ends: str) -> bool:
    pods = await look.pods()
    if ends == NO_POD or not pods:
        return ends == NO_POD and not pods
    (pod,) = pods
    if ends == HELD:
        return gated(pod)
    chosen = NODE_ANNOTATION in pod["metadata"].get("annotations", {})
    # A pod that is let go may have no node all the same: none fits it.
    return not gated(pod) and (chosen and "nodeName" in pod["spec"] if ends == PLACED else not chosen)


async def _tried_again(look: Look) -> None:
    """Any change of the spec has the workload and its waiting pods looked at anew."""
    spec = (await look.workload("w"))["spec"]
    longer = {"spec": {"placement": {"timeoutSeconds": spec["placement"]["timeoutSeconds"] + 1}}}
    path = INFERENCE_WORKLOADS.path(look.namespace, "w")
    changed = await look.client.request("PATCH", path, body=longer, content_type=ContentType.MERGE_PATCH)

    async def seen() -> bool:
        status = (await look.workload("w"))["status"]
        return bool(status["observedGeneration"] == changed["metadata"]["generation"])

    await until(seen, "the change to be seen")


async def test_a_pod_whose_label_names_no_workload_is_let_go_with_one_event(
    look: Look, operator: Operator
) -> None:
    await look.create(PODS, gated_pod(look.namespace, "stray", "nobody"))
    (pod,) = await until(lambda: look.bound_pods(1), "the stray pod bound")
    assert not gated(pod)
    await until(lambda: look.events("UnknownWorkload", "stray"), "the event")
    # Seen again and again, as a pod is whose status changes.
    for number in range(2):
        labels = {"metadata": {"labels": {"seen": str(number)}}}
        path = PODS.path(look.namespace, "stray")
        await look.client.request("PATCH", path, body=labels, content_type=ContentType.MERGE_PATCH)
    (event,) = await look.all_events()
    assert "series" not in event
    assert "tailwise.dev/workload" in event["note"]
    assert "nobody" in event["note"]
    assert "create it, or correct the label" in event["note"]
    assert operator.running


async def test_counts_of_why_no_node_fits_add_up(look: Look, operator: Operator, models: str) -> None:
    made = workload(
        *(look.namespace, "held", f"{models}/good.onnx"),
        replicas=1,
        spec=HUGE,
        timeout_seconds=1,
        fallback="Hold",
        profile=GIVEN,
    )
    await look.create(INFERENCE_WORKLOADS, made)

    async def counted() -> dict[str, Any]:
        return (await look.workload("held")).get("status", {}).get("candidates") or {}

    candidates = await until(counted, "the counts of candidates")
    refused = sum(each["nodes"] for each in candidates["rejections"])
    assert candidates["feasible"] + refused == candidates["nodes"]
    assert operator.running


async def test_an_slo_of_nothing_is_refused_by_the_api_server(look: Look, models: str) -> None:
    made = workload(look.namespace, "w", f"{models}/good.onnx", slo_milliseconds=0)
    refused = await apply.create(look.client, INFERENCE_WORKLOADS, made)
    assert refused.outcome is apply.Outcome.REFUSED
    assert "spec.slo.latencyMilliseconds" in refused.message
    assert "greater than or equal to 1" in refused.message


async def test_a_deployment_that_is_somebody_elses_is_left_alone(
    look: Look, operator: Operator, models: str
) -> None:
    await look.create(*_foreign_deployment(look.namespace, ""))
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", replicas=3))
    await look.told_of("DeploymentNotOurs", "w")
    kept = await look.client.request("GET", DEPLOYMENTS.path(look.namespace, "w"))
    assert kept["spec"]["replicas"] == 0
    assert operator.running


async def test_fields_without_behaviour_are_named(look: Look, operator: Operator, models: str) -> None:
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=1)
    made["spec"]["serving"] = {"port": 8080}  # without metrics nothing is scraped there
    await look.create(INFERENCE_WORKLOADS, made)

    async def told() -> dict[str, Any]:
        condition = await look.condition("w", "SpecSupported")
        return condition if condition.get("reason") == "NotImplemented" else {}

    condition = await until(told, "NotImplemented")
    assert "spec.serving.port" in condition["message"]
    assert len(await look.told_of("SpecNotSupported", "w")) == 1
    assert operator.running


async def test_a_placement_without_prometheus_says_that_its_load_is_stale(
    look: Look, operator: Operator, models: str
) -> None:
    await look.create(
        INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", replicas=1, profile=GIVEN)
    )

    async def listed() -> list[dict[str, Any]]:
        return list((await look.workload("w")).get("status", {}).get("placements") or ())

    (placement,) = await until(listed, "the placement")
    assert placement["source"] == "Stale"
    assert "dataAgeSeconds" not in placement
    assert (await look.workload("w"))["status"]["latencyModel"] == {"name": "prior", "version": 0}
    assert operator.running
