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
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings

from tailwise.domain.filtering import filter_nodes
from tailwise.domain.parse import node_from_object, pod_from_object
from tailwise.domain.state import ClusterState
from tailwise.domain.verdicts import Filter, Refusal
from tests.cluster import api as cluster_api
from tests.cluster.api import Api, ApiError
from tests.cluster.controlplane import ControlPlane
from tests.operator.scheduling_cases import FOCUSES, NODES, Case, cases, forcing

# Cases of each kind, of five nodes each: the same each time, or new ones where their number is asked for.
ASKED = os.environ.get("TAILWISE_FILTER_EXAMPLES")
EXAMPLES = int(ASKED or "25")
NAMESPACE = "filtering"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_STATUS = "application/merge-patch+json"
# Nobody sends heartbeats for these nodes: the taints that come of it shall not decide.
_ANYHOW = [
    {"key": f"node.kubernetes.io/{what}", "operator": "Exists"} for what in ("not-ready", "unreachable")
]
# Refusals that are Tailwise's own, and nodeName, which passes kube-scheduler by.
_OURS = (
    Filter.NODE_NAME,
    Filter.SET_ASIDE,
    Filter.NO_HARDWARE,
    Filter.NO_PREDICTION,
    Filter.SLO,
    Filter.NEIGHBOURS,
)
_LONGEST_SECONDS = 20.0
_SECOND_LOOKS = 3


@dataclass(slots=True)
class Stage:
    """Nodes on the real control plane that take a new shape with each case."""

    api: Api
    made: list[str] = field(default_factory=list)
    count: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def shape(self, case: Case) -> None:
        """Give the nodes the case's shapes and residents, and take away what was there."""
        self.clear()
        for name, shape in zip(NODES, case.nodes, strict=True):
            path = f"/api/v1/nodes/{name}"
            node = self.api.request("GET", path)
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
        created = self.create(name, labels, asks)
        try:
            words = self._answer(name)
        finally:
            self.delete(name)
            self.made.remove(name)
        return words, self._verdict(created, node)

    def _answer(self, name: str) -> str:
        until = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < until:
            pod = self.api.request("GET", f"{_PODS}/{name}")
            if pod["spec"].get("nodeName"):
                return ""
            for condition in pod["status"].get("conditions", ()):
                if condition["type"] == "PodScheduled" and condition["status"] == "False":
                    message: str = condition["message"]
                    return message
            time.sleep(0.005)
        raise AssertionError(f"kube-scheduler said nothing of pod {name} in {_LONGEST_SECONDS:.0f} s")

    def _verdict(self, created: dict[str, Any], node: str) -> Refusal | None:
        state = ClusterState()
        for each in self.api.request("GET", "/api/v1/nodes")["items"]:
            state.put_node(node_from_object(each))
        for each in self.api.request("GET", "/api/v1/pods")["items"]:
            state.put_pod(pod_from_object(each))
        verdicts = filter_nodes(pod_from_object(created), state.snapshot())
        return verdicts.of(verdicts.names.index(node))


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
    @settings(
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
    @given(case=cases(focus))
    def agree(case: Case) -> None:
        _agrees(stage, case)

    agree()


def _agrees(stage: Stage, case: Case) -> None:
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
            if (words == "") == (refusal is None):
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
