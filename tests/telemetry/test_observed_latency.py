from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from tailwise.api.serving_metrics import LatencyQueries, LatencyUnit, ServingMetrics, ServingPreset
from tailwise.telemetry.observed import LatencyObservation, NoLatency, observe_latency
from tailwise.telemetry.prometheus import Prometheus
from tests.telemetry.scraped import PATIENCE_SECONDS

WINDOW_SECONDS = 30
OURS = ServingMetrics(preset=ServingPreset.OPEN_INFERENCE, window_seconds=WINDOW_SECONDS)


def preset(name: ServingPreset) -> ServingMetrics:
    return ServingMetrics(preset=name, window_seconds=WINDOW_SECONDS)


def own(**queries: object) -> ServingMetrics:
    return ServingMetrics(
        preset=ServingPreset.CUSTOM,
        queries=LatencyQueries.model_validate(queries),
        window_seconds=WINDOW_SECONDS,
    )


async def observed(
    url: str,
    metrics: ServingMetrics,
    pods: Sequence[str],
    percentile: int = 90,
    model_name: str | None = None,
) -> LatencyObservation:
    prometheus = Prometheus(url, timeout_seconds=PATIENCE_SECONDS)
    try:
        return await observe_latency(
            prometheus,
            metrics,
            namespace="shop",
            workload="iris",
            pods=pods,
            percentile=percentile,
            model_name=model_name,
        )
    finally:
        prometheus.close()


async def test_the_p90_of_all_pods_comes_from_summed_buckets_and_not_from_their_p90s(
    prometheus_url: str,
) -> None:
    seen = await observed(prometheus_url, OURS, ("fast-1", "slow-1"))
    assert seen.workload is not None
    # 990 of 1,100 requests are among the fast pod's 1,000: 99 ms. The mean of both P90s would be 290 ms.
    assert seen.workload.milliseconds == pytest.approx(99, abs=1)
    assert seen.pods["fast-1"].milliseconds == pytest.approx(90, abs=1)
    assert seen.pods["slow-1"].milliseconds == pytest.approx(490, abs=1)
    assert not seen.workload.is_bound
    assert seen.reason is None


async def test_the_number_of_requests_stands_beside_the_value(prometheus_url: str) -> None:
    seen = await observed(prometheus_url, OURS, ("fast-1", "slow-1"))
    assert seen.workload is not None
    assert seen.workload.requests is not None
    fast, slow = seen.pods["fast-1"].requests, seen.pods["slow-1"].requests
    assert fast is not None
    assert slow is not None
    assert fast == pytest.approx(10 * slow, rel=0.05)
    assert seen.workload.requests == pytest.approx(fast + slow)


async def test_the_value_is_as_old_as_its_newest_sample(prometheus_url: str) -> None:
    seen = await observed(prometheus_url, OURS, ("fast-1",))
    assert seen.workload is not None
    age = datetime.now(UTC) - seen.workload.sampled_at
    assert timedelta(0) < age < timedelta(seconds=WINDOW_SECONDS)


async def test_pods_of_other_namespaces_and_of_longer_names_are_not_counted(prometheus_url: str) -> None:
    seen = await observed(prometheus_url, OURS, ("fast-1",))
    assert seen.workload is not None
    assert seen.workload.milliseconds == pytest.approx(90, abs=1)
    assert set(seen.pods) == {"fast-1"}


async def test_a_dot_in_a_pods_name_is_a_dot(prometheus_url: str) -> None:
    assert (await observed(prometheus_url, OURS, ("dot.ted-1",))).workload is not None
    assert (await observed(prometheus_url, OURS, ("fas.-1",))).reason is NoLatency.NO_SERIES


@pytest.mark.parametrize(("percentile", "milliseconds"), [(50, 50), (75, 75), (99, 99)])
async def test_other_percentiles_are_read_as_well(
    prometheus_url: str, percentile: int, milliseconds: float
) -> None:
    seen = await observed(prometheus_url, OURS, ("fast-1",), percentile)
    assert seen.workload is not None
    assert seen.workload.milliseconds == pytest.approx(milliseconds, abs=1)


async def test_native_histograms_are_read_like_classic_ones(prometheus_url: str) -> None:
    seen = await observed(prometheus_url, OURS, ("native-1", "native-2"))
    assert seen.workload is not None
    assert seen.workload.milliseconds == pytest.approx(99, abs=2)
    assert seen.pods["native-2"].milliseconds == pytest.approx(490, abs=2)
    assert seen.workload.requests is not None
    assert seen.workload.requests > 0


@pytest.mark.parametrize(
    ("name", "pod"),
    [
        (ServingPreset.KSERVE, "kserve-1"),
        (ServingPreset.VLLM, "vllm-1"),
        (ServingPreset.MLSERVER, "mlserver-1"),
        (ServingPreset.TORCHSERVE, "torchserve-1"),
        (ServingPreset.TRITON, "triton-1"),
    ],
)
async def test_each_preset_reads_its_servers_own_metric(
    prometheus_url: str, name: ServingPreset, pod: str
) -> None:
    seen = await observed(prometheus_url, preset(name), (pod,))
    assert seen.workload is not None, seen.message
    assert seen.workload.milliseconds == pytest.approx(90, abs=1)
    assert not seen.workload.is_bound
    assert seen.workload.requests is not None
    assert seen.workload.requests > 0
    named = await observed(prometheus_url, preset(name), (pod,), model_name="m")
    assert named.workload is not None, named.message
    assert named.workload.requests == pytest.approx(seen.workload.requests, rel=0.2)
    another = await observed(prometheus_url, preset(name), (pod,), model_name='an"other\\')
    assert another.reason is NoLatency.NO_SERIES


