"""From stored steps to figures: as the paper defines them, and honest about what was not measured."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.benchmark.answers import parse
from tailwise.benchmark.records import RunDirectory, RunError, nearest_rank
from tailwise.benchmark.results import results
from tailwise.benchmark.statistics import mean_interval, ratio_interval
from tests.unit.benchmark.stored import pod, run, scenario, step, unmeasured, workload

VALUES = st.dictionaries(
    st.tuples(st.integers(1, 3), st.sampled_from("abcdef")), st.floats(0.1, 1e6), min_size=1, max_size=18
)


@given(VALUES, st.integers(0, 5))
def test_a_mean_lies_within_its_interval_and_the_interval_within_the_values(
    values: dict[tuple[int, str], float], seed: int
) -> None:
    interval = mean_interval(values, seed)
    assert interval.low <= interval.value <= interval.high
    assert min(values.values()) * (1 - 1e-9) <= interval.low
    assert interval.high <= max(values.values()) * (1 + 1e-9)
    assert interval == mean_interval(values, seed)


@given(VALUES, st.floats(0.01, 100))
def test_a_policy_that_is_so_many_times_slower_at_every_pod_is_so_many_times_slower_for_sure(
    values: dict[tuple[int, str], float], factor: float
) -> None:
    slower = {key: factor * value for key, value in values.items()}
    interval = ratio_interval(slower, values)
    assert interval.low == pytest.approx(factor)
    assert interval.high == pytest.approx(factor)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=200), st.integers(1, 99))
def test_the_nearest_rank_is_the_least_value_that_covers_its_share(values: list[float], percent: int) -> None:
    ordered = sorted(values)
    found = nearest_rank(ordered, percent)
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9
    assert sum(value < found for value in values) < percent / 100 * len(values) + 1e-9


def test_avg_np90_is_of_pods_on_a_node_and_the_mean_is_of_all_pods() -> None:
    found = results(
        run(scenario(workload(replicas=3))),
        [step("default", pod("a", "n1", 10), pod("b", "n1", 30), pod("c", "n2", 110))],
    ).policies[0]
    assert [(each.node, each.average_p90_milliseconds, each.pods) for each in found.node_averages] == [
        ("n1", 20.0, 2),
        ("n2", 110.0, 1),
    ]
    assert found.mean_p90_milliseconds.value == 50.0
    assert found.worst_p90_milliseconds == 110.0
    assert found.slo_violations == 1
    assert found.slow_queries_percent == pytest.approx(100 / 3)
    assert found.queries_per_second == pytest.approx(30.0)


def test_policies_are_set_against_the_default_and_the_oracle_pod_by_pod() -> None:
    found = results(
        run(),
        [
            step("default", pod("a", "n1", 20), pod("b", "n2", 20)),
            step("tailwise", pod("a", "n1", 15, predicted=30), pod("b", "n1", 15)),
            step("oracle", pod("a", "n2", 10), pod("b", "n1", 10)),
        ],
    )
    tailwise = next(each for each in found.policies if each.policy == "tailwise")
    assert tailwise.over_default is not None
    assert tailwise.over_default.value == pytest.approx(0.75)
    assert tailwise.over_oracle is not None
    assert tailwise.over_oracle.value == pytest.approx(1.5)
    assert tailwise.prediction is not None
    assert (tailwise.prediction.pods, tailwise.prediction.mean_absolute_percent) == (1, 100.0)


def test_a_pod_that_was_not_measured_counts_as_missing_and_not_as_fast() -> None:
    found = results(run(), [step("default", pod("a", "n1", 10), unmeasured("b", "n1"))]).policies[0]
    assert (found.pods, found.measured, found.mean_p90_milliseconds.value) == (2, 1, 10.0)


def test_the_same_placement_twice_tells_the_machines_noise() -> None:
    found = results(
        run(),
        [
            step("round-robin", pod("a", "n1", 10), pod("b", "n2", 10)),
            step("again", pod("a", "n1", 11), pod("b", "n2", 11)),
        ],
    )
    assert [(again, first) for again, first, _ in found.same_placement] == [("again", "round-robin")]
    assert found.same_placement[0][2].value == pytest.approx(1.1)


def test_only_pods_alone_on_a_node_tell_how_slow_it_is() -> None:
    found = results(
        run(cores={"n1": 0.2, "n2": 0.4}),
        [
            step("default", pod("a", "n1", 40), pod("b", "n2", 20)),
            step("oracle", pod("a", "n1", 80), pod("b", "n1", 80)),
        ],
    )
    assert [(each.node, each.capacity_cores, each.p90_milliseconds) for each in found.calibration] == [
        ("n1", 0.2, 40.0),
        ("n2", 0.4, 20.0),
    ]


def test_the_clients_output_is_read_among_other_lines_and_a_failure_keeps_its_reason() -> None:
    lines = [
        "a warning of somebody else's",
        json.dumps({"pod": "a", "begin": 1.0, "end": 3.0, "valid": True}),
        json.dumps({"pod": "a", "latenciesMicroseconds": [1000, 2000]}),
        json.dumps({"pod": "a", "latenciesMicroseconds": [3000]}),
        json.dumps({"pod": "b", "error": "connection refused"}),
        '{"cut": ',
    ]
    found = parse("\n".join(lines))
    assert found["a"].latencies_milliseconds == (1.0, 2.0, 3.0)
    assert found["a"].valid
    assert found["b"].error == "connection refused"
    assert found["b"].latencies_milliseconds == ()


def test_a_directory_of_another_scenarios_run_is_not_mixed_with_this_one(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.begin(run())
    directory.finish(step("default", pod("a", "n1", 10)))
    directory.begin(run())
    assert [each.policy for each in directory.steps()] == ["default"]
    with pytest.raises(RunError, match="another scenario"):
        directory.begin(run(scenario(workload(replicas=9))))
