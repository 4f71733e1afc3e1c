"""Filtering agrees with kube-scheduler: random clusters, and for each node whether it binds the pod there.

A pod is sent to one node after another by a resource that only that node has, so that nothing else about it
changes (an affinity to the node would change what topology spread counts). Nodes have no kubelets; what is
bound stays Pending, which the filters do not mind.
"""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, reject, settings

from tailwise.domain.filtering import filter_nodes
from tailwise.domain.parse import node_from_object, pod_from_object
from tailwise.domain.parse_storage import claim_from_object, storage_class_from_object, volume_from_object
from tailwise.domain.state import ClusterState
from tailwise.domain.verdicts import Filter, Refusal
from tests.cluster import api as cluster_api
from tests.cluster.api import Api, ApiError
from tests.cluster.controlplane import ControlPlane
from tests.operator.scheduling_cases import FOCUSES, NODES, Case, cases, forcing
from tests.operator.storage_cases import (
    ELSEWHERE,
    IN_USE,
    MISSING,
    StorageCase,
    pod_volumes,
    storage_cases,
)

# Cases of each kind, of five nodes each: the same each time, or new ones where their number is asked for.
ASKED = os.environ.get("TAILWISE_FILTER_EXAMPLES")
EXAMPLES = int(ASKED or "25")
NAMESPACE = "filtering"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_CLAIMS = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
_STATUS = "application/merge-patch+json"
_HELD = "example.com/held"
# Nobody sends heartbeats for these nodes: the taints that come of it shall not decide.
_ANYHOW = [
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists"} for what in ("not-ready", "unreachable")
]
# Refusals that are Tailwise's own; nodeName, which passes kube-scheduler by; and what controllers of claims
# have mended before one can ask.
_OURS = (
    Filter.NODE_NAME,
    Filter.STORAGE_UNREAD,
    Filter.CLAIMS_TO_BIND,
    Filter.EPHEMERAL_CLAIM,
    Filter.CLAIM_OF_ANOTHER,
    Filter.VOLUME,
    Filter.VOLUME_GONE,
    Filter.SET_ASIDE,
    Filter.NO_HARDWARE,
    Filter.NO_PREDICTION,
    Filter.SLO,
    Filter.NEIGHBOURS,
)
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=ASKED is None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.large_base_example,
        HealthCheck.data_too_large,
    ],
    print_blob=True,
)
_LONGEST_SECONDS = 20.0
_SECOND_LOOKS = 6


