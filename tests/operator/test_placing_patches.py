"""The patches on a real API server: what KEP-3838 lets pass, and what a precondition stops."""

from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiClient, CoreV1Api
from kubernetes_asyncio.client.exceptions import ApiException

from tailwise.api.inference_workload_status import PlacementResult
from tailwise.domain.parse import pod_from_object
from tailwise.domain.placement import WeightedNode, require_any, require_node
from tailwise.domain.record import PlacementRecord
from tests.unit.domain.builders import node, pod_object

RECORD = PlacementRecord(PlacementResult.PLACED, datetime(2026, 1, 1, tzinfo=UTC), "node-1", 1, 2, 3)
ZONE = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
NOT_TWO = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-2"]}]}


async def _created(api: ApiClient, namespace: str, **arguments: Any) -> dict[str, Any]:
    manifest: Any = {"apiVersion": "v1", "kind": "Pod"} | pod_object(**arguments)
    manifest["metadata"] = {
        key: value for key, value in manifest["metadata"].items() if key in ("name", "labels", "annotations")
    }
    manifest["spec"]["containers"][0] |= {"image": "none"}
    created = await CoreV1Api(api).create_namespaced_pod(namespace, manifest)
    found: dict[str, Any] = api.sanitize_for_serialization(created)
    return found


@pytest.mark.parametrize("required", [None, [ZONE], [ZONE, NOT_TWO], [{}]])
@pytest.mark.parametrize("annotations", [None, {"a/b": "c"}])
@pytest.mark.parametrize("several", [False, True])
async def test_the_api_server_takes_the_patch_whatever_affinity_the_pod_brings(
    api: ApiClient, namespace: str, required: Any, annotations: Any, several: bool
) -> None:
    pod = pod_from_object(await _created(api, namespace, required=required, annotations=annotations))
    nodes = [WeightedNode(node("node-1")), WeightedNode(node("node-3"), 5)]
    patch = require_any(pod, nodes, RECORD) if several else require_node(pod, "node-1", RECORD)
    core = CoreV1Api(api)
    placed = await core.patch_namespaced_pod(pod.name, namespace, patch)
    after = pod_from_object(api.sanitize_for_serialization(placed))
    assert after.gates == ()
    assert after.record == RECORD
    with pytest.raises(ApiException) as refused:
        await core.patch_namespaced_pod(pod.name, namespace, require_node(pod, "node-9", RECORD))
    assert refused.value.status == 422
