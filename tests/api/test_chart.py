"""The chart on a real API server: what it installs is valid, has the rights it needs, and no others."""

import argparse
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from tailwise.api.labels import LEASE_NAME, PLACEMENT_GATE, WORKLOAD_LABEL, hardware_config_map_name
from tailwise.cli import agent, operator
from tests.cluster import api as cluster_api
from tests.cluster import binaries
from tests.cluster.api import Api, ApiError
from tests.cluster.controlplane import ControlPlane

CHART = Path(__file__).parents[2] / "helm" / "tailwise"
NAMESPACE = "chart-test"
NODE, OTHER_NODE = "chart-node-a", "chart-node-b"
GATE_API = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"

Manifest = dict[str, Any]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    program = binaries.program("helm")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)


@cache
def rendered(*settings: str, crds: bool = False, api_versions: Sequence[str] = (GATE_API,)) -> list[Manifest]:
    """The chart's objects; the session's cluster has the CRDs already."""
    run = helm(
        "template",
        "tailwise",
        str(CHART),
        f"--namespace={NAMESPACE}",
        f"--set=crds.enabled={str(crds).lower()}",
        *(f"--set={setting}" for setting in settings),
        *(f"--api-versions={version}" for version in api_versions),
    )
    assert run.returncode == 0, run.stderr
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def kinds(documents: Sequence[Manifest]) -> set[str]:
    return {document["kind"] for document in documents}


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Api:
    return cluster_api.connect(control_plane)


@pytest.fixture(scope="module")
def installed(server: Api) -> Iterator[list[Manifest]]:
    """The chart with its defaults, in a namespace of its own; nothing of it outlives this module."""
    documents = rendered()
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for document in documents:
        server.apply(document)
    yield documents
    for document in documents:
        if "namespace" not in document["metadata"]:
            server.request("DELETE", server.path(document))
    server.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


SETTINGS = [
    (),
    ("operator.replicas=2", "operator.podDisruptionBudget.enabled=true", "operator.priorityClassName=high"),
    ("image.digest=sha256:" + "0" * 64, "image.pullSecrets[0].name=registry"),
    (
        "utilisation.preset=Custom",
        "utilisation.cpuQuery=max by (node) (load)",
        "utilisation.frequencyQuery=f",
    ),
    ("models.allowedNetworks={10.0.0.0/8,fd00::/8}", "models.allowFiles=true"),
    ("prometheus.url=", "utilisation.preset=CAdvisor", "operator.extraArgs={--poll-seconds=30}"),
    ('utilisation.selector=job="node"', "prometheus.tokenFile=/token", "operator.logFormat=text"),
    (
        "operator.extraVolumes[0].name=models",
        "operator.extraVolumes[0].hostPath.path=/models",
        "operator.extraVolumeMounts[0].name=models",
        "operator.extraVolumeMounts[0].mountPath=/models",
    ),
    ("agent.enabled=false", "metrics.service.enabled=false", "rbac.aggregate=false"),
    ("operator.leaderElection.enabled=false", "commonLabels.team=ml"),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_the_chart_makes_is_valid_to_the_last_field(
    server: Api, installed: list[Manifest], settings: tuple[str, ...]
) -> None:
    assert installed
    for document in rendered(*settings):
        path = f"{server.path(document)}?fieldManager=test&force=true&fieldValidation=Strict&dryRun=All"
        server.request("PATCH", path, document, "application/apply-patch+yaml")


@pytest.mark.parametrize("settings", SETTINGS)
def test_operator_and_agent_understand_the_arguments_that_the_chart_gives_them(
    settings: tuple[str, ...],
) -> None:
    pods = [
        d["spec"]["template"]["spec"] for d in rendered(*settings) if d["kind"] in ("Deployment", "DaemonSet")
    ]
    assert pods
    for container in (container for pod in pods for container in pod["containers"]):
        parser = argparse.ArgumentParser()
        subparsers = parser.add_subparsers(dest="command")
        operator.add_parser(subparsers)
        agent.add_parser(subparsers)
        assert parser.parse_args(container["args"]).command == container["name"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("operatr.replicas=2", "operatr"),
        ("operator.replicas=-1", "minimum"),
        ("prometheus.url=prometheus:9090", "/prometheus/url"),
        ("utilisation.preset=Guess", "/utilisation/preset"),
        ("utilisation.preset=Custom", "/utilisation/cpuQuery"),
        ("models.allowedNetworks={anywhere}", "/models/allowedNetworks"),
        ("models.allowedNetworks={10.0.0.0/33}", "/models/allowedNetworks"),
        ("models.allowedNetworks={300.0.0.0/8}", "/models/allowedNetworks"),
        ("models.allowedNetworks={fd00::/129}", "/models/allowedNetworks"),
        ("agent.enabled=perhaps", "/agent/enabled"),
        ("image.repository=", "/image/repository"),
        ("placementGate.policy=Maybe", "/placementGate/policy"),
    ],
)
def test_values_that_make_no_sense_are_refused(setting: str, words: str) -> None:
    run = helm("template", "tailwise", str(CHART), f"--set={setting}")
    assert run.returncode != 0
    assert words in run.stderr


