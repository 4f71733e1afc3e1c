"""The product's custom resource definitions, applied to a test cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import processes
from tests.cluster.api import Api
from tests.cluster.locks import Progress, say

DIRECTORY = Path(__file__).resolve().parents[2] / "crds"


def apply(api: Api, progress: Progress = say) -> tuple[str, ...]:
    """Apply crds/*.yaml and wait until they are served; return their names, none if there are none yet."""
    documents = (yaml.safe_load_all(path.read_text()) for path in sorted(DIRECTORY.glob("*.yaml")))
    manifests = [manifest for document in documents for manifest in document if manifest]
    for manifest in manifests:
        api.apply(manifest)
    names = tuple(str(manifest["metadata"]["name"]) for manifest in manifests)
    if names:
        processes.wait_until_ready("CRDs", lambda: not_served(api, names), progress=progress)
    return names


def not_served(api: Api, names: Sequence[str]) -> str | None:
    """Which of these definitions are not established yet; None when all are."""
    waiting = []
    for name in names:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        # Right after creation the status is there and its conditions are null.
        status: dict[str, Any] = api.request("GET", path).get("status") or {}
        conditions = status.get("conditions") or []
        if not any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            waiting.append(name)
    return f"not established: {', '.join(waiting)}" if waiting else None
