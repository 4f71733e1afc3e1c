import json
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import example
from tests.serving.example import Server, module, run_client

MODEL = "mobilenet_v2"
DURATION = "inference_request_duration_seconds"


def image(batch_size: int, seed: int = 0) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.random.default_rng(seed).standard_normal((batch_size, 3, 224, 224), dtype=np.float32)


def directly(model: Path, pixels: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"input": pixels})
    return np.asarray(answer)


def connect(server: Server) -> Any:
    return module("inference_client").Connection(server.url, MODEL, 60)


def buckets(server: Server) -> dict[float, float]:
    """Counts at or below each bound, in seconds."""
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(server.get("/metrics"))
        for sample in family.samples
        if sample.name == f"{DURATION}_bucket" and sample.labels["model"] == MODEL
    }


def post(server: Server, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    request = urllib.request.Request(  # noqa: S310
        f"{server.url}/v2/models/{MODEL}/infer", body, headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_server_answers_what_onnx_runtime_answers(
    server: Server, mobilenet: Path, batch_size: int
) -> None:
    pixels = image(batch_size)
    with connect(server) as connection:
        outputs = connection.infer_arrays({"input": pixels})
    (answer,) = outputs.values()
    assert answer.shape == (batch_size, 1000)
    np.testing.assert_allclose(answer, directly(mobilenet, pixels), rtol=1e-4, atol=1e-4)


def test_tensors_as_json_are_answered_the_same(server: Server, mobilenet: Path) -> None:
    pixels = image(1, seed=1)
    tensor = {"name": "input", "shape": [1, 3, 224, 224], "datatype": "FP32", "data": pixels.ravel().tolist()}
    status, answer = post(
        server, json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"}
    )
    assert status == 200
    (output,) = answer["outputs"]
    np.testing.assert_allclose(
        np.reshape(output["data"], output["shape"]), directly(mobilenet, pixels), rtol=1e-4, atol=1e-4
    )


def test_the_models_metadata_tell_inputs_and_outputs(server: Server) -> None:
    metadata = json.loads(server.get(f"/v2/models/{MODEL}"))
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 224, 224]}]
    assert [output["shape"] for output in metadata["outputs"]] == [[-1, 1000]]


def test_the_histogram_counts_each_answered_request_and_no_refused_one(server: Server) -> None:
    infinity = float("inf")
    with connect(server) as connection:
        connection.infer_arrays({"input": image(1)})
        before = buckets(server)[infinity]
        for _ in range(5):
            connection.infer_arrays({"input": image(1)})
        with pytest.raises(module("inference_client").InferenceError, match="HTTP 400"):
            connection.infer_arrays({"no such input": image(1)})
    assert buckets(server)[infinity] == before + 5


def binary(size: int, shape: list[int], length: int | None = None) -> tuple[bytes, dict[str, str]]:
    tensor = {
        "name": "input",
        "shape": shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": size if length is None else length},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return head + bytes(size), headers


@pytest.mark.parametrize(
    ("body", "headers", "told"),
    [
        (*binary(400, [1, 3, 224, 224]), "do not fill"),
        (*binary(400, [1, 100], length=800), "add up to 800 bytes, but 400 came"),
        (*binary(400, [1, 100]), "input"),
        (
            b"no json",
            {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "7"},
            "head",
        ),
        (b"{}", {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "2"}, "head"),
        (b"{}", {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "x"}, "head"),
    ],
)
def test_a_request_that_cannot_be_is_refused_and_the_server_lives_on(
    server: Server, body: bytes, headers: dict[str, str], told: str
) -> None:
    status, answer = post(server, body, headers)
    assert status == 400
    assert told in answer["error"]
    assert json.loads(server.get("/v2/health/ready")) == {"ready": True}


def test_threads_follow_the_cpu_limit(server: Server) -> None:
    assert "1 threads" in server.log.read_text()


def test_loadgen_finds_the_run_valid_and_its_p90_agrees_with_the_histogram(
    server: Server, serving_python: Path, tmp_path: Path
) -> None:
    before = buckets(server)
    file = tmp_path / "latencies.tsv"
    done = run_client(
        serving_python,
        *("--url", server.url, "--model", MODEL, "--queries", "64", "--warm-up", "0"),
        *("--latencies", str(file)),
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["valid"] is True
    assert result["queries"] == 64
    assert result["failures"] == []
    latencies = sorted(int(row.split("\t")[2]) / 1e6 for row in file.read_text().splitlines())
    assert len(latencies) == 64
    assert result["p90Milliseconds"] == pytest.approx(latencies[57], abs=0.001)  # rank 58 of 64
    assert result["loadgenP90Milliseconds"] == pytest.approx(result["p90Milliseconds"], rel=0.1)

    seen = {bound: count - before.get(bound, 0) for bound, count in buckets(server).items()}
    assert seen[float("inf")] == 64
    upper = min(bound for bound, count in seen.items() if count >= 58) * 1000
    # Each request takes the server no longer than its client, and most of the time is the server's.
    assert upper / 1.1 <= result["p90Milliseconds"]
    assert result["p50Milliseconds"] / 2 <= upper


def test_loadgen_against_nobody_ends_with_an_error_and_no_result(serving_python: Path) -> None:
    done = run_client(
        serving_python, "--url", "127.0.0.1:9", "--model", MODEL, "--queries", "4", "--wait-seconds", "0"
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "http://127.0.0.1:9" in done.stderr


def test_on_sigterm_requests_under_way_are_answered_and_the_server_ends(
    serving_python: Path, mobilenet: Path, tmp_path: Path
) -> None:
    settings = {"MODEL_URL": mobilenet.as_uri(), "MODEL_NAME": MODEL, "THREADS": "1"}
    answers: list[Any] = []
    with example.running(serving_python, tmp_path / "server.log", settings) as server:

        def ask() -> None:
            with connect(server) as connection:
                answers.append(connection.infer_arrays({"input": image(48)}))

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 60
        while "inference_requests_in_progress 1.0" not in server.get("/metrics"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        asking.join(60)
        server.process.wait(60)
    assert [answer.popitem()[1].shape for answer in answers] == [(48, 1000)]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "set either MODEL_PATH to an ONNX file or MODEL_URL"),
        ({"MODEL_PATH": "/nowhere.onnx"}, "MODEL_PATH: there is no file /nowhere.onnx"),
    ],
)
def test_a_server_without_a_model_says_what_to_set_and_ends(
    serving_python: Path, tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    with (
        pytest.raises(AssertionError, match=told),
        example.running(serving_python, tmp_path / "server.log", settings),
    ):
        pass
