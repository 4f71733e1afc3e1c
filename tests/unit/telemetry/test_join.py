"""The join document: read as people and operators write it, merged over time, kept within a ConfigMap."""

from __future__ import annotations

import gzip
import json
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.serving_metrics import ServingMetrics, ServingPreset
from tailwise.prediction.prediction import Serving
from tailwise.telemetry.join import (
    DatasetJoin,
    JoinedPod,
    JoinError,
    ServedPods,
    ServingSettings,
    UtilisationSource,
    bounded,
    merged,
    packed,
    read_join,
    unpacked,
)
from tailwise.telemetry.queries import CpuUnit, cadvisor, custom, node_exporter
from tailwise.telemetry.server_metrics import SERVERS
from tests.unit.prediction.builders import node, profile

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def pod(name: str, **fields: Any) -> JoinedPod:
    return JoinedPod(name=name, **{"node": "n1", "since": NOON, **fields})


def served(*pods: JoinedPod, workload: str = "iris", **fields: Any) -> ServedPods:
    return ServedPods(
        **{
            "namespace": "shop",
            "workload": workload,
            "profile": "m",
            "metrics": ServingMetrics(preset=ServingPreset.KSERVE),
            "pods": pods,
            **fields,
        }
    )


def join(*groups: ServedPods, made_at: datetime = NOON, **fields: Any) -> DatasetJoin:
    given = {"profiles": {"m": profile()}, "hardware": (node(),), "made_at": made_at, **fields}
    return DatasetJoin(served=groups, **given)


def names(document: DatasetJoin) -> list[str]:
    return sorted(each.name for group in document.served for each in group.pods)


def test_what_was_packed_is_read_back_and_packed_to_the_same_bytes() -> None:
    document = join(served(pod("a"), pod("b", until=NOON + HOUR)), addresses={"10.0.0.1": "n1"})
    assert unpacked(packed(document), "x") == document
    assert packed(document) == packed(document)


@pytest.mark.parametrize("form", ["json", "gzip", "yaml"])
def test_a_document_by_hand_may_be_json_or_yaml_gzipped_or_not(tmp_path: Path, form: str) -> None:
    text = join(served(pods=(), pods_pattern="iris-.*")).model_dump_json(by_alias=True, exclude_none=True)
    if form == "yaml":  # JSON is YAML; block style is what people write
        import yaml  # noqa: PLC0415

        text = yaml.safe_dump(json.loads(text))
    file = tmp_path / "join"
    file.write_bytes(gzip.compress(text.encode()) if form == "gzip" else text.encode())
    assert read_join(file).served[0].pods_pattern == "iris-.*"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{]", "Invalid JSON"),
        (b"a: [", "neither JSON nor YAML"),
        (b"\x1f\x8bnonsense", "neither JSON nor YAML"),
        (gzip.compress(b"{}")[:-4], "neither JSON nor YAML"),
        (b"[]", "join: Input should be"),
        (b'{"version": 2}', "version"),
        (b'{"served": [{"namespace": "a", "workload": "w"}]}', "served.0.profile"),
        (b'{"utilisation": {"preset": "Custom"}}', "cpuQuery belongs to preset Custom"),
    ],
)
def test_what_is_wrong_with_a_document_is_told_with_file_and_field(
    tmp_path: Path, content: bytes, told: str
) -> None:
    file = tmp_path / "join"
    file.write_bytes(content)
    with pytest.raises(JoinError) as raised:
        read_join(file)
    assert told in str(raised.value)
    assert "docs/dataset.md" in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JoinError, match="No such file"):
        read_join(tmp_path / "join")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"pods": ()}, "either pods or podsPattern"),
        ({"pods": (pod("a"),), "pods_pattern": "a"}, "either pods or podsPattern"),
        ({"metrics": ServingMetrics(preset=ServingPreset.CUSTOM)}, "metrics.queries belongs"),
        ({"profile": "other"}, "profiles has no 'other'"),
    ],
)
def test_a_group_that_contradicts_itself_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        join(served(pod("a"), **fields) if "pods" not in fields else served(**fields))


@pytest.mark.parametrize(
    "queries",
    [
        node_exporter(60, 'job="node"'),
        cadvisor(60),
        custom(cpu="my_cpu", cpu_unit=CpuUnit.CORES, frequency="my_clock", window_seconds=60),
    ],
)
def test_a_dataset_reads_utilisation_as_the_operator_does_in_windows_of_its_own(queries: Any) -> None:
    again = UtilisationSource.of(queries).queries(300)
    assert again.window_seconds == 300
    assert (again.name, again.cpu_unit, again.selector) == (queries.name, queries.cpu_unit, queries.selector)
    assert again.cpu.value.replace("[300s]", "[60s]") == queries.cpu.value
    assert (again.frequency is None) == (queries.frequency is None)