@dataclass(slots=True)
class Stage:
    """Nodes on the real control plane that take a new shape with each case."""

    api: Api
    made: list[str] = field(default_factory=list)
    storage: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def shape(self, case: Case) -> None:
        """Give the nodes the case's shapes and residents; what was there before has been taken away."""
        for name, shape in zip(NODES, case.nodes, strict=True):
            path = f"/api/v1/nodes/{name}"
            node = self.api.request("GET", path)
            # Whatever its controllers did to it meanwhile: the case decides.
            del node["metadata"]["resourceVersion"]
            node["metadata"]["labels"] = {"kubernetes.io/hostname": name, **shape["labels"]}
            node["spec"] = {"taints": shape["taints"], "unschedulable": shape["unschedulable"]}
            self.api.request("PUT", path, node)
            offered = {**shape["allocatable"], forcing(name): "1"}
            status = {"status": {"capacity": offered, "allocatable": offered}}
            self.api.request("PATCH", f"{path}/status", status, _STATUS)
        for number, (node_name, resident) in enumerate(case.residents):
            spec = {**resident["spec"], "nodeName": node_name}
            self.create(f"resident-{self.count}-{number}", resident["labels"], spec)
        self.count += 1

    def create(self, name: str, labels: Any, spec: Any) -> dict[str, Any]:
        tolerations = [*_ANYHOW, *spec.get("tolerations", ())]
        manifest = {
            "metadata": {"name": name, "labels": labels},
            "spec": {"terminationGracePeriodSeconds": 0, **spec, "tolerations": tolerations},
        }
        created = self.api.request("POST", _PODS, manifest)
        self.made.append(name)
        return created

    def clear(self) -> None:
        """Delete all pods of the case, at once as no kubelet would."""
        for name in self.made:
            self.delete(name)
        self.made.clear()
        for manifest in reversed(self.storage):
            with contextlib.suppress(ApiError):
                self.api.request("DELETE", self.api.path(manifest))
        self.storage.clear()

    def store(self, case: StorageCase) -> Case:
        """Create the storage of a case, and return the case with the names that it has there."""
        number = self.count
        self.clear()
        for manifest in case.manifests(number, NAMESPACE):
            self.api.create(manifest)
            self.storage.append(manifest)
        for manifest in self.storage:
            if "volumeName" in manifest.get("spec", {}):
                self._await(self.api.path(manifest), lambda claim: claim["status"].get("phase") == "Bound")
        residents = [(node, _with_volumes(resident, number)) for node, resident in case.case.residents]
        return replace(case.case, residents=tuple(residents), pod=_with_volumes(case.case.pod, number))

    def _await(self, path: str, is_so: Callable[[dict[str, Any]], bool]) -> None:
        """Wait for what a controller makes of a claim."""
        until = time.monotonic() + _LONGEST_SECONDS
        found: dict[str, Any] = {}
        while True:
            with contextlib.suppress(ApiError):
                found = self.api.request("GET", path)
            if found and is_so(found):
                return
            assert time.monotonic() < until, f"{path} stays as it is: {found}"
            time.sleep(0.02)

    def delete(self, name: str) -> None:
        with contextlib.suppress(ApiError):
            self.api.request("DELETE", f"{_PODS}/{name}?gracePeriodSeconds=0")

    def said_of(self, labels: Any, spec: Any, node: str) -> tuple[str, Refusal | None]:
        """What kube-scheduler says of the pod on this node ("" where it binds it), and what we do."""
        name = f"asks-{time.monotonic_ns()}"
        main, *others = spec["containers"]
        resources = main["resources"]
        forced = {
            "requests": {**resources["requests"], forcing(node): "1"},
            "limits": {**resources.get("limits", {}), forcing(node): "1"},
        }
        asks = {**spec, "containers": [{**main, "resources": forced}, *others]}
        own = [volume["name"] for volume in spec.get("volumes", ()) if "ephemeral" in volume]
        # Claims of its own are made once the pod is there: kube-scheduler shall see both.
        created = self.create(name, labels, asks | ({"schedulingGates": [{"name": _HELD}]} if own else {}))
        try:
            for volume in own:
                self._await(f"{_CLAIMS}/{name}-{volume}", lambda _: True)
                self.api.request("PATCH", f"{_PODS}/{name}", {"spec": {"schedulingGates": None}}, _STATUS)
            return self._answer(name), self._verdict(created, node)
        finally:
            self.delete(name)
            self.made.remove(name)

    def _answer(self, name: str) -> str:
        until = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < until:
            pod = self.api.request("GET", f"{_PODS}/{name}")
            if pod["spec"].get("nodeName"):
                return ""
            for condition in pod["status"].get("conditions", ()):
                if condition["type"] != "PodScheduled" or condition["reason"] == "SchedulingGated":
                    continue
                if condition["status"] == "False":
                    message: str = condition["message"]
                    return message
            time.sleep(0.005)
        raise AssertionError(f"kube-scheduler said nothing of pod {name} in {_LONGEST_SECONDS:.0f} s")

    def _verdict(self, created: dict[str, Any], node: str) -> Refusal | None:
        state = ClusterState()
        for each in self.api.request("GET", "/api/v1/nodes")["items"]:
            state.put_node(node_from_object(each))
        for each in self.api.request("GET", "/api/v1/pods")["items"]:
            if each["metadata"]["uid"] != created["metadata"]["uid"]:
                state.put_pod(pod_from_object(each))
        self._read_storage(state)
        verdicts = filter_nodes(pod_from_object(created), state.snapshot())
        return verdicts.of(verdicts.names.index(node))

    def _read_storage(self, state: ClusterState) -> None:
        if self.storage:
            for each in self.api.request("GET", "/api/v1/persistentvolumeclaims")["items"]:
                claim = claim_from_object(each)
                state.storage.put_claim(claim.key, claim)
            for each in self.api.request("GET", "/api/v1/persistentvolumes")["items"]:
                state.storage.put_volume(each["metadata"]["name"], volume_from_object(each))
            for each in self.api.request("GET", "/apis/storage.k8s.io/v1/storageclasses")["items"]:
                state.storage.put_class(each["metadata"]["name"], storage_class_from_object(each))
        state.storage.complete = True


