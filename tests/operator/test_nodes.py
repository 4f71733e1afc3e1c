"""``tailwise nodes`` tells of each node what decisions know of it, and why it takes no pods."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tailwise.cluster.client import NODES, ContentType
from tests.cluster import binaries
from tests.cluster.controlplane import ControlPlane
from tests.operator.asking import ask, told
from tests.operator.conftest import BARE, FAST, OPERATOR_NAMESPACE, SLOW
from tests.operator.stage import Look, until


async def test_each_node_is_told_with_what_its_agent_measured(
    control_plane: ControlPlane, stage_nodes: None
) -> None:
    _ = stage_nodes
    nodes = {each["node"]: each for each in (await told(control_plane, "nodes"))["nodes"]}
    fast = nodes[FAST]
    assert fast["nodeClass"] == "test at 100 GFLOP/s"
    assert (fast["cores"], fast["gflopsPerCore"], fast["copyGigabytesPerSecondPerCore"]) == (16, 100, 20)
    assert fast["hardwareAgeSeconds"] > 0
    assert fast["out"] is None
    # No Prometheus was named: what is not known is not 0.
    assert (fast["utilisationPercent"], fast["dataAgeSeconds"]) == (None, None)
    assert nodes[BARE]["out"] == "node(s) without hardware data"
    assert nodes[BARE]["cores"] is None


async def test_a_cordoned_node_is_out_and_says_so(
    control_plane: ControlPlane, stage_nodes: None, look: Look
) -> None:
    _ = stage_nodes

    async def cordon(yes: bool) -> None:
        path = NODES.path(None, SLOW)
        body = {"spec": {"unschedulable": yes}}
        await look.client.request("PATCH", path, body=body, content_type=ContentType.MERGE_PATCH)

    await cordon(True)
    try:
        code, out, err = await ask(control_plane, "nodes")
    finally:
        await cordon(False)
    assert code == 0, err
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "node(s) were unschedulable" in rows[SLOW]
    assert "EFF.CORES" in rows["NODE"]

    async def untainted() -> bool:  # node-lifecycle adds and removes the taint of a cordon
        node = await look.client.request("GET", NODES.path(None, SLOW))
        return not node["spec"].get("taints")

    await until(untainted, "the cordoned node without its taint")


@pytest.fixture
def plugin_path(tmp_path: Path) -> str:
    """A PATH on which kubectl finds the plugin, as the package's scripts would be installed."""
    for name, module, function in (
        ("kubectl-tailwise", "main", "main"),
        ("kubectl_complete-tailwise", "completion", "kubectl_complete"),
    ):
        script = tmp_path / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom tailwise.cli.{module} import {function}\n"
            f"sys.exit({function}())\n"
        )
        script.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


async def test_kubectl_runs_and_completes_the_plugin(
    control_plane: ControlPlane, stage_nodes: None, plugin_path: str
) -> None:
    _ = stage_nodes
    kubectl = str(await asyncio.to_thread(binaries.program, "kubectl"))
    environment = {**os.environ, "PATH": plugin_path, "KUBECONFIG": str(control_plane.kubeconfig)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [kubectl, *words], capture_output=True, text=True, check=False, timeout=120, env=environment
        )

    done = await asyncio.to_thread(run, "tailwise", "nodes", "--operator-namespace", OPERATOR_NAMESPACE)
    assert done.returncode == 0, done.stderr
    assert FAST in done.stdout
    done = await asyncio.to_thread(run, "tailwise", "explain", "nobody", "-n", "default")
    assert done.returncode == 1
    assert "default/nobody" in done.stderr and "kubectl get iw" in done.stderr
    done = await asyncio.to_thread(run, "tailwise", "--help")
    assert "usage: kubectl tailwise" in done.stdout
    done = await asyncio.to_thread(run, "__complete", "tailwise", "what-if", "--add")
    assert "--add-node" in done.stdout.split()
