"""An SLO of another percentile is decided by that one's bound; a port is where pods are scraped."""

from typing import Any

from tailwise.cluster.client import INFERENCE_WORKLOADS
from tests.cluster.controlplane import ControlPlane
from tests.operator.asking import told
from tests.operator.conftest import FAST
from tests.operator.process import Operator
from tests.operator.stage import Look, pod_spec, until, workload

PROFILE = {"flops": 2_000_000_000, "parameterBytes": 100_000_000}


async def test_the_bound_is_that_of_the_slos_percentile_and_nothing_of_it_is_passed_over(
    control_plane: ControlPlane, look: Look, operator: Operator
) -> None:
    spec = pod_spec(cpu="500m", limit="1")
    for percentile in (50, 99):
        made = workload(
            look.namespace,
            f"p{percentile}",
            "https://a.example/m.onnx",
            replicas=1,
            spec=spec,
            profile=PROFILE,
        )
        made["spec"]["slo"]["percentile"] = percentile
        made["spec"]["load"] = {"requestsPerSecond": 5}
        made["spec"]["placement"]["neighbours"] = "Ignore"
        made["spec"]["metrics"] = {"preset": "KServe"}
        made["spec"]["serving"] = {"port": 8080, "modelName": "m"}
        await look.create(INFERENCE_WORKLOADS, made)
    pods = await until(lambda: look.bound_pods(2), "two bound pods", 240)
    for pod in pods:
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == "8080"

    async def attainable() -> list[dict[str, Any]]:
        found = [await look.condition(name, "SLOAttainable") for name in ("p50", "p99")]
        return found if all(each.get("reason") == "WithinSLO" for each in found) else []

    said = await until(attainable, "SLOs that can be attained", 120)
    assert ["P50 is" in said[0]["message"], "P99 is" in said[1]["message"]] == [True, True]
    for name in ("p50", "p99"):
        assert (await look.condition(name, "SpecSupported"))["status"] == "True"
    bounds = {}
    for name in ("p50", "p99"):
        answer = await told(control_plane, "explain", name, "-n", look.namespace)
        candidate = {each["node"]: each for each in answer["candidates"]}[FAST]
        bounds[name] = candidate["boundMilliseconds"]
        assert f"bound of the P{name[1:]}" in answer["message"]
    assert bounds["p99"] > bounds["p50"]
    assert operator.running
