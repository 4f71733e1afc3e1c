"""``tailwise what-if`` asks a real cluster with its user's rights, and changes nothing there."""

import asyncio
import contextlib
import io
from pathlib import Path

import yaml

from tailwise.cli.main import main
from tailwise.cluster.client import INFERENCE_WORKLOADS, NODES, Resource
from tests.cluster.controlplane import ControlPlane
from tests.operator.asking import ask, told
from tests.operator.conftest import FAST, SLOW
from tests.operator.process import Operator
from tests.operator.stage import Look, pod_spec, until, workload

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
PROFILE = {"flops": 2_000_000_000, "parameterBytes": 100_000_000}


async def test_the_next_pod_is_asked_for_as_things_are_and_as_they_would_be(
    control_plane: ControlPlane, look: Look, operator: Operator
) -> None:
    spec = pod_spec(cpu="500m", limit="1")
    # Figures given by hand: no model is read.
    made = workload(look.namespace, "w", "https://a.example/m.onnx", replicas=1, spec=spec, profile=PROFILE)
    await look.create(INFERENCE_WORKLOADS, made)
    await until(lambda: look.bound_pods(1), "a bound pod", 240)
    asked = ("what-if", "w", "-n", look.namespace)
    dream = ("--add-node", "name=dream,cores=16,gflops=400")
    answer = await told(control_plane, *asked, *dream, "--slo-milliseconds", "50000")
    today, then = answer["today"], answer["then"]
    assert today["winner"] == FAST
    assert then["winner"] == "dream"
    assert [each["field"] for each in answer["changes"]] == ["slo.latencyMilliseconds", "node"]
    assert {each["node"] for each in today["candidates"]} >= {FAST, SLOW}
    explained = await told(control_plane, "explain", "w", "-n", look.namespace)
    assert explained["candidates"] == today["candidates"]
    # The pod that was placed counts among those whom the next one would slow down.
    placed = {each["node"]: each for each in explained["candidates"]}[FAST]
    assert placed["addedToResidentsMilliseconds"] is not None
    nodes = (await look.client.request("GET", NODES.path()))["items"]
    assert "dream" not in {each["metadata"]["name"] for each in nodes}
    code, out, err = await ask(control_plane, *asked, "--slo-milliseconds", "1")
    assert code == 3, err
    assert "slo.latencyMilliseconds 1 instead of 60000" in out
    assert "wins -> SLO: bound" in out
    assert operator.running


async def test_who_may_not_read_the_cluster_is_told_what_is_missing(
    control_plane: ControlPlane, look: Look, tmp_path: Path
) -> None:
    path = SERVICE_ACCOUNTS.path(look.namespace, "default", "token")
    token = (await look.client.request("POST", path, body={"spec": {}}))["status"]["token"]
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["users"] = [{"name": each["name"], "user": {"token": token}} for each in config["users"]]
    for each in config["contexts"]:
        each["context"]["namespace"] = look.namespace
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    err = io.StringIO()

    def run() -> int:
        with contextlib.redirect_stderr(err):
            return main(["what-if", "w", "--kubeconfig", str(kubeconfig)])

    assert await asyncio.to_thread(run) == 1
    assert "cannot list resource" in err.getvalue()
    assert "ask for the right to list them" in err.getvalue()
    assert "Traceback" not in err.getvalue()