def test_settings_of_a_pod_are_those_that_predictions_take() -> None:
    serving = Serving(500, 2, 8, 4, 12.5, 250, 0.75)
    assert ServingSettings.of(serving).serving(8) == serving


@pytest.mark.parametrize(
    ("begin", "end", "lived"),
    [
        (NOON, NOON + HOUR, True),
        (NOON - timedelta(seconds=1), NOON + HOUR, False),
        (NOON + HOUR, NOON + 2 * HOUR, True),
        (NOON + HOUR, NOON + 3 * HOUR, False),
    ],
)
def test_a_pod_counts_in_windows_that_it_stood_through(begin: datetime, end: datetime, lived: bool) -> None:
    assert pod("a", until=NOON + 2 * HOUR).lived(begin.timestamp(), end.timestamp()) is lived


def test_pods_that_are_gone_are_kept_from_the_document_before_until_they_are_too_old() -> None:
    before = join(
        served(pod("stays"), pod("left"), pod("old", until=NOON - 3 * HOUR)),
        served(pod("other"), workload="rose"),
    )
    now = join(served(pod("stays"), pod("new", since=NOON + HOUR)), made_at=NOON + HOUR)
    both = merged(now, before, oldest=NOON - HOUR)
    assert names(both) == ["left", "new", "other", "stays"]
    left = next(each for group in both.served for each in group.pods if each.name == "left")
    assert left.until == NOON  # it was seen then for the last time


def test_a_name_that_came_again_is_two_pods() -> None:
    first = pod("web-0", until=NOON + HOUR)
    now = join(served(pod("web-0", since=NOON + HOUR)), made_at=NOON + 2 * HOUR)
    both = merged(now, join(served(first)), oldest=NOON)
    assert names(both) == ["web-0", "web-0"]


def test_a_node_that_is_gone_is_kept_as_long_as_a_pod_is_told_of_that_stood_there() -> None:
    gone = node().model_copy(update={"node": "gone"})
    unused = node().model_copy(update={"node": "unused"})
    before = join(served(pod("a", node="gone")), hardware=(node(), gone, unused))
    both = merged(join(made_at=NOON + HOUR), before, oldest=NOON - HOUR)
    assert [each.node for each in both.hardware] == ["n1", "gone"]
    assert "m" in both.profiles


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(0, 4000))
def test_a_document_that_is_too_large_loses_the_pods_that_ended_longest_ago(
    ended: list[int], most_bytes: int
) -> None:
    pods = [pod(f"pod-{place}", until=NOON + hours * HOUR) for place, hours in enumerate(ended)]
    document = join(served(pod("alive"), *pods))
    kept, left_out = bounded(document, most_bytes)
    assert len(names(document)) - len(names(kept)) == left_out
    assert "alive" in names(kept)
    if left_out < len(pods):
        assert len(packed(kept)) <= most_bytes
    last = {each.name: each.until for group in kept.served for each in group.pods if each.until}
    gone = [each.until for each in pods if each.name not in last]
    assert not gone or not last or max(until for until in gone if until) < min(last.values())
    if len(packed(document)) <= most_bytes:
        assert not left_out


DOCUMENTATION = (Path(__file__).parents[3] / "docs" / "dataset.md").read_text(encoding="utf-8")


def test_the_document_that_the_documentation_shows_is_one() -> None:
    begin = DOCUMENTATION.index("    utilisation:\n")
    shown = DOCUMENTATION[begin : DOCUMENTATION.index("\n\n`serving` is", begin)]
    models, nodes = (each.model_dump_json(by_alias=True) for each in (profile(), node()))
    filled = shown.replace("{…}", models, 1).replace("{…}", nodes, 1)
    document = unpacked(textwrap.dedent(filled).encode(), "docs/dataset.md")
    first, second = document.served
    assert (first.pods_pattern, first.serving.requests_per_second) == ("resnet-.*", 50)
    assert second.pods[0].until is not None
    assert document.utilisation.queries(300).selector == 'job="node"'


@pytest.mark.parametrize("preset", SERVERS)
def test_the_documentation_names_the_series_of_each_preset(preset: ServingPreset) -> None:
    (line,) = [each for each in DOCUMENTATION.splitlines() if each.startswith(f"| `{preset}` |")]
    assert f"`{SERVERS[preset].metric}`" in line
