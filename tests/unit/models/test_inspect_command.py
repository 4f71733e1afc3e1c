"""``tailwise inspect`` as users and programs call it: a process, its streams and its exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from tests.models import rehydrate
from tests.models.store import Store, serving
from tests.unit.models.graphs import model, node, zeros


def tailwise(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; 120 columns wide unless ``environment`` says otherwise."""
    return subprocess.run(
        [sys.executable, "-m", "tailwise", "inspect", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "COLUMNS": "120", **environment},
    )


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rehydrate.write("decoder_convtranspose", tmp_path_factory.mktemp("m") / "decoder.onnx")


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph with an operator nobody knows, whose name tries to paint the terminal red."""
    nodes = [
        node("Unheard", ["x"], ["h"], name="odd[red]\x1b[31m", domain="com.example"),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    made = model(nodes, {"x": (1, 4)}, {"w": zeros(4, 2)})
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    path = tmp_path_factory.mktemp("m") / "partial.onnx"
    onnx.save(made, path)
    return path


def test_programs_get_the_profile_as_json_or_yaml(decoder: Path) -> None:
    as_json, as_yaml = (tailwise(str(decoder), "--output", kind) for kind in ("json", "yaml"))
    assert (as_json.returncode, as_json.stderr) == (0, "")
    printed = json.loads(as_json.stdout)
    assert printed == yaml.safe_load(as_yaml.stdout)
    assert printed["parameters"] == 36_739
    assert set(printed["flopsByKind"]) == {
        "convolution", "matmul", "activation", "pooling", "normalization", "other",
    }  # fmt: skip
    assert printed["flops"] == sum(printed["flopsByKind"].values())
    assert printed["flops"] == sum(kind["flops"] for kind in printed["kinds"].values())
    assert printed["operators"]["ConvTranspose"] == 2
    promised = {"parameterBytes", "activationBytes", "fileBytes", "bytesRead", "unresolved"}
    added = {"movedWeightBytes", "movedActivationBytes", "arithmeticIntensityMilliflopsPerByte", "heaviest"}
    assert promised | added <= set(printed)


def test_programs_may_ask_for_every_operator(decoder: Path) -> None:
    run = tailwise(str(decoder), "--operators", "all", "--output", "json")
    printed = json.loads(run.stdout)
    assert sum(cost["flops"] for cost in printed["heaviest"]) == printed["flops"]
    assert sum(cost["weightBytes"] for cost in printed["heaviest"]) == printed["movedWeightBytes"]
    moved = sum(cost["activationBytes"] for cost in printed["heaviest"])
    assert moved == printed["movedActivationBytes"]
    two = json.loads(tailwise(str(decoder), "--operators", "2", "--output", "json").stdout)
    assert two["heaviest"] == printed["heaviest"][:2]


def test_people_get_a_table_with_bars_and_the_heaviest_operators(decoder: Path) -> None:
    run = tailwise(str(decoder))
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert lines[0].strip() == str(decoder)
    convolution = next(line for line in lines if line.strip().startswith("convolution"))
    assert "99.5%" in convolution
    assert "\N{FULL BLOCK}" * 15 in convolution
    assert any("ConvTranspose" in line and "%" in line for line in lines)
    assert "36,739" in run.stdout


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_a_table_is_no_wider_than_the_terminal(decoder: Path, columns: str) -> None:
    shown = tailwise(str(decoder), COLUMNS=columns).stdout.splitlines()
    assert max(len(line.rstrip()) for line in shown[1:]) <= int(columns)


def test_a_terminal_without_unicode_gets_bars_too(decoder: Path) -> None:
    run = tailwise(str(decoder), PYTHONIOENCODING="ascii")
    assert run.returncode == 0
    assert "#" * 15 in run.stdout


def test_a_profile_that_is_partial_is_printed_and_exits_with_three(partial: Path) -> None:
    run = tailwise(str(partial), "--output", "json")
    assert run.returncode == 3
    printed = json.loads(run.stdout)
    assert printed["completeness"] == "Partial"
    assert printed["countedPercent"] == 50
    assert printed["unresolved"][0]["operator"] == "com.example.Unheard"
    assert "1 operators are not counted" in run.stderr
    assert printed["flops"] == 2 * 4 * 2


def test_names_in_a_file_cannot_write_to_the_terminal(partial: Path) -> None:
    run = tailwise(str(partial))
    assert run.returncode == 3
    assert "\x1b" not in run.stdout
    assert "odd[red]" in run.stdout
    assert "Not counted: 1 (50 % of the operators are)" in run.stdout


BAD = [
    (["/no/such/model.onnx"], "ModelNotFound"),
    (["http://127.0.0.1:1/model.onnx"], "ModelUnreachable"),
    (["ftp://example.org/model.onnx"], "InvalidUrl"),
]


@pytest.mark.parametrize(("words", "reason"), BAD)
def test_what_cannot_be_read_exits_with_two_and_a_sentence(words: list[str], reason: str) -> None:
    run = tailwise(*words)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("tailwise inspect: ")
    assert reason in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_that_is_no_model_exits_with_two(tmp_path: Path) -> None:
    path = tmp_path / "page.onnx"
    path.write_text("<html>not found</html>")
    run = tailwise(str(path))
    assert run.returncode == 2
    assert "NotAModel" in run.stderr


def test_free_axes_exit_with_two_and_name_what_to_give(tmp_path: Path) -> None:
    made = model([node("MatMul", ["x", "w"], ["y"])], {"x": ("batch", "sequence", 8)}, {"w": zeros(8, 4)})
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    run = tailwise(str(path))
    assert run.returncode == 2
    assert "'x' axis 1 (sequence)" in run.stderr
    assert "--input-shape" in run.stderr
    assert "x: [1, 128, 8]" in run.stderr
    answer = tailwise(str(path), "--input-shape", "sequence=10", "--batch-size", "3", "--output", "json")
    assert json.loads(answer.stdout)["flops"] == 2 * 3 * 10 * 8 * 4


@pytest.mark.parametrize(
    "words", [["--batch-size", "0"], ["--input-shape", "x"], ["--allow-address", "y"], ["--output", "xml"]]
)
def test_wrong_options_exit_with_two(words: list[str]) -> None:
    run = tailwise("m.onnx", *words)
    assert run.returncode == 2
    assert words[0] in run.stderr


@pytest.fixture
def slow() -> Iterator[Store]:
    files = {"/m.onnx": rehydrate.rehydrated("decoder_convtranspose").SerializeToString()}
    with serving(Store(files=files, delay_seconds=3.0)) as store:
        yield store


def test_a_long_read_says_that_it_goes_on_and_programs_are_not_disturbed(slow: Store) -> None:
    run = tailwise(f"{slow.url}/m.onnx", "--output", "json")
    assert run.returncode == 0
    assert re.search(rf"reading {re.escape(slow.url)}/m.onnx \([0-9]+ s\)", run.stderr)
    assert json.loads(run.stdout)["parameters"] == 36_739


def test_a_terminal_sees_one_line_of_progress_that_goes(slow: Store) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tailwise", "inspect", f"{slow.url}/m.onnx", "--output", "json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:
        pass  # A terminal ends so when its last writer goes.
    finally:
        os.close(ours)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(printed)["parameters"] == 36_739
    assert b"\rreading http://" in shown
    assert shown.endswith(b"\r\x1b[K")
    assert b"\n" not in shown


def test_integers_of_a_model_are_named_as_its_precision(tmp_path: Path) -> None:
    made = model(
        [node("MatMulInteger", ["x", "w"], ["y"])],
        {"x": (1, 4)},
        {"w": zeros(4, 2, dtype=np.uint8)},
        types={"x": TensorProto.UINT8, "y": TensorProto.INT32},
    )
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    assert ", uint8, 8 B" in tailwise(str(path)).stdout
