from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import yaml

from tailwise.cli.main import main
from tests.unit.prediction.builders import node

MODELS = Path(__file__).parents[2] / "models"
MEASURED = {
    entry["name"]: entry["cpuMilliseconds"]
    for entry in json.loads((Path(__file__).parents[3] / "bench/prior/measured.json").read_text())
}


def node_yaml(folder: Path) -> str:
    path = folder / "NODE.yaml"
    hardware = node(2, l3_cache_bytes=32 * 2**20)
    path.write_text(yaml.safe_dump(hardware.model_dump(mode="json", by_alias=True, exclude_none=True)))
    return str(path)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "squeezenet1_1", "vgg16", "efficientnet_b0", "decoder_convtranspose"]
)
def test_the_prior_is_near_what_was_measured_on_the_reference_node(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / f"{name}.onnx"
    model.write_bytes(gzip.decompress((MODELS / f"{name}.onnx.skel.gz").read_bytes()))
    command = ["predict", "--model", str(model), "--node", node_yaml(tmp_path), "--output", "json"]
    assert main(command) == 0
    free = json.loads(capsys.readouterr().out)
    assert free["p50Milliseconds"] == pytest.approx(MEASURED[name], rel=0.25)
    assert free["source"] == "Prior"
    assert main([*command, "--cpu-limit-millicores", "250"]) == 0
    limited = json.loads(capsys.readouterr().out)
    assert limited["p90Milliseconds"] >= free["p90Milliseconds"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--node": "missing.yaml"}, "--node missing.yaml"),
        ({"--model": "missing.onnx"}, "missing.onnx"),
        ({"--model": "missing.json"}, "tailwise inspect"),
    ],
)
def test_what_cannot_be_read_is_named_without_a_traceback(
    change: dict[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--model": "missing.onnx", "--node": node_yaml(tmp_path)} | change
    assert main(["predict", *(word for pair in options.items() for word in pair)]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "option", [("--threads", "0"), ("--cpu-utilisation-percent", "101"), ("--requests-per-second", "-1")]
)
def test_wrong_usage_ends_with_2(option: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["predict", "--model", "m.onnx", "--node", node_yaml(tmp_path), *option])
    assert ended.value.code == 2
