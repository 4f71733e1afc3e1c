"""Scenario files: the examples are whole, and what is wrong is told by field before a cluster is loaded."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailwise.benchmark import choosing
from tailwise.benchmark.choosing import NoRoomError, Room
from tailwise.benchmark.runner import order
from tailwise.benchmark.scenario import Scenario, ScenarioError, load_scenario
from tests.unit.benchmark.stored import scenario, workload

EXAMPLES = Path(__file__).parents[3] / "examples" / "bench"
LEAST: dict[str, Any] = {
    "description": "d",
    "workloads": [{"name": "w", "family": "f", "model": "m.onnx", "replicas": 1, "sloMilliseconds": 5}],
    "policies": [{"name": "default", "kind": "DefaultScheduler"}],
}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_an_example_scenario_is_whole_and_its_models_are_there(file: Path) -> None:
    read = load_scenario(file)
    models = {path.name.removesuffix(".onnx.skel.gz") for path in (EXAMPLES / "models").glob("*.skel.gz")}
    assert {each.model.removesuffix(".onnx") for each in read.workloads} <= models
    assert read.nodes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"workload": []}, "workload"),
        ({"rounds": 0}, "rounds"),
        ({"load": {"queries": 63}}, "load.queries"),
        ({"policies": [{"name": "a", "kind": "Scheduler"}]}, "schedulerName belongs to kind Scheduler"),
        ({"policies": [{"name": "a", "kind": "Random", "sameAs": "b"}]}, "sameAs belongs to kind Same"),
        ({"policies": [{"name": "a", "kind": "Same", "sameAs": "b"}]}, "sameAs b: no policy before it"),
        ({"policies": [{"name": "a", "kind": "Random"}] * 2}, "policies: a is there twice"),
        (
            {
                "nodes": [{"name": "n", "cores": 1}],
                "neighbours": [{"name": "x", "nodes": ["m"]}],
            },
            "neighbour x: no node m under nodes",
        ),
    ],
)
def test_a_wrong_scenario_is_refused_by_the_field_that_is_wrong(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(yaml.safe_dump({**LEAST, **change}))
    with pytest.raises(ScenarioError) as refused:
        load_scenario(file)
    assert str(file) in str(refused.value)
    assert told in str(refused.value)


def test_more_rounds_continue_a_run_and_other_pods_do_not() -> None:
    least = Scenario.model_validate(LEAST)
    assert least.digest == least.model_copy(update={"rounds": 9, "policies": least.policies * 0}).digest
    assert least.digest != least.model_copy(update={"seed": 1}).digest


def test_the_pods_of_a_round_come_in_one_order_for_all_policies_and_in_another_next_time() -> None:
    both = scenario(workload("a", 8), workload("b", 8))
    first = [slot for slot, _ in choosing.arrivals(both, 1)]
    assert first == [slot for slot, _ in choosing.arrivals(both, 1)]
    assert first != [slot for slot, _ in choosing.arrivals(both, 2)]
    assert sorted(first) == sorted(slot for slot, _ in choosing.arrivals(both, 2))


def test_policies_take_turns_in_beginning_and_those_that_need_others_come_last() -> None:
    names = [[policy.name for policy in order(scenario().policies, number)] for number in (1, 2)]
    assert names[0] == ["default", "round-robin", "tailwise", "again", "oracle"]
    assert names[1] == ["round-robin", "tailwise", "default", "again", "oracle"]


@pytest.mark.parametrize(
    ("text", "value"), [("250m", 0.25), ("2", 2.0), ("1.5", 1.5), ("448Mi", 448 * 2**20), ("1Gi", 2**30)]
)
def test_quantities_are_read_as_kubernetes_means_them(text: str, value: float) -> None:
    assert choosing.quantity(text) == value


def test_round_robin_passes_over_a_node_that_is_full() -> None:
    rooms = {"a": Room("a", 0.1, 2**40), "b": Room("b", 1.0, 2**40), "c": Room("c", 1.0, 2**40)}
    choose = choosing.round_robin(list(rooms))
    found = []
    for number in range(4):
        node, rooms = choosing.place(f"w-{number}", workload(), rooms, choose)
        found.append(node)
    assert found == ["a", "b", "c", "b"]


def test_a_pod_that_fits_nowhere_is_named() -> None:
    with pytest.raises(NoRoomError, match="w-0"):
        choosing.place("w-0", workload(), {"a": Room("a", 0.0, 2**40)}, choosing.pinned({"w-0": "a"}))
