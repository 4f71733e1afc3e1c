"""``tailwise explain`` tells of each node why it would win or was refused, from the cluster itself."""

from typing import Any

from tailwise.cluster.client import INFERENCE_WORKLOADS
from tests.cluster.controlplane import ControlPlane
from tests.operator.asking import ask, told
from tests.operator.conftest import BARE, FAST
from tests.operator.process import Operator
from tests.operator.stage import Look, until, workload


async def test_each_node_is_listed_with_its_prediction_or_why_it_was_refused(
    control_plane: ControlPlane, look: Look, operator: Operator, models: str
) -> None:
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", replicas=1))
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod", 120)

    async def profiled() -> dict[str, Any]:
        return dict((await look.workload("w")).get("status", {}).get("profile") or {})

    await until(profiled, "the profile in status")
    explained = await told(control_plane, "explain", "w", "-n", look.namespace)
    candidates = {each["node"]: each for each in explained["candidates"]}
    assert explained["winner"] == FAST
    assert candidates[FAST]["verdict"] == "wins"
    assert candidates[FAST]["boundMilliseconds"] >= candidates[FAST]["predictedP90Milliseconds"] > 0
    assert "hardware" in candidates[BARE]["verdict"]
    assert candidates[BARE]["predictedP90Milliseconds"] is None
    (standing,) = explained["pods"]
    assert standing["pod"] == pod["metadata"]["name"]
    assert standing["node"] == standing["decidedNode"]
    code, out, err = await ask(control_plane, "explain", "w", "-n", look.namespace)
    assert code == 0, err
    assert FAST in out
    for column in ("EFF.CORES", "UTIL(%)", "AGE(s)", "P90(ms)", "BOUND(ms)", "SOURCE", "VERDICT"):
        assert column in out
    assert operator.running


async def test_a_workload_that_is_not_there_is_named(control_plane: ControlPlane, look: Look) -> None:
    code, _, err = await ask(control_plane, "explain", "nobody", "-n", look.namespace)
    assert code == 1
    assert f"{look.namespace}/nobody" in err
