"""The example server with MobileNetV2, one for all tests of it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.locks import Progress
from tests.serving import example
from tests.serving.example import EXAMPLES, SERVING, Server


@pytest.fixture(scope="session")
def serving_python(progress: Progress) -> Path:
    """Python with the packages of examples/serving/requirements.txt."""
    return example.python(progress)


@pytest.fixture(scope="session")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runnable MobileNetV2, made of its skeleton as the image's build makes it."""
    directory = tmp_path_factory.mktemp("models")
    skeleton = EXAMPLES / "models" / "mobilenet_v2.onnx.skel.gz"
    subprocess.run([sys.executable, SERVING / "make_model.py", skeleton, directory], check=True, timeout=120)
    return directory / "mobilenet_v2.onnx"


@pytest.fixture(scope="session")
def server(
    serving_python: Path, mobilenet: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of MobileNetV2 with one thread."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    settings = {"MODEL_PATH": str(mobilenet), "CPU_LIMIT_MILLICORES": "1000"}
    with example.running(serving_python, log, settings) as started:
        yield started