@pytest.fixture(scope="module")
def stage(control_plane: ControlPlane) -> Iterator[Stage]:
    api = cluster_api.connect(control_plane)
    for namespace in (NAMESPACE, "elsewhere"):
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    api.apply(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "heavy"},
            "handler": "heavy",
            "overhead": {"podFixed": {"cpu": "400m", "memory": "200Mi"}},
        }
    )
    for name in NODES:
        api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    _await_service_account(api)
    made = Stage(api)
    yield made
    made.clear()
    for name in NODES:
        api.request("DELETE", f"/api/v1/nodes/{name}")
    for namespace in (NAMESPACE, "elsewhere"):
        api.request("DELETE", f"/api/v1/namespaces/{namespace}")


def _with_volumes(pod: dict[str, Any], number: int) -> dict[str, Any]:
    """A pod of a case, with its claims as volumes of the names that they have on the API server."""
    spec = dict(pod["spec"])
    claims, ephemeral = spec.pop("claims"), spec.pop("ephemeral", None)
    return {**pod, "spec": {**spec, "volumes": pod_volumes(claims, number, ephemeral)}}


def _await_service_account(api: Api) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            api.request("GET", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default")
        except ApiError:
            assert time.monotonic() < until, "no default service account"
            time.sleep(0.1)
        else:
            return


@pytest.mark.parametrize("focus", FOCUSES)
async def test_a_node_fits_exactly_where_kube_scheduler_would_bind(stage: Stage, focus: str) -> None:
    # In a thread: the heartbeats of other tests' nodes come from the event loop.
    await asyncio.to_thread(_agree, stage, focus)


def _agree(stage: Stage, focus: str) -> None:
    @SETTINGS
    @given(case=cases(focus))
    def agree(case: Case) -> None:
        stage.clear()
        _agrees(stage, case)

    agree()


async def test_claims_and_volumes_keep_a_pod_off_a_node_exactly_where_kube_scheduler_says_so(
    stage: Stage,
) -> None:
    await asyncio.to_thread(_agree_on_storage, stage)


def _agree_on_storage(stage: Stage) -> None:
    @SETTINGS
    @given(case=storage_cases())
    @example(case=MISSING)
    @example(case=ELSEWHERE)
    @example(case=IN_USE)
    def agree(case: StorageCase) -> None:
        _agrees(stage, stage.store(case), in_words=True)

    agree()


def _agrees(stage: Stage, case: Case, *, in_words: bool = False) -> None:
    try:
        stage.shape(case)
    except ApiError as error:
        raise AssertionError(f"the case is not valid: {error}") from None
    for node in NODES:
        for look in range(_SECOND_LOOKS):
            try:
                words, refusal = stage.said_of(case.pod["labels"], case.pod["spec"], node)
            except ApiError as error:
                # A pod that asks for more in its containers than as a whole is none.
                assert error.status == 422, error
                reject()
            if in_words and refusal is not None and refusal.words in words:
                stage.seen[refusal.by.name] += 1
                break
            if not in_words and (words == "") == (refusal is None):
                stage.seen[refusal.by.name if refusal else "FITS"] += 1
                break
            # Its caches follow by several streams: what differs shall differ also a moment later.
            time.sleep(0.2 * (look + 1))
        else:
            ours = refusal.words if refusal else "fits"
            raise AssertionError(
                f"{node}: kube-scheduler says {words or 'bound'!r}, the filters say {ours!r}"
            )


def test_no_filter_was_left_without_a_say(stage: Stage) -> None:
    theirs = [each for each in Filter if each not in _OURS]
    missing = {each.name for each in theirs} - stage.seen.keys()
    assert not missing, f"the cases above never came to {missing}; they came to {dict(stage.seen)}"
    assert stage.seen["FITS"] > 10, dict(stage.seen)
