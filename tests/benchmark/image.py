"""The benchmark's image: the example server's Dockerfile over the benchmark's models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.cluster import images
from tests.cluster.paths import cache_directory

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TAG = "localhost/tailwise/bench:dev"


def build(report: Callable[[str], None]) -> Path:
    """The docker-archive, built unless nothing it is made of has changed."""
    context = cache_directory() / "bench-context"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(
        EXAMPLES / "serving", context / "serving", ignore=shutil.ignore_patterns(".*", "__pycache__")
    )
    shutil.copytree(EXAMPLES / "bench" / "models", context / "models")
    return images.build(EXAMPLES / "serving" / "Dockerfile", TAG, context=context, progress=report)
