"""The product's chart on the harness's cluster or the user's: installed, and every node measured."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tailwise.benchmark.kubectl import wait_for
from tests.demo.manifests import SYSTEM_NAMESPACE
from tests.demo.target import Target

CHART = Path(__file__).parents[2] / "helm" / "tailwise"


def install(target: Target, model_networks: Sequence[str], report: Callable[[str], None]) -> None:
    """Install or upgrade it; ``model_networks``: private addresses that models may be read from."""
    # The tag stays while the image changes: new pods, so that a kept cluster runs this code.
    annotations = {"tailwise-demo/installed-at": str(int(time.time()))}
    values = {
        "image": {
            "repository": target.operator_image.rpartition(":")[0],
            "tag": target.operator_image.rpartition(":")[2],
            "pullPolicy": target.image_pull_policy,
        },
        "prometheus": {"url": target.prometheus_url},
        "utilisation": {"preset": target.utilisation_preset},
        "models": {"allowedNetworks": list(model_networks)},
        "operator": {
            "replicas": 1 if target.runs_containers else 0,
            "podAnnotations": annotations,
            **target.infrastructure.spec(),
        },
        "agent": {
            "enabled": target.runs_containers,
            "podAnnotations": annotations,
            "resources": {"requests": {"cpu": target.millicores(10)}},
        },
    }
    command = [target.helm, "upgrade", "--install", "tailwise", str(CHART)]
    command += ["--namespace", SYSTEM_NAMESPACE, "--values", "-"]
    done = subprocess.run(
        command,
        input=json.dumps(values),
        env=target.kubectl.environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if done.returncode:
        raise TimeoutError(f"helm upgrade --install tailwise: {done.stderr.strip()}")
    report("chart installed")


def wait_until_it_serves(target: Target, report: Callable[[str], None]) -> None:
    """Until the operator and all agents are ready and each node's hardware is written."""
    wait_for("chart", lambda: _not_ready(target), timeout_seconds=300, report=report)
    wait_for("agents", lambda: _not_measured(target), timeout_seconds=300, report=report)


def _not_ready(target: Target) -> str | None:
    items = target.kubectl.get("deployments,daemonsets", "--namespace", SYSTEM_NAMESPACE)["items"]
    for item in items:
        status = item["status"]
        wanted = status.get("desiredNumberScheduled", item["spec"].get("replicas", 1))
        ready = status.get("numberReady", status.get("readyReplicas", 0))
        if ready < wanted:
            return f"{item['kind']} {item['metadata']['name']}: {ready} of {wanted} ready"
    return None if items else "nothing there yet"


def _not_measured(target: Target) -> str | None:
    nodes = len(target.kubectl.get("nodes")["items"])
    selector = "tailwise.dev/node-hardware=true"
    items = target.kubectl.get("configmaps", "--namespace", SYSTEM_NAMESPACE, "--selector", selector)["items"]
    return None if len(items) >= nodes else f"{len(items)} of {nodes} nodes measured"