async def test_of_a_server_of_several_models_only_the_one_that_is_named_counts(prometheus_url: str) -> None:
    p90 = {}
    for name in ("quick", "slow", None):
        seen = await observed(prometheus_url, OURS, ("two-1",), model_name=name)
        assert seen.workload is not None, seen.message
        p90[name] = seen.workload.milliseconds
    assert p90["quick"] == pytest.approx(90, abs=1)
    assert p90["slow"] == pytest.approx(490, abs=1)
    assert p90[None] > p90["quick"]


async def test_a_query_of_ones_own_can_name_the_model(prometheus_url: str) -> None:
    buckets = 'rate(inference_request_duration_seconds_bucket{pod=~"$pods",model="$model"}[$window])'
    seen = await observed(prometheus_url, own(buckets=buckets), ("two-1",), model_name="quick")
    assert seen.workload is not None, seen.message
    assert seen.workload.milliseconds == pytest.approx(90, abs=1)


async def test_summaries_of_several_pods_give_a_bound_that_says_so(prometheus_url: str) -> None:
    seen = await observed(prometheus_url, preset(ServingPreset.TRITON), ("triton-1", "triton-2"))
    assert seen.workload is not None
    assert seen.workload.milliseconds == pytest.approx(140)
    assert seen.workload.is_bound
    assert not seen.pods["triton-1"].is_bound


@pytest.mark.parametrize(
    ("metrics", "pods", "percentile", "reason", "told"),
    [
        (OURS, (), 90, NoLatency.NO_PODS, "shop/iris has no placed pods"),
        (OURS, ("unheard-of",), 90, NoLatency.NO_SERIES, "labels namespace and pod"),
        (OURS, ("idle-1",), 90, NoLatency.NO_REQUESTS, "no requests in the last 30 s"),
        (OURS, ("beyond-1",), 90, NoLatency.ABOVE_BUCKETS, "20 ms"),
        (
            preset(ServingPreset.TORCHSERVE),
            ("counter-1",),
            90,
            NoLatency.NO_SERIES,
            "metrics_mode=prometheus",
        ),
        (preset(ServingPreset.TRITON), ("triton-1",), 95, NoLatency.NO_SERIES, "summary_quantiles"),
    ],
)
async def test_where_there_is_no_value_the_reason_and_the_way_out_are_told(
    prometheus_url: str,
    metrics: ServingMetrics,
    pods: Sequence[str],
    percentile: int,
    reason: NoLatency,
    told: str,
) -> None:
    seen = await observed(prometheus_url, metrics, pods, percentile)
    assert seen.workload is None
    assert seen.reason is reason
    assert told in seen.message


async def test_a_percentile_below_the_last_bucket_is_still_told(prometheus_url: str) -> None:
    seen = await observed(prometheus_url, OURS, ("beyond-1",), 50)
    assert seen.workload is not None
    assert seen.workload.milliseconds == pytest.approx(10, abs=0.5)


async def test_an_idle_pod_changes_nothing(prometheus_url: str) -> None:
    seen = await observed(prometheus_url, OURS, ("fast-1", "idle-1"))
    assert seen.workload is not None
    assert seen.workload.milliseconds == pytest.approx(90, abs=1)
    assert set(seen.pods) == {"fast-1"}


@pytest.mark.parametrize("pods", [("kserve-1",), ("native-1",)])
async def test_a_histogram_of_ones_own_is_read_by_its_query(prometheus_url: str, pods: Sequence[str]) -> None:
    name = "request_predict_seconds_bucket" if pods == ("kserve-1",) else "inference_request_duration_seconds"
    metrics = own(buckets=f'rate({name}{{namespace="$namespace",pod=~"$pods"}}[$window])')
    seen = await observed(prometheus_url, metrics, pods)
    assert seen.workload is not None, seen.message
    assert seen.workload.milliseconds == pytest.approx(90, abs=2)
    assert seen.workload.requests is not None


async def test_a_summary_of_ones_own_is_read_in_its_unit(prometheus_url: str) -> None:
    metrics = own(
        quantile='nv_inference_request_summary_us{pod=~"$pods",quantile="0.9"}', unit=LatencyUnit.MICROSECONDS
    )
    seen = await observed(prometheus_url, metrics, ("triton-1",))
    assert seen.workload is not None
    assert seen.workload.milliseconds == pytest.approx(90)
    assert seen.workload.requests is None


async def test_a_query_that_prometheus_refuses_is_told_with_its_words(prometheus_url: str) -> None:
    seen = await observed(prometheus_url, own(buckets="rate(no_bracket[$window]"), ("a",))
    assert seen.reason is NoLatency.UNAVAILABLE
    assert "parse error" in seen.message


async def test_without_prometheus_there_is_a_reason_and_no_value() -> None:
    seen = await observed("http://127.0.0.1:9", OURS, ("a",))
    assert seen.workload is None
    assert seen.reason is NoLatency.UNAVAILABLE