def test_crds_come_with_the_chart_and_stay_when_it_goes() -> None:
    crds = [d for d in rendered(crds=True) if d["kind"] == "CustomResourceDefinition"]
    assert len(crds) == 2
    assert all(d["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for d in crds)
    given_up = [d for d in rendered("crds.keep=false", crds=True) if d["kind"] == "CustomResourceDefinition"]
    assert not any("annotations" in d["metadata"] for d in given_up)


def test_the_gate_is_a_policy_where_the_cluster_serves_that_kind() -> None:
    assert "MutatingAdmissionPolicy" in kinds(rendered())
    assert "MutatingAdmissionPolicy" not in kinds(rendered(api_versions=()))
    assert "MutatingAdmissionPolicy" not in kinds(rendered("placementGate.policy=Disabled"))
    beta = rendered(api_versions=("admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy",))
    (policy,) = (d for d in beta if d["kind"] == "MutatingAdmissionPolicy")
    assert policy["apiVersion"] == "admissionregistration.k8s.io/v1beta1"


def pod(name: str, labels: dict[str, str], **spec: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"containers": [{"name": "server", "image": "serving"}], **spec},
    }


@pytest.mark.parametrize(
    ("name", "labels", "spec", "gates"),
    [
        ("labelled", {WORKLOAD_LABEL: "w"}, {}, [PLACEMENT_GATE]),
        ("not-labelled", {}, {}, []),
        ("has-a-node", {WORKLOAD_LABEL: "w"}, {"nodeName": NODE}, []),
        ("bound-by-tailwise", {WORKLOAD_LABEL: "w"}, {"schedulerName": "tailwise"}, []),
        ("gated", {WORKLOAD_LABEL: "w"}, {"schedulingGates": [{"name": PLACEMENT_GATE}]}, [PLACEMENT_GATE]),
        (
            "gated-by-others",
            {WORKLOAD_LABEL: "w"},
            {"schedulingGates": [{"name": "example.com/quota"}]},
            ["example.com/quota", PLACEMENT_GATE],
        ),
    ],
)
@pytest.mark.usefixtures("installed")
def test_pods_that_name_a_workload_are_gated(
    server: Api, name: str, labels: dict[str, str], spec: dict[str, Any], gates: list[str]
) -> None:
    # A new policy takes the API server a moment: the first pods are asked for until it acts.
    wanted = PLACEMENT_GATE in gates
    for _ in range(100):
        made = server.request(
            "POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", pod(name, labels, **spec)
        )
        found = [gate["name"] for gate in made["spec"].get("schedulingGates", ())]
        if not wanted or PLACEMENT_GATE in found:
            break
        time.sleep(0.1)
    assert sorted(found) == sorted(gates)


def agent_token(server: Api, node: str | None) -> str:
    """A token of the agent's service account: bound to a pod on ``node``, or to no pod at all."""
    body: Manifest = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    if node is not None:
        made = server.apply(pod(f"agent-{node}", {}, nodeName=node, serviceAccountName="tailwise-agent"))
        reference = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": f"agent-{node}",
            "uid": made["metadata"]["uid"],
        }
        body["spec"] = {"boundObjectRef": reference}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/tailwise-agent/token"
    return str(server.request("POST", path, body)["status"]["token"])


def write_hardware(plane: ControlPlane, token: str, name: str) -> tuple[int, str]:
    """Status and message of an agent's write."""
    pool = urllib3.PoolManager(ca_certs=str(plane.authority.certificate), retries=False, timeout=30.0)
    answer = pool.request(
        "PATCH",
        f"{plane.server}/api/v1/namespaces/{NAMESPACE}/configmaps/{name}?fieldManager=tailwise-agent&force=true",
        json={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}},
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/apply-patch+yaml"},
    )
    return answer.status, str(answer.json().get("message", ""))


