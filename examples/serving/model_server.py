"""Serves one ONNX model by the Open Inference Protocol v2: ``python -m model_server``.

Settings come from the environment: MODEL_PATH or MODEL_URL (and MODEL_SHA256), MODEL_NAME, PORT (8080), and
THREADS or CPU_LIMIT_MILLICORES where the container's own limit should not count. The port opens when the
model is loaded and has run once, so a readiness probe on /v2/health/ready says what it means.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings

import cpu_limit
import model_file
from kserve import ModelServer
from kserve.model_server import app
from onnx_model import OnnxModel
from request_metrics import RequestMetrics
from tensors import BinaryDataPlane

_GRACE_SECONDS = 20


def main() -> None:
    """Load, warm up, serve until SIGTERM, and finish the requests under way."""
    print(f"imported for {time.process_time():.1f} s of CPU", flush=True)
    # KServe's use of FastAPI's older response class is KServe's to change.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    try:
        path = model_file.locate(os.environ)
        threads = cpu_limit.threads()
        port = int(os.environ.get("PORT", "8080"))
    except (model_file.ModelFileError, ValueError) as error:
        sys.exit(f"model_server: {error}")
    model = OnnxModel(model_file.name(os.environ), path, threads)
    model.load()
    server = ModelServer(
        http_port=port, enable_grpc=False, enable_latency_logging=False, grace_period=_GRACE_SECONDS
    )
    server.dataplane = BinaryDataPlane(model_registry=server.registered_models)
    app.add_middleware(RequestMetrics)
    # A line or two a request would be a good part of a small model's work.
    for name in ("uvicorn.access", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start([model])


if __name__ == "__main__":
    main()
