"""A stage for learning: measurements whose truth is known, and a kubelet's part for training Jobs.

The Job's own command runs as a process here, under the rights of the service account that the chart gives to
training Jobs and with what the Job mounts; its end is told to the API server as a kubelet would.
"""

import asyncio
import base64
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tailwise.api.hardware import NodeHardware
from tailwise.api.labels import (
    HARDWARE_LABEL,
    LATENCY_MODEL_LABEL,
    RETRAIN_ANNOTATION,
    TRAINING_PROGRESS_NAME,
)
from tailwise.api.profile import ModelProfile
from tailwise.cluster import apply
from tailwise.cluster.client import (
    CONFIG_MAPS,
    JOBS,
    LATENCY_MODELS,
    PODS,
    ApiError,
    Client,
    ContentType,
    Resource,
)
from tailwise.cluster.hardware import hardware_from_object
from tailwise.cluster.permissions import ROLES
from tailwise.controllers.training_job import CONTAINER, RUN_DIRECTORY, TRAINING_NAME
from tailwise.prediction.prediction import Serving
from tailwise.prediction.predictor import PriorPredictor
from tests.cluster.hardware_maps import NAMESPACE
from tests.operator.stage import Look, until

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
RBAC_ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")

NOWHERE = {"tailwise.dev/test": "no-such-node"}
"""A node selector that no node has: the tests themselves are the kubelet of training Jobs."""

QUICK: dict[str, Any] = {
    "algorithms": [{"name": "LightGBM", "grid": [{"parameter": "n_estimators", "values": ["40"]}]}],
    "search": {"folds": 2},
    "trainingJob": {"nodeSelector": NOWHERE, "backoffLimit": 0, "cpuLimitMillicores": 1000},
    "promotion": {"minSamples": 50, "minCoveragePercent": 30},
}


def latency_model(name: str, url: str | None = None, **spec: Any) -> dict[str, Any]:
    """A LatencyModel that learns quickly from a file; ``spec`` goes over the settings above."""
    files = {"dataset": {"files": [{"url": url}]}} if url is not None else {}
    return {
        "apiVersion": LATENCY_MODELS.api_version,
        "kind": LATENCY_MODELS.kind,
        "metadata": {"name": name},
        "spec": {**QUICK, **files, **spec},
    }


def other(profile: ModelProfile, times: int) -> ModelProfile:
    """A model so many times as large, of the same kind."""
    document = profile.model_dump(mode="json", by_alias=True)
    work = document["work"]
    for name, value in work.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            work[name] = value * times
    return ModelProfile.model_validate({**document, "flops": profile.flops * times, "work": work})


def measured(
    profiles: Sequence[ModelProfile],
    hardware: Sequence[NodeHardware],
    serving: Serving,
    *,
    rows: int = 240,
    slower: float = 1.6,
    seed: int = 0,
    until_now: timedelta = timedelta(hours=12),
) -> list[dict[str, Any]]:
    """SYNTHETIC measurements: the prior times ``slower``, times lognormal noise of 3 %."""
    rng = np.random.default_rng(seed)
    tables = {
        (which, each.node): PriorPredictor().table(profile, serving, each)
        for which, profile in enumerate(profiles)
        for each in hardware
    }
    began = datetime.now(UTC) - until_now
    made = []
    for number in range(rows):
        # Every model on every node.
        which, node = number // len(hardware) % len(profiles), hardware[number % len(hardware)]
        load = float(rng.uniform(0, 0.6))
        p90 = tables[which, node.node].at(load)[1] * slower * float(np.exp(rng.normal(0, 0.03)))
        made.append(
            {
                "time": (began + number / rows * until_now).isoformat(),
                "profile": profiles[which].model_dump(mode="json", by_alias=True),
                "hardware": node.model_dump(mode="json", by_alias=True),
                "cpu_utilisation": load,
                "cpu_limit_millicores": serving.cpu_limit_millicores,
                "cpu_request_millicores": serving.cpu_request_millicores,
                "threads": serving.threads,
                "concurrency": serving.concurrency,
                "p90_milliseconds": p90,
                "workload": f"shop/model-{which}",
                "pod": f"model-{which}-{node.node}",
                "family": f"family-{which}",
                "source": "synthetic",
            }
        )
    return made


def json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


async def profile_of(look: Look, name: str) -> ModelProfile:
    """A workload's profile, once it was read."""

    async def read() -> Any:
        return (await look.workload(name)).get("status", {}).get("profile")

    return ModelProfile.model_validate(await until(read, f"the profile of {name}"))


