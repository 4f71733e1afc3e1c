import math
import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tailwise.telemetry.metrics import METRICS, DataSource, Kind, OperatorMetrics, metrics_reference, serve
from tests.cluster.ports import free_port


def test_names_follow_prometheus_conventions() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"tailwise_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert not metric.name.endswith(("_milliseconds", "_ms", "_count", "_bucket", "_sum"))
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert metric.description.endswith(".")


def test_no_label_grows_with_the_cluster() -> None:
    labels = {label for metric in METRICS for label, _ in metric.labels}
    assert not labels & {"pod", "node", "workload", "namespace", "url", "model"}


def test_every_metric_of_the_table_stands_in_the_reference() -> None:
    reference = metrics_reference()
    for metric in METRICS:
        assert f"| `{metric.name}` | {metric.kind} |" in reference
    assert reference.endswith("|\n")


def test_what_happened_can_be_read_where_prometheus_scrapes_it() -> None:
    metrics = OperatorMetrics()
    metrics.placed("Placed", delay_seconds=0.7)
    metrics.placed("Fallback")
    metrics.decided(0.002)
    metrics.predicted("Prior")
    metrics.inspected("Complete", 0.4)
    metrics.rejected("resources", 7)
    metrics.depth("pods", 3)
    metrics.waited("pods", 0.01)
    metrics.worked("pods", 0.02, failed=True)
    metrics.observed("Observed")
    metrics.watch_restarted("pods", "expired")
    metrics.gated(4)
    metrics.leading(True)
    port = free_port("127.0.0.1", set())
    stop = serve(metrics, port, "127.0.0.1")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        stop()
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["tailwise_placements_total", "Placed"] == 1
    assert found["tailwise_placement_delay_seconds_count",] == 1
    assert found["tailwise_placement_decision_duration_seconds_count",] == 1
    assert found["tailwise_candidates_rejected_total", "resources"] == 7
    assert found["tailwise_queue_depth", "pods"] == 3
    assert found["tailwise_queue_retries_total", "pods"] == 1
    assert found["tailwise_leader",] == 1
    assert any(name == "tailwise_build_info" for name, *_ in found)
    assert any(name == "process_resident_memory_bytes" for name, *_ in found)


def test_the_age_of_data_is_that_of_the_moment_it_is_scraped() -> None:
    metrics = OperatorMetrics()
    age: list[float | None] = [None]
    metrics.data_age(DataSource.UTILISATION, lambda: age[0])

    def scraped() -> float:
        value = metrics.registry.get_sample_value("tailwise_data_age_seconds", {"source": "utilisation"})
        assert value is not None
        return value

    assert math.isnan(scraped())
    age[0] = 12.5
    assert scraped() == 12.5
