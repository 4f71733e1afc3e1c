import gzip
import hashlib
import http.server
import itertools
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.serving.example import EXAMPLES, SERVING, module

# ---- threads


@pytest.mark.parametrize(
    ("environment", "files", "cores"),
    [
        ({"THREADS": "3"}, {"cpu.max": "50000 100000"}, 3),
        ({"CPU_LIMIT_MILLICORES": "150"}, {"cpu.max": "max 100000"}, 1),
        ({}, {"cpu.max": "60000 100000"}, 1),
        ({}, {"cpu.max": "100000 100000"}, 1),
        ({}, {"cpu/cpu.cfs_quota_us": "15000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({}, {"cpu,cpuacct/cpu.cfs_quota_us": "5000", "cpu,cpuacct/cpu.cfs_period_us": "10000"}, 1),
    ],
)
def test_threads_are_the_cpu_limit_rounded_up(
    tmp_path: Path, environment: dict[str, str], files: dict[str, str], cores: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert module("cpu_limit").threads(environment, tmp_path) == cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "250000 100000"}, 2.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 1.5),
        ({}, None),
    ],
)
def test_the_quota_is_read_from_either_kind_of_cgroup(
    tmp_path: Path, files: dict[str, str], cores: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert module("cpu_limit").quota_cores(tmp_path) == cores


def test_without_a_limit_threads_are_the_cpus_this_process_may_use(tmp_path: Path) -> None:
    assert module("cpu_limit").threads({}, tmp_path) >= 1


@pytest.mark.parametrize("name", ["THREADS", "CPU_LIMIT_MILLICORES"])
@pytest.mark.parametrize("text", ["0", "-1", "half", "0.5", ""])
def test_a_limit_that_is_no_number_is_refused_by_its_name(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        module("cpu_limit").threads({name: text}, tmp_path)


# ---- model file


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of a directory."""
    directory = tmp_path / "web"
    directory.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(directory))

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", directory
    server.shutdown()
    server.server_close()


def test_a_model_is_downloaded_and_its_digest_checked(web: tuple[str, Path]) -> None:
    url, directory = web
    (directory / "resnet50.onnx").write_bytes(b"graph")
    digest = hashlib.sha256(b"graph").hexdigest()
    environment = {"MODEL_URL": f"{url}/resnet50.onnx", "MODEL_SHA256": digest}
    found = module("model_file").locate(environment)
    assert found.read_bytes() == b"graph"
    assert module("model_file").name(environment) == "resnet50"
    with pytest.raises(module("model_file").ModelFileError, match=f"the model's digest is {digest}"):
        module("model_file").locate({**environment, "MODEL_SHA256": "0" * 64})


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "set either"),
        ({"MODEL_PATH": "/a.onnx", "MODEL_URL": "file:///a.onnx"}, "set either"),
        ({"MODEL_URL": "file:///nowhere.onnx"}, "MODEL_URL: there is no file /nowhere.onnx"),
        ({"MODEL_URL": "ftp://host/a.onnx"}, "only http, https and file"),
        ({"MODEL_URL": "{web}/absent.onnx"}, "HTTP 404"),
    ],
)
def test_without_a_model_the_way_out_is_told(
    web: tuple[str, Path], environment: dict[str, str], told: str
) -> None:
    filled = {name: value.replace("{web}", web[0]) for name, value in environment.items()}
    with pytest.raises(module("model_file").ModelFileError, match=told):
        module("model_file").locate(filled)


# ---- percentiles and buckets


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_values_do_not_exceed(
    values: list[int], percent: int
) -> None:
    found = module("loadgen_client").nearest_rank(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_buckets_are_at_most_ten_per_cent_wide_from_a_millisecond_to_ten_seconds() -> None:
    bounds = module("request_metrics").BUCKETS_SECONDS
    assert bounds[0] <= 0.001
    assert bounds[-1] >= 10
    assert all(upper / lower <= 1.1 for lower, upper in itertools.pairwise(bounds))


# ---- models


@pytest.mark.parametrize("skeleton", sorted(path.name for path in (EXAMPLES / "models").glob("*.skel.gz")))
def test_a_skeleton_becomes_the_same_complete_model_each_time(skeleton: str, tmp_path: Path) -> None:
    path = EXAMPLES / "models" / skeleton
    first, second = (module("make_model").make(path, tmp_path / name) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    model = onnx.load(str(first))
    onnx.checker.check_model(model)
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert all(np.isfinite(weight).all() for weight in weights if weight.dtype.kind == "f")
    graph = onnx.load_from_string(gzip.decompress(path.read_bytes())).graph
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in graph.node]


def test_models_of_the_examples_are_those_that_predictions_are_tested_on() -> None:
    for path in (EXAMPLES / "models").glob("*.skel.gz"):
        assert path.read_bytes() == (Path(__file__).parents[1] / "models" / path.name).read_bytes()


# ---- packages


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-models.txt"])
def test_packages_are_pinned_by_digest_and_name_no_registry(name: str) -> None:
    text = (SERVING / name).read_text()
    assert not re.search(r"https?://|index-url|find-links", text)
    pins = re.findall(r"^[a-z0-9._\[\]-]+==", text, re.MULTILINE | re.IGNORECASE)
    assert pins
    assert text.count("--hash=sha256:") >= len(pins)
