"""The Tiltfile asks Tilt for what is there: paths, images, chart values, resources, commands."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import starlark
import yaml

from tailwise.api.labels import RETRAIN_ANNOTATION
from tailwise.cli.main import SUBCOMMANDS
from tests.unit.tilt.fakes import Recorder, evaluate

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "tailwise"


@pytest.fixture(scope="module")
def asked() -> Recorder:
    return evaluate(ROOT / "Tiltfile")


def settings_of(asked: Recorder) -> dict[str, str]:
    """The chart's values that are set, by their dotted path."""
    (chart,) = asked.of("helm")
    return dict(setting.split("=", 1) for setting in chart["set"])


def applied(asked: Recorder) -> list[Mapping[str, Any]]:
    """Objects of all files and blobs that are applied, the chart's aside."""
    found: list[Mapping[str, Any]] = []
    for call in asked.of("k8s_yaml"):
        for source in [call["yaml"]] if isinstance(call["yaml"], str) else call["yaml"]:
            if source.startswith("blob:helm "):
                continue
            text = source.removeprefix("blob:") if source.startswith("blob:") else (ROOT / source).read_text()
            found += [document for document in yaml.safe_load_all(text) if document]
    return found


def test_every_path_exists(asked: Recorder) -> None:
    paths = [call["pathToChartDir"] for call in asked.of("helm")]
    paths += [call["local_path"] for call in asked.of("sync")]
    paths += [path for call in asked.of("fall_back_on") for path in call["files"]]
    for build in (*asked.of("docker_build"), *asked.of("docker_build_with_restart")):
        paths += [build["context"], build["dockerfile"]]
        paths += [f"{build['context']}/{path}" for path in build["only"]]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert applied(asked), "every applied file can be read"


def test_what_a_dockerfile_copies_is_in_its_build(asked: Recorder) -> None:
    for build in (*asked.of("docker_build"), *asked.of("docker_build_with_restart")):
        text = (ROOT / build["dockerfile"]).read_text()
        copied = [
            word
            for line in re.findall(r"(?m)^COPY (?!.*--from)(.*)$", text)
            for word in [w for w in line.split() if not w.startswith("--")][:-1]
        ]
        assert copied
        sent = tuple(build["only"])
        assert [path for path in copied if not path.startswith(sent)] == [], build["ref"]


def test_the_build_stage_exists_and_can_be_written_to(asked: Recorder) -> None:
    (build,) = asked.of("docker_build_with_restart")
    text = (ROOT / build["dockerfile"]).read_text()
    stage = text.split(f"AS {build['target']}\n")[1].split("\nFROM ")[0]
    (sync,) = asked.of("sync")
    assert f"operator/tailwise {sync['remote_path']}" in stage
    assert f"PYTHONPATH={Path(sync['remote_path']).parent}" in stage
    assert Path(build["restart_file"]).parent == Path(sync["remote_path"]).parent


def test_every_chart_value_that_is_set_exists(asked: Recorder) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    for path in settings_of(asked):
        value, part = values, schema
        for name in path.split("."):
            assert name in value, path
            assert name in part["properties"], path
            value, part = value[name], part["properties"][name]


def test_the_charts_image_is_the_one_that_is_built(asked: Recorder) -> None:
    (build,) = asked.of("docker_build_with_restart")
    assert settings_of(asked)["image.repository"] == build["ref"]
    images = {
        container["image"].rpartition(":")[0]
        for document in applied(asked)
        for container in document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ())
    }
    built = {call["ref"] for call in asked.of("docker_build")}
    assert built <= images
    assert {image for image in images if image.startswith("localhost/")} == built


def test_live_updates_may_write_into_operator_and_agent(asked: Recorder) -> None:
    settings = settings_of(asked)
    assert settings["operator.readOnlyRootFilesystem"] == "false"
    assert settings["agent.readOnlyRootFilesystem"] == "false"


def test_resources_are_operator_agent_prometheus_and_the_example(asked: Recorder) -> None:
    (chart,) = asked.of("helm")
    workloads = {f"{chart['name']}-operator", f"{chart['name']}-agent"}
    workloads |= {
        document["metadata"]["name"]
        for document in applied(asked)
        if document["kind"] in ("Deployment", "InferenceWorkload")
    }
    named = {call["workload"] for call in asked.of("k8s_resource") if "workload" in call}
    assert named == workloads
    created = {call["new_name"] for call in asked.of("k8s_resource") if "new_name" in call}
    depended_on = {name for call in asked.of("k8s_resource") for name in call.get("resource_deps", ())}
    assert depended_on <= named | created
    linked = {call["workload"] for call in asked.of("k8s_resource") if call.get("links")}
    assert {f"{chart['name']}-operator", "prometheus"} <= linked


def test_grouped_objects_are_among_those_applied(asked: Recorder) -> None:
    crds = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")]
    known = {
        f"{document['metadata']['name']}:{document['kind'].lower()}" for document in (*crds, *applied(asked))
    }
    grouped = {name for call in asked.of("k8s_resource") for name in call.get("objects", ())}
    assert grouped <= known


def test_prometheus_is_where_the_operator_looks_for_it(asked: Recorder) -> None:
    (service,) = (
        document
        for document in applied(asked)
        if document["kind"] == "Service" and document["metadata"]["name"] == "prometheus"
    )
    port = service["spec"]["ports"][0]["port"]
    assert settings_of(asked)["prometheus.url"] == f"http://prometheus.default.svc.cluster.local:{port}"


def test_buttons_run_commands_that_exist_on_resources_that_exist(asked: Recorder) -> None:
    buttons = {call["name"]: call for call in asked.of("cmd_button")}
    assert set(buttons) == {"explain", "retrain"}
    resources = {call.get("new_name", call.get("workload")) for call in asked.of("k8s_resource")}
    assert {button["resource"] for button in buttons.values()} <= resources
    for button in buttons.values():
        assert subprocess.run(["sh", "-n", "-c", button["argv"][-1]], check=False, timeout=10).returncode == 0
        for each in button["inputs"]:
            assert f"${each['name']}" in button["argv"][-1]
    word = re.search(r"tailwise (\w+)", buttons["explain"]["argv"][-1])
    assert word is not None
    assert word[1] in {subcommand.name for subcommand in SUBCOMMANDS}
    assert f"{RETRAIN_ANNOTATION}=" in buttons["retrain"]["argv"][-1]


def test_only_clusters_that_the_user_names_are_allowed_beside_local_ones(asked: Recorder) -> None:
    assert asked.of("allow_k8s_contexts") == [{"contexts": []}]
    other = evaluate(ROOT / "Tiltfile", {"allow-context": ["mine"], "allow-network": ["192.0.2.0/24"]})
    assert other.of("allow_k8s_contexts") == [{"contexts": ["mine"]}]
    assert settings_of(other)["models.allowedNetworks"] == "{192.0.2.0/24}"


@pytest.mark.parametrize(
    "line",
    [
        "k8s_resource('a', port_forward=1)",
        "docker_biuld('a', '.')",
        "load('ext://nothing', 'x')",
        "f(",
        "link()",
    ],
)
def test_a_mistake_in_a_tiltfile_is_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "Tiltfile"
    path.write_text((ROOT / "Tiltfile").read_text() + f"\n{line}\n")
    with pytest.raises((starlark.StarlarkError, TypeError, KeyError)):
        evaluate(path)
