"""Every counter on every model, several times, each time in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from bench.profiles.counters import COUNTERS, Shapes
from tests.models import rehydrate

_ROOT = Path(__file__).parents[2]
_LONGEST_SECONDS = 300.0

# FLOPs of what the reference counted and the exported graph has not: an auxiliary classifier that only
# training uses (3 x 3 convolution 1024 -> 256, 1 x 1 -> 21, on 65 x 65), and a pooler that is not returned.
NOT_IN_THE_GRAPH = {
    "fcn_resnet50": 2 * 65 * 65 * (9 * 1024 * 256 + 256 * 21),
    "bert_base_seq128": 2 * 768 * 768,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One counter on one model: medians of its runs. ``flops`` is None where it failed.

    ``as_exported_flops`` is what it says of a file whose batch axis is free, without being told its size.
    """

    model: str
    counter: str
    file_bytes: int
    expected_flops: int
    flops: int | None
    error_percent: float | None
    seconds: float
    peak_mebibytes: float
    imported_mebibytes: float
    failure: str
    free_batch: bool
    as_exported_flops: int | None


def compare(
    models: list[str] | None, counters: list[str] | None, runs: int, write: Callable[[str], None]
) -> list[Comparison]:
    """Measure and print a line for each; models are written to a temporary directory one at a time."""
    write(f"{'model':<24}{'counter':<16}{'GFLOP':>12}{'error':>9}{'seconds':>9}{'peak MiB':>10}")
    rows = []
    for name in models or rehydrate.names():
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            exported = rehydrate.write(name, place / "exported.onnx")
            shapes, free_batch = _shapes(name, exported)
            fixed = _with_shapes(exported, shapes, place) if free_batch else exported
            for counter in counters or COUNTERS:
                row = _compared(name, counter, fixed, exported, shapes, free_batch, runs)
                rows.append(row)
                write(_line(row))
    return rows


def _shapes(name: str, path: Path) -> tuple[Shapes, bool]:
    """The inputs' shapes as the reference has them, and whether the file leaves the batch open."""
    entry = rehydrate.reference()[name]
    graph = onnx.load(path, load_external_data=False).graph
    free = any(info.type.tensor_type.shape.dim[0].dim_param for info in graph.input)
    if "inputs" in entry:
        return {key: tuple(shape) for key, shape in entry["inputs"].items()}, free
    axes = len(graph.input[0].type.tensor_type.shape.dim)
    return {graph.input[0].name: tuple(entry["input"])[-axes:]}, free


def _with_shapes(path: Path, shapes: Shapes, place: Path) -> Path:
    """A copy with the sizes written into it, for counters that cannot be told them."""
    model = onnx.load(path)
    for info in model.graph.input:
        for dim, size in zip(info.type.tensor_type.shape.dim, shapes[info.name], strict=True):
            dim.dim_value = size
    fixed = place / "fixed.onnx"
    onnx.save(model, fixed)
    return fixed


def _compared(
    name: str, counter: str, fixed: Path, exported: Path, shapes: Shapes, free_batch: bool, runs: int
) -> Comparison:
    expected = rehydrate.reference()[name]["convolutionAndMatmulFlops"] - NOT_IN_THE_GRAPH.get(name, 0)
    # Ours reads the file as it is; the others get the sizes written into it.
    measured = [_run(counter, exported if counter == "tailwise" else fixed, shapes) for _ in range(runs)]
    flops = measured[0]["flops"]
    free = _run(counter, exported, {})["flops"] if free_batch else None
    return Comparison(
        model=name,
        counter=counter,
        file_bytes=exported.stat().st_size,
        expected_flops=expected,
        flops=flops,
        error_percent=None if flops is None else 100 * (flops - expected) / expected,
        seconds=_median(measured, "seconds"),
        peak_mebibytes=_median(measured, "peakMebibytes"),
        imported_mebibytes=_median(measured, "importedMebibytes"),
        failure=measured[0]["failure"],
        free_batch=free_batch,
        as_exported_flops=free,
    )


def _median(measured: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(each[key] for each in measured))


def _run(counter: str, path: Path, shapes: Shapes) -> dict[str, Any]:
    """One measurement; a process that dies or takes too long is a failure of its counter."""
    words = [sys.executable, "-m", "bench.profiles.counters", counter, str(path), json.dumps(shapes)]
    nothing = {"flops": None, "seconds": 0.0, "peakMebibytes": 0.0, "importedMebibytes": 0.0}
    environment = {"PYTHONPATH": f"{_ROOT}:{_ROOT / 'operator'}", "PATH": "/usr/bin:/bin"}
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            check=False,
            timeout=_LONGEST_SECONDS,
            cwd=path.parent,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return {**nothing, "failure": f"no answer after {_LONGEST_SECONDS:.0f} s"}
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        return {**nothing, "failure": f"exit code {done.returncode}: {last}"[:200]}
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read


def _line(row: Comparison) -> str:
    head = f"{row.model:<24}{row.counter:<16}"
    if row.flops is None:
        return f"{head}{'-':>12}{'-':>9}{row.seconds:>9.3f}{row.peak_mebibytes:>10.0f}  {row.failure[:60]}"
    figures = f"{row.flops / 1e9:>12.6f}{row.error_percent:>8.2f}%{row.seconds:>9.3f}"
    return f"{head}{figures}{row.peak_mebibytes:>10.0f}"