async def rows_about(client: Client, profile: ModelProfile, **how: Any) -> list[dict[str, Any]]:
    """Measurements of a model and of one twice as large, served by pods like the tests', on all nodes."""
    query = {"labelSelector": f"{HARDWARE_LABEL}=true"}
    listed = await client.request("GET", CONFIG_MAPS.path(NAMESPACE), query=query)
    nodes = [hardware_from_object(each) for each in listed["items"]]
    served = Serving(None, cpu_request_millicores=100)
    return measured([profile, other(profile, 2)], nodes, served, **how)


# ---- what is asked of the API server


async def ask(client: Client, name: str, value: str) -> None:
    """Ask for a training run, as a user does."""
    patch = {"metadata": {"annotations": {RETRAIN_ANNOTATION: value}}}
    written = await apply.merge_patch(client, LATENCY_MODELS, None, name, patch)
    assert written.done, written.message


async def status_of(client: Client, name: str) -> dict[str, Any]:
    found = await client.request("GET", LATENCY_MODELS.path(None, name))
    return dict(found.get("status") or {})


async def condition_of(client: Client, name: str, kind: str) -> dict[str, Any]:
    conditions = (await status_of(client, name)).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


async def the_condition(client: Client, name: str, kind: str, *, seconds: float = 120, **has: str) -> Any:
    """The condition once it has these fields; ``message`` as a part of it."""

    async def there() -> Any:
        found = await condition_of(client, name, kind)
        words = has.get("message", "")
        others = {key: value for key, value in has.items() if key != "message"}
        fits = words in found.get("message", "") and all(found.get(k) == v for k, v in others.items())
        return found if found and fits else None

    return await until(there, f"{kind} of LatencyModel {name} with {has}", seconds)


async def serves(client: Client, name: str, version: int, seconds: float = 120) -> dict[str, Any]:
    """The status once this version serves, in the operator too."""

    async def there() -> Any:
        status = await status_of(client, name)
        ready: Any = next((each for each in status.get("conditions", []) if each["type"] == "Ready"), {})
        told = status.get("activeVersion", 0) == version and f"version {version}" in ready.get("message", "")
        return status if told else None

    found: dict[str, Any] = await until(there, f"version {version} of LatencyModel {name}", seconds)
    return found


# ---- the kubelet of training Jobs


@dataclass(slots=True)
class Run:
    """A training Job's pod that is being run here."""

    pod: dict[str, Any]
    process: asyncio.subprocess.Process
    log: Path

    @property
    def job(self) -> str:
        return str(self.pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])


