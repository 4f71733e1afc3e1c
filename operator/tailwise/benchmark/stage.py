"""The cluster as the benchmark uses it: what it finds there, makes there and takes away again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from tailwise.api.hardware import HARDWARE_KEY, HARDWARE_LABEL, NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.benchmark import manifests
from tailwise.benchmark.answers import Measured, parse
from tailwise.benchmark.choosing import Room, quantity
from tailwise.benchmark.kubectl import Kubectl, KubectlError, wait_for
from tailwise.benchmark.manifests import KIND_LABEL, NAMESPACE, ROLE_LABEL, SLOT_LABEL
from tailwise.benchmark.records import RunError
from tailwise.benchmark.scenario import Policy, PolicyKind, Scenario

_START_SECONDS = 1200.0
_GONE_SECONDS = 300.0
_PROFILE_SECONDS = 300.0
_STATUS_SECONDS = 30.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """One cluster and one scenario on it. ``operator_namespace``: where agents write hardware."""

    kubectl: Kubectl
    scenario: Scenario
    report: Report
    operator_namespace: str = "tailwise-system"

    # ---- what is found

    def serving_nodes(self) -> dict[str, Room]:
        """Nodes that serve, and what they have left for pods.

        Raises:
            RunError: no node has a role that is needed.
        """
        nodes = self.kubectl.get("nodes")["items"]
        roles = {role: [n for n in nodes if _role(n) == role] for role in ("serving", "client", "infra")}
        missing = [role for role, found in roles.items() if not found]
        if missing:
            raise RunError(
                f"no node has the label {ROLE_LABEL}={missing[0]}: the benchmark serves on nodes labelled "
                "serving, asks from nodes labelled client, and reads models from nodes labelled infra"
            )
        requested: dict[str, list[Mapping[str, Any]]] = {}
        for pod in self.kubectl.get("pods", "--all-namespaces")["items"]:
            if pod["status"].get("phase") not in ("Succeeded", "Failed"):
                requested.setdefault(pod["spec"].get("nodeName", ""), []).append(pod["spec"])
        return {
            node["metadata"]["name"]: _room(node, requested.get(node["metadata"]["name"], ()))
            for node in roles["serving"]
        }

    def hardware(self) -> dict[str, NodeHardware]:
        """What agents have measured, by node."""
        selector = f"{HARDWARE_LABEL}=true"
        found = {}
        for item in self.kubectl.get("configmaps", "-n", self.operator_namespace, "-l", selector)["items"]:
            try:
                each = NodeHardware.model_validate(yaml.safe_load(item["data"][HARDWARE_KEY]))
            except (KeyError, ValidationError, yaml.YAMLError) as error:
                raise RunError(f"ConfigMap {item['metadata']['name']}: no hardware: {error}") from error
            found[each.node] = each
        return found

    def profiles(self) -> dict[str, ModelProfile]:
        """The models as the operator has read them, by workload."""
        items = self.kubectl.get("inferenceworkloads", "-n", NAMESPACE)["items"]
        return {
            item["metadata"]["name"]: ModelProfile.model_validate(item["status"]["profile"])
            for item in items
            if item.get("status", {}).get("profile")
        }

    def kubernetes_version(self) -> str:
        """Version of the API server."""
        return str(yaml.safe_load(self.kubectl.run("version", "-o", "yaml"))["serverVersion"]["gitVersion"])

    def check_namespace(self) -> None:
        """See that the namespace that will go at the end is nobody else's.

        Raises:
            RunError: it is there, and not of the benchmark's making.
        """
        text = self.kubectl.run("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "yaml")
        found = yaml.safe_load(text) or {}
        if found and KIND_LABEL not in found["metadata"].get("labels", {}):
            raise RunError(
                f"namespace {NAMESPACE} is there and not of the benchmark's making, and would be removed at "
                "the end: delete it yourself"
            )

    # ---- what is made

    def set_up(self) -> None:
        """Namespace, store of models, workloads with their profiles, and the neighbours."""
        self.kubectl.apply([manifests.namespace()])
        self.clear()
        self.kubectl.apply([manifests.model_store(self.scenario)])
        self._wait("model store", self._store_missing, _GONE_SECONDS)
        self.apply_workloads(None)
        self._wait("models' profiles", self._profiles_missing, _PROFILE_SECONDS)
        beside = [
            pod for each in self.scenario.neighbours for pod in manifests.neighbours(self.scenario, each)
        ]
        if beside:
            self.kubectl.apply(beside)
            self._wait("neighbours", lambda: self._not_ready("neighbour", len(beside)), _GONE_SECONDS)

    def apply_workloads(self, policy: Policy | None) -> None:
        """The InferenceWorkloads, placed as the policy says."""
        store = f"http://{self._store_address()}:{manifests.STORE_PORT}"
        self.kubectl.apply(
            [
                manifests.inference_workload(self.scenario, each, policy, store)
                for each in self.scenario.workloads
            ]
        )

    def create(self, pods: Sequence[Mapping[str, Any]]) -> None:
        """Make pods' ReplicaSets."""
        self.kubectl.apply(pods)

    def bound(self) -> dict[str, str]:
        """Node of each slot that has one."""
        label = SLOT_LABEL.replace(".", r"\.")
        columns = f"custom-columns=SLOT:.metadata.labels.{label},NODE:.spec.nodeName"
        text = self.kubectl.run(
            "get", "pods", "-n", NAMESPACE, "-l", f"{KIND_LABEL}=pod", "--no-headers", "-o", columns
        )
        pairs = (line.split() for line in text.splitlines())
        return {slot: node for slot, node in pairs if node != "<none>"}

    def pods(self) -> list[Mapping[str, Any]]:
        """The pods that serve, whole."""
        items: list[Mapping[str, Any]] = self.kubectl.get("pods", "-n", NAMESPACE, "-l", f"{KIND_LABEL}=pod")[
            "items"
        ]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def wait_ready(self, pods: int) -> None:
        """Until each pod serves."""
        self._wait("pods", lambda: self._not_ready("pod", pods), _START_SECONDS)

    def predictions(self, pods: Set[str]) -> dict[str, Mapping[str, Any]]:
        """Status' placements by pod, once all of these are in it (or status will not tell of them)."""
        deadline = time.monotonic() + _STATUS_SECONDS
        while not (pods <= (found := self._placements()).keys()) and time.monotonic() < deadline:
            time.sleep(1.0)
        return found

    def _placements(self) -> dict[str, Mapping[str, Any]]:
        return {
            placement["pod"]: placement
            for item in self.kubectl.get("inferenceworkloads", "-n", NAMESPACE)["items"]
            for placement in item.get("status", {}).get("placements", ())
        }

    def ask(self, targets: Sequence[Mapping[str, str]]) -> dict[str, Measured]:
        """LoadGen at all targets at once; what each answered."""
        load = self.scenario.load
        made = manifests.clients(self.scenario, load, targets)
        self.kubectl.delete(made)
        self.kubectl.apply(made)
        try:
            limit = 600 + 60.0 * load.queries
            self._wait(f"LoadGen at {len(targets)} pods", self._clients_missing, limit, 5.0)
            output = self.kubectl.run("logs", "job/clients", "-n", NAMESPACE)
        finally:
            self.kubectl.delete(made)
        return parse(output)

    # ---- what is taken away

    def clear(self) -> None:
        """Remove the pods that serve and those that ask; neighbours and workloads stay."""
        for kind, label in (("jobs", "clients"), ("replicasets", "pod")):
            self.kubectl.run(
                "delete", kind, "-n", NAMESPACE, "-l", f"{KIND_LABEL}={label}", timeout_seconds=_GONE_SECONDS
            )
        self._wait("the pods before", self._left, _GONE_SECONDS, 0.5)

    def tear_down(self) -> None:
        """Remove all that the benchmark has made."""
        self.kubectl.run(
            "delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_seconds=_GONE_SECONDS
        )

    # ---- parts

    def _wait(
        self, what: str, missing: Callable[[], str | None], seconds: float, interval: float = 1.0
    ) -> None:
        try:
            wait_for(what, missing, timeout_seconds=seconds, report=self.report, interval_seconds=interval)
        except TimeoutError as error:
            raise RunError(f"{error}; kubectl get pods -n {NAMESPACE} says more") from error

    def _items(self, kind: str) -> list[Mapping[str, Any]]:
        items: list[Mapping[str, Any]] = self.kubectl.get(
            "pods", "-n", NAMESPACE, "-l", f"{KIND_LABEL}={kind}"
        )["items"]
        return items

    def _not_ready(self, kind: str, wanted: int) -> str | None:
        items = self._items(kind)
        failed = next((found for pod in items if (found := _failure(pod)) is not None), None)
        if failed is not None:
            raise RunError(failed)
        ready = sum(is_ready(pod) for pod in items)
        return None if ready == wanted == len(items) else f"{ready} of {wanted} ready"

    def _left(self) -> str | None:
        left = len(self._items("pod")) + len(self._items("clients"))
        return f"{left} are ending" if left else None

    def _store_missing(self) -> str | None:
        return self._not_ready("store", 1)

    def _store_address(self) -> str:
        address = str(self._items("store")[0]["status"]["podIP"])
        return f"[{address}]" if ":" in address else address

    def _profiles_missing(self) -> str | None:
        wanted = len(self.scenario.workloads)
        found = self.profiles()
        if len(found) == wanted:
            return None
        items = self.kubectl.get("inferenceworkloads", "-n", NAMESPACE)["items"]
        said = [
            condition["message"]
            for item in items
            for condition in item.get("status", {}).get("conditions", ())
            if condition["type"] == "ModelProfiled" and condition["status"] == "False"
        ]
        return f"{len(found)} of {wanted}{f': {said[0]}' if said else ''}"

    def _clients_missing(self) -> str | None:
        job = self.kubectl.get("job", "clients", "-n", NAMESPACE)
        status = job.get("status", {})
        if status.get("succeeded") or status.get("failed"):
            return None
        try:
            last = self.kubectl.run("logs", "job/clients", "-n", NAMESPACE, "--tail=1")
        except KubectlError:
            return "starting"
        return last.strip() if last.startswith(("ready:", "result:")) else "under way"