@pytest.mark.usefixtures("installed")
def test_an_agent_writes_its_own_nodes_config_map_and_no_other(
    control_plane: ControlPlane, server: Api
) -> None:
    token = agent_token(server, NODE)
    # As above: the policy acts a moment after it was made.
    for _ in range(100):
        status, message = write_hardware(control_plane, token, hardware_config_map_name(OTHER_NODE))
        if status == 403:
            break
        time.sleep(0.1)
    assert (status, f"only the ConfigMap of its own node, {hardware_config_map_name(NODE)}" in message) == (
        403,
        True,
    )
    assert write_hardware(control_plane, token, hardware_config_map_name(NODE))[0] in (200, 201)
    assert write_hardware(control_plane, token, "settings")[0] == 403
    status, message = write_hardware(control_plane, agent_token(server, None), hardware_config_map_name(NODE))
    assert (status, "token names no node" in message) == (403, True)


def may(server: Api, account: str, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
    """Whether a service account of the chart may do something; ``resource`` is plural.group/subresource."""
    plural, _, subresource = resource.partition("/")
    plural, _, group = plural.partition(".")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{NAMESPACE}:{account}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{NAMESPACE}",
                "system:authenticated",
            ],
            "resourceAttributes": {
                "verb": verb,
                "group": group,
                "resource": plural,
                "subresource": subresource,
                "namespace": namespace,
                "name": name,
            },
        },
    }
    answer = server.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize(
    ("account", "verb", "resource", "namespace", "name", "allowed"),
    [
        ("operator", "patch", "pods", "any", "p", True),
        ("operator", "watch", "nodes", "", "", True),
        ("operator", "patch", "inferenceworkloads.tailwise.dev/status", "any", "w", True),
        ("operator", "create", "deployments.apps", "any", "", True),
        ("operator", "create", "events.events.k8s.io", "any", "", True),
        ("operator", "update", "leases.coordination.k8s.io", NAMESPACE, LEASE_NAME, True),
        ("operator", "list", "configmaps", NAMESPACE, "", True),
        ("operator", "get", "events.events.k8s.io", "any", "e", True),
        ("operator", "get", "secrets", NAMESPACE, "s", False),
        ("operator", "list", "configmaps", "any", "", False),
        ("operator", "delete", "pods", "any", "p", True),
        ("operator", "create", "pods", "any", "p", False),
        ("operator", "patch", "inferenceworkloads.tailwise.dev", "any", "w", False),
        ("operator", "delete", "deployments.apps", "any", "d", False),
        ("operator", "update", "leases.coordination.k8s.io", NAMESPACE, "another", False),
        ("operator", "get", "configmaps", NAMESPACE, "tailwise-model-m-v1", True),
        ("operator", "patch", "configmaps", NAMESPACE, "tailwise-training", True),
        ("operator", "patch", "configmaps", NAMESPACE, "tailwise-model-m-v1", False),
        ("operator", "watch", "jobs.batch", NAMESPACE, "", True),
        ("operator", "watch", "jobs.batch", "any", "", False),
        ("training", "create", "configmaps", NAMESPACE, "", True),
        ("training", "patch", "configmaps", NAMESPACE, "tailwise-training", True),
        ("training", "patch", "configmaps", NAMESPACE, "tailwise-hardware-n", False),
        ("training", "delete", "configmaps", NAMESPACE, "tailwise-model-m-v1", False),
        ("training", "create", "configmaps", "any", "", False),
        ("training", "list", "pods", NAMESPACE, "", False),
        ("agent", "patch", "configmaps", NAMESPACE, "c", True),
        ("agent", "patch", "configmaps", "any", "c", False),
        ("agent", "get", "configmaps", NAMESPACE, "c", False),
        ("agent", "list", "pods", "any", "", False),
        ("agent", "get", "secrets", NAMESPACE, "s", False),
    ],
)
@pytest.mark.usefixtures("installed")
def test_operator_training_and_agent_have_the_rights_they_use_and_no_others(
    server: Api, account: str, verb: str, resource: str, namespace: str, name: str, allowed: bool
) -> None:
    assert may(server, f"tailwise-{account}", verb, resource, namespace, name) is allowed


def test_the_operators_pod_passes_the_restricted_standard(server: Api, installed: list[Manifest]) -> None:
    (deployment,) = (d for d in installed if d["kind"] == "Deployment")
    restricted = f"{NAMESPACE}-restricted"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    server.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": restricted, "labels": labels}}
    )
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    server.apply(account | {"metadata": {"name": "tailwise-operator", "namespace": restricted}})
    template = deployment["spec"]["template"]
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": restricted, "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }
    try:
        server.create(manifest)
        manifest["metadata"]["name"] = "root"
        manifest["spec"] = template["spec"] | {"securityContext": {"runAsUser": 0}}
        with pytest.raises(ApiError, match="PodSecurity"):
            server.create(manifest)
    finally:
        server.request("DELETE", f"/api/v1/namespaces/{restricted}")
