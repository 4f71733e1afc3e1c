"""``tailwise what-if`` answers as the operator would decide if things were otherwise."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailwise.cli.answering import NoAnswerError
from tailwise.cli.explain import explain
from tailwise.cli.what_if import _table
from tests.operator.stage import NodeShape, pod_spec
from tests.unit.cli.clusters import W, a_workload, arguments_of, asked_what_if, cluster_of

SHAPES = (
    NodeShape("fast", cores=16, gflops_per_core=100.0),
    NodeShape("slow", cores=16, gflops_per_core=12.5),
    NodeShape("bare", cores=16, agent=False),
)
IDLE = {"fast": 0.0, "slow": 0.25}


def by_node(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["node"]: each for each in answer["candidates"]}


async def test_without_changes_both_sides_are_the_decision_that_explain_shows() -> None:
    async with cluster_of(SHAPES, utilisation=IDLE) as cluster:
        explained = await explain(cluster, W)
        answer = await asked_what_if(cluster)
    assert answer["changes"] == []
    assert answer["today"] == answer["then"]
    assert answer["today"]["candidates"] == explained["candidates"]
    rows = by_node(explained)
    assert explained["winner"] == "fast"
    assert rows["fast"]["boundMilliseconds"] >= rows["fast"]["predictedP90Milliseconds"] > 0
    assert (rows["slow"]["effectiveCores"], rows["slow"]["utilisationPercent"]) == (12, 25)
    assert (rows["slow"]["dataAgeSeconds"], rows["slow"]["source"]) == (0, "Prior")
    assert rows["slow"]["reason"].endswith("ms more than fast")
    assert "hardware" in rows["bare"]["verdict"]


async def test_a_node_that_the_workload_keeps_off_is_no_candidate_until_it_may_be_again() -> None:
    until = {"avoidedNodes": [{"node": "fast", "until": "2026-01-01T12:01:00Z"}]}
    past = {"avoidedNodes": [{"node": "fast", "until": "2026-01-01T11:59:00Z"}]}
    async with cluster_of(SHAPES, a_workload() | {"status": until}, utilisation=IDLE) as cluster:
        kept_off = await explain(cluster, W)
    async with cluster_of(SHAPES, a_workload() | {"status": past}, utilisation=IDLE) as cluster:
        again = await explain(cluster, W)
    assert kept_off["winner"] == "slow"
    assert "set aside" in by_node(kept_off)["fast"]["verdict"]
    assert again["winner"] == "fast"


async def test_a_tighter_slo_refuses_slow_nodes_with_the_figures() -> None:
    async with cluster_of(SHAPES, utilisation=IDLE) as cluster:
        bounds = by_node((await asked_what_if(cluster))["today"])
        between = round((bounds["fast"]["boundMilliseconds"] + bounds["slow"]["boundMilliseconds"]) / 2)
        answer = await asked_what_if(cluster, "--slo-milliseconds", str(between))
        nowhere = await asked_what_if(cluster, "--slo-milliseconds", "1")
    assert answer["changes"] == [{"field": "slo.latencyMilliseconds", "today": 60_000, "then": between}]
    assert by_node(answer["today"])["slow"]["verdict"] == "fits"
    refused = by_node(answer["then"])["slow"]
    assert refused["verdict"] == "SLO"
    assert refused["reason"] == f"bound {refused['boundMilliseconds']:.1f} ms is over {between} ms"
    assert answer["then"]["winner"] == "fast"
    assert nowhere["then"]["outcome"] == "SLOUnattainable"
    assert nowhere["inverse"]["smallestNodeClass"] is None


@pytest.mark.parametrize("load", [{"requestsPerSecond": 2}, {"concurrency": 2}])
async def test_what_the_inverse_promises_holds_when_it_is_asked_for(load: dict[str, int]) -> None:
    async with cluster_of(SHAPES, a_workload(load=load), utilisation=IDLE) as cluster:
        bounds = by_node((await asked_what_if(cluster))["today"])
        slo = ("--slo-milliseconds", str(round(2 * bounds["fast"]["boundMilliseconds"])))
        inverse = (await asked_what_if(cluster, *slo))["inverse"]
        if "concurrency" in load:
            most = ("--concurrency", str(inverse["greatestConcurrency"]))
            assert inverse["greatestRequestsPerSecond"] is None
        else:
            most = ("--requests-per-second", str(int(inverse["greatestRequestsPerSecond"])))
        limit = ("--cpu-limit-millicores", str(inverse["leastCpuLimitMillicores"]))
        for words in (most, limit):
            answer = await asked_what_if(cluster, *slo, *words)
            assert by_node(answer["then"])["fast"]["verdict"] == "wins", words
    assert inverse["node"] == "fast"
    smallest = next(each for each in inverse["nodeClasses"] if each["holdsIdle"])
    assert smallest == inverse["smallestNodeClass"]
    sizes = [each["gflops"] for each in inverse["nodeClasses"]]
    assert sizes == sorted(sizes)


async def test_a_closed_loop_takes_the_place_of_a_rate() -> None:
    async with cluster_of(SHAPES, a_workload(load={"requestsPerSecond": 2}), utilisation=IDLE) as cluster:
        answer = await asked_what_if(cluster, "--concurrency", "3")
    fields = {each["field"]: each["then"] for each in answer["changes"]}
    assert fields == {"load.concurrency": 3, "load.requestsPerSecond": "none"}


async def test_a_lower_limit_lowers_the_request_with_it_as_kubernetes_would_refuse_it_otherwise() -> None:
    async with cluster_of(SHAPES, utilisation=IDLE) as cluster:
        answer = await asked_what_if(cluster, "--cpu-limit-millicores", "300", "--threads", "1")
    fields = {each["field"]: (each["today"], each["then"]) for each in answer["changes"]}
    assert fields["resources.limits.cpu"] == ("1000m", "300m")
    assert fields["resources.requests.cpu"] == ("500m", "300m")
    p90 = "predictedP90Milliseconds"
    assert by_node(answer["then"])["fast"][p90] > 2 * by_node(answer["today"])["fast"][p90]


async def test_a_node_that_does_not_exist_wins_when_it_is_the_fastest(tmp_path: Path) -> None:
    described = NodeShape("from-a-file", cores=16, gflops_per_core=400.0).hardware
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump(described.model_dump(mode="json", by_alias=True)))
    async with cluster_of(SHAPES, utilisation=IDLE) as cluster:
        added = ("--node-file", str(file), "--add-node", "like=slow,cores=2")
        answer = await asked_what_if(cluster, *added, "--node-utilisation-percent", "50")
    assert answer["then"]["winner"] == "from-a-file"
    rows = by_node(answer["then"])
    assert rows["from-a-file"]["effectiveCores"] == 8
    assert rows["new-2-cores"]["predictedP90Milliseconds"] > 0
    assert "from-a-file" not in by_node(answer["today"])
    assert {each["field"] for each in answer["changes"]} == {"node"}


async def test_a_new_node_is_refused_like_any_other_until_it_has_the_label_that_the_pod_asks_for() -> None:
    template = {"spec": pod_spec(cpu="500m", nodeSelector={"pool": "gold"})}
    async with cluster_of(SHAPES, a_workload(template=template), utilisation=IDLE) as cluster:
        without = await asked_what_if(cluster, "--add-node", "name=new,cores=8,gflops=50")
    async with cluster_of(SHAPES, a_workload(template=template), utilisation=IDLE) as cluster:
        labelled = await asked_what_if(
            cluster, "--add-node", "name=new,cores=8,gflops=50", "--node-labels", "pool=gold"
        )
    assert without["then"]["outcome"] == "NoNodeFits"
    assert "node affinity/selector" in by_node(without["then"])["new"]["verdict"]
    assert labelled["then"]["winner"] == "new"


async def test_another_model_is_a_profile() -> None:
    async with cluster_of(SHAPES, utilisation=IDLE) as cluster:
        small = Path(__file__).with_name("small.yaml")
        answer = await asked_what_if(cluster, "--model", str(small))
    p90 = "predictedP90Milliseconds"
    assert by_node(answer["then"])["fast"][p90] < by_node(answer["today"])["fast"][p90] / 2
    assert answer["changes"][0]["then"] == str(small)


async def test_the_table_shows_both_sides_in_one_line_a_node() -> None:
    async with cluster_of(SHAPES, utilisation=IDLE) as cluster:
        out = _table(
            await asked_what_if(cluster, "--slo-milliseconds", "1", "--add-node", "name=new,cores=2,gflops=1")
        )
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "wins -> SLO: bound" in rows["fast"]
    assert "new -> SLO" in rows["new"]
    assert "hardware" in rows["bare"]
    assert "slo.latencyMilliseconds 1 instead of 60000" in out


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--cpu-request-millicores", "3000"), "--cpu-request-millicores 3000 .* 1000m"),
        (("--batch-size", "4"), "--batch-size 4.*--model"),
        (("--model", "no-such.onnx"), "no-such.onnx.*ModelNotFound.*check the path"),
        (("--node-file", "no-such.yaml"), "--node-file no-such.yaml.*agent --print"),
        (("--add-node", "like=nobody"), "like=nobody.*fast, slow"),
        (("--add-node", "cores=4"), "gflops.*like=NODE"),
        (("--input-shape", "x=1,2"), "--input-shape.*--model"),
    ],
)
async def test_what_does_not_go_together_is_told_with_the_way_out(words: tuple[str, ...], names: str) -> None:
    async with cluster_of(SHAPES, utilisation=IDLE) as cluster:
        with pytest.raises(NoAnswerError, match=names):
            await asked_what_if(cluster, *words)


def test_what_is_no_node_is_refused_before_anything_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        arguments_of("what-if", "--add-node", "colour=red")
    assert "give WORD=VALUE" in capsys.readouterr().err