@dataclass(slots=True)
class TrainingKubelet:
    """Runs training Jobs' pods, one after another as they are asked for."""

    client: Client
    namespace: str
    kubeconfig: Path
    directory: Path
    seen: set[str] = field(default_factory=set)

    async def run(self, latency_model_name: str) -> int:
        """Run the next pod of a LatencyModel to its end; returns the exit code."""
        return await self.end(await self.begin(latency_model_name))

    async def pod(self, latency_model_name: str) -> dict[str, Any]:
        """The next pod of a LatencyModel's training that was not run here."""

        async def there() -> Any:
            query = {"labelSelector": f"{LATENCY_MODEL_LABEL}={latency_model_name}"}
            listed = await self.client.request("GET", PODS.path(self.namespace), query=query)
            new = [each for each in listed["items"] if each["metadata"]["uid"] not in self.seen]
            return new[0] if new else None

        pod: dict[str, Any] = await until(there, f"a training pod of {latency_model_name}", 180)
        self.seen.add(pod["metadata"]["uid"])
        return pod

    async def begin(self, latency_model_name: str) -> Run:
        """Start what the next pod asks for."""
        pod = await self.pod(latency_model_name)
        name = pod["metadata"]["name"]
        mounted = self.directory / name
        mounted.mkdir()
        (run,) = [each for each in pod["spec"]["volumes"] if each["name"] == "run"]
        for source in run["projected"]["sources"]:
            await self._mount(source["configMap"], mounted)
        (container,) = pod["spec"]["containers"]
        assert container["name"] == CONTAINER
        arguments = [each.replace(RUN_DIRECTORY, str(mounted)) for each in container["args"]]
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tailwise",
                *arguments,
                env={"KUBECONFIG": str(self.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(mounted)},
                stdout=output,
                stderr=output,
            )
        return Run(pod, process, log)

    async def end(self, run: Run) -> int:
        """Wait for its end and tell it."""
        code = await asyncio.wait_for(run.process.wait(), 180)
        print(run.log.read_text(errors="replace"))
        await self.tell(run.pod, code)
        return code

    async def kill(self, run: Run) -> None:
        """End it as the kernel does where memory ran out."""
        run.process.send_signal(signal.SIGKILL)
        await run.process.wait()
        await self.tell(run.pod, 137, "OOMKilled")

    async def tell(self, pod: dict[str, Any], code: int, reason: str = "") -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        why = reason or ("Completed" if code == 0 else "Error")
        ended = {"exitCode": code, "reason": why, "startedAt": now, "finishedAt": now}
        container = {
            "name": CONTAINER,
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        status = {"phase": "Succeeded" if code == 0 else "Failed", "containerStatuses": [container]}
        path = PODS.path(self.namespace, pod["metadata"]["name"], "status")
        await self.client.request(
            "PATCH", path, body={"status": status}, content_type=ContentType.MERGE_PATCH
        )

    async def _mount(self, source: Mapping[str, Any], directory: Path) -> None:
        async def there() -> Any:
            try:
                return await self.client.request("GET", CONFIG_MAPS.path(self.namespace, source["name"]))
            except ApiError:
                return None

        found = await there() if source.get("optional") else await until(there, f"ConfigMap {source['name']}")
        for key, text in ((found or {}).get("data") or {}).items():
            (directory / key).write_text(text)
        for key, text in ((found or {}).get("binaryData") or {}).items():
            (directory / key).write_bytes(base64.b64decode(text))


@contextlib.asynccontextmanager
async def training_kubelet(
    client: Client, namespace: str, kubeconfig: Path, directory: Path
) -> AsyncIterator[TrainingKubelet]:
    """A kubelet's part in the operator's namespace, with the rights that the chart gives."""
    for resource, manifest in _account(namespace):
        await apply.create(client, resource, {**manifest, "apiVersion": resource.api_version})
    path = f"{SERVICE_ACCOUNTS.path(namespace, TRAINING_NAME)}/token"
    token = (await client.request("POST", path, body=_TOKEN))["status"]["token"]
    document = yaml.safe_load(await asyncio.to_thread(kubeconfig.read_text))
    user = document["contexts"][0]["context"]["user"]
    document["users"] = [{"name": user, "user": {"token": token}}]
    own = directory / "training.kubeconfig"
    own.write_text(yaml.safe_dump(document))
    yield TrainingKubelet(client, namespace, own, directory)


_TOKEN = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}


def _account(namespace: str) -> list[tuple[Resource, dict[str, Any]]]:
    (role,) = [each for each in ROLES if each.name == "training-namespace"]
    rules = [
        {
            "apiGroups": [rule.group],
            "resources": list(rule.resources),
            "verbs": list(rule.verbs),
            **({"resourceNames": list(rule.names)} if rule.names else {}),
        }
        for rule in role.rules
    ]
    metadata = {"name": TRAINING_NAME, "namespace": namespace}
    subject = {"kind": "ServiceAccount", "name": TRAINING_NAME, "namespace": namespace}
    reference = {"apiGroup": RBAC_ROLES.group, "kind": "Role", "name": TRAINING_NAME}
    return [
        (SERVICE_ACCOUNTS, {"kind": "ServiceAccount", "metadata": metadata}),
        (RBAC_ROLES, {"kind": "Role", "metadata": metadata, "rules": rules}),
        (
            ROLE_BINDINGS,
            {"kind": "RoleBinding", "metadata": metadata, "subjects": [subject], "roleRef": reference},
        ),
    ]


async def leave_nothing(client: Client, namespace: str, name: str) -> None:
    """Delete a LatencyModel; there is a garbage collector, and the test does not wait for it."""
    await apply.delete(client, LATENCY_MODELS, None, name)
    listed = await client.request("GET", JOBS.path(namespace))
    for job in listed["items"]:
        if job["metadata"].get("labels", {}).get(LATENCY_MODEL_LABEL) == name:
            await apply.delete(client, JOBS, namespace, job["metadata"]["name"], with_dependents=True)


async def told_progress(client: Client, namespace: str, job: str) -> dict[str, Any]:
    """What a run told last."""
    found = await client.request("GET", CONFIG_MAPS.path(namespace, TRAINING_PROGRESS_NAME))
    return dict(json.loads((found.get("data") or {}).get(job, "{}")))
