"""The demonstration's figures are computed as the paper defines them."""

from dataclasses import replace
from pathlib import Path

from tests.demo import benchmark_report
from tests.demo.report import PodResult, comparison_table, node_averages, summarise


def pod(name: str, node: str, measured: float | None, predicted: float | None = None) -> PodResult:
    return PodResult("resnet50", name, node, 100, predicted, measured)


def test_avg_np90_is_the_mean_over_the_pods_of_a_node() -> None:
    results = [pod("a", "n1", 10.0), pod("b", "n1", 30.0), pod("c", "n2", 50.0), pod("d", "n2", None)]
    assert node_averages(results) == {("resnet50", "n1"): 20.0, ("resnet50", "n2"): 50.0}


def test_the_summary_weighs_pods_not_nodes_and_counts_missed_objectives() -> None:
    summary = summarise([pod("a", "n1", 10.0, 11.0), pod("b", "n1", 30.0), pod("c", "n2", 110.0, 99.0)])
    assert summary.mean_p90_milliseconds == 50.0
    assert summary.worst_p90_milliseconds == 110.0
    assert summary.slo_violations == 1
    assert summary.mean_absolute_prediction_error_percent == 10.0


def test_a_pod_that_was_not_measured_is_not_taken_for_a_fast_one() -> None:
    summary = summarise([pod("a", "n1", None, 5.0)])
    assert (summary.measured, summary.mean_p90_milliseconds, summary.slo_violations) == (0, None, 0)


def test_a_node_without_pods_under_one_policy_shows_a_dash() -> None:
    text = comparison_table([pod("a", "n1", 10.0)], [pod("a", "n2", 20.0)])
    lines = [line.split() for line in text.splitlines()[1:]]
    assert lines == [["resnet50", "n1", "10.0", "1", "-", "0"], ["resnet50", "n2", "-", "0", "20.0", "1"]]


def test_a_demonstration_ends_with_the_benchmarks_report(tmp_path: Path) -> None:
    default = replace(pod("a", "n1", 30.0), latencies_milliseconds=tuple(float(n) for n in range(1, 101)))
    tailwise = replace(pod("b", "n2", 20.0, 25.0), latencies_milliseconds=(20.0,) * 100)
    text = benchmark_report.write({"default": [default], "tailwise": [tailwise]}, 128, tmp_path / "demo")
    assert "90.0 (90.0 to 90.0)" in text
    assert "20.0 (20.0 to 20.0)" in text
    assert (tmp_path / "demo" / "report.html").exists()