def looks_at_load(policy: Policy) -> bool:
    """Whether the policy decides by utilisation, so that what ended must be out of it."""
    return policy.kind in (PolicyKind.TAILWISE, PolicyKind.SCHEDULER, PolicyKind.PAPER)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod says that it serves."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def target(pod: Mapping[str, Any], workload: str) -> dict[str, str]:
    """The pod as the clients' plan names it."""
    address = pod["status"]["podIP"]
    host = f"[{address}]" if ":" in address else address
    return {
        "pod": pod["metadata"]["name"],
        "url": f"http://{host}:{manifests.PORT}",
        "model": workload,
    }


def sleep_until(moment: float, report: Report) -> None:
    """Wait until this time of the monotonic clock, and say so."""
    left = moment - time.monotonic()
    if left > 2:
        report(f"{left:.0f} s until utilisation has forgotten what ended")
    time.sleep(max(0.0, left))


_STUCK = ("ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")


def _failure(pod: Mapping[str, Any]) -> str | None:
    """Why a pod will never be ready, where that is sure."""
    for status in pod.get("status", {}).get("containerStatuses", ()):
        waiting = status.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _STUCK or status.get("restartCount", 0) >= 3:
            why = waiting.get("message") or waiting.get("reason") or "it ends again and again"
            return f"pod {pod['metadata']['name']}, image {status.get('image')}: {why}"
    return None


def _role(node: Mapping[str, Any]) -> str | None:
    found = node["metadata"].get("labels", {}).get(ROLE_LABEL)
    return None if found is None else str(found)


def _room(node: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Room:
    offered = node["status"]["allocatable"]
    wanted = [
        container.get("resources", {}).get("requests", {}) for pod in pods for container in pod["containers"]
    ]
    return Room(
        node["metadata"]["name"],
        quantity(offered["cpu"]) - sum(quantity(each.get("cpu", "0")) for each in wanted),
        quantity(offered["memory"]) - sum(quantity(each.get("memory", "0")) for each in wanted),
    )
