"""Checks ``tailwise predict`` against ONNX Runtime under real CPU limits, and prints how far it is off.

usage: python -m bench.prior.validate --node NODE.yaml [--limits 0,500,250] [--threads 1] MODEL.onnx ...

Each model is served back to back in a cgroup with the limit (0: none) and its P50 and P90 are compared with
the prediction. Needs root and cgroup v1 or v2 for limits; without, only unlimited runs are made, and it says
so. Wall clock is measured: run it on a machine that is otherwise idle.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.prior.inputs import SHAPES
from bench.prior.limited import can_limit, latencies_milliseconds
from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.cli.predict import read_node
from tailwise.models.inspection import InspectionRequest, inspect
from tailwise.prediction.prediction import NodeLoad, Prediction, Question, Serving
from tailwise.prediction.predictor import PriorPredictor
from tailwise.prediction.quota import nearest_rank


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run against its prediction; milliseconds."""

    model: str
    limit_millicores: int
    threads: int
    queries: int
    p50: float
    p90: float
    predicted: Prediction

    @property
    def p50_error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted.p50_milliseconds / self.p50 - 1

    @property
    def p90_error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted.p90_milliseconds / self.p90 - 1

    @property
    def covered(self) -> bool:
        """Whether the measured P90 kept below the bound."""
        return self.p90 <= self.predicted.bound_milliseconds


def compare(
    path: Path, profile: ModelProfile, hardware: NodeHardware, serving: Serving, seconds: float
) -> Comparison:
    """Run the model as served and predict the same."""
    measured = latencies_milliseconds(path, serving.cpu_limit_millicores, serving.threads, seconds)
    wall = np.array(measured["wall"])
    predicted = PriorPredictor().predict(Question(profile, serving, hardware, NodeLoad(cpu=0.0)))
    return Comparison(
        model=path.stem,
        limit_millicores=serving.cpu_limit_millicores or 0,
        threads=serving.threads,
        queries=len(wall),
        p50=float(nearest_rank(wall, 0.5)),
        p90=float(nearest_rank(wall, 0.9)),
        predicted=predicted,
    )


def report(title: str, runs: list[Comparison]) -> str:
    """One line of errors."""
    p50 = np.abs([run.p50_error for run in runs])
    p90 = np.abs([run.p90_error for run in runs])
    covered = np.mean([run.covered for run in runs])
    return (
        f"{title:28s} {len(runs):4d} runs  P50 error median {np.median(p50):6.1%} mean {p50.mean():6.1%}   "
        f"P90 error median {np.median(p90):6.1%} mean {p90.mean():6.1%}   below bound {covered:.0%}"
    )


def main(arguments: list[str]) -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description="Compare predictions with ONNX Runtime under CPU limits.")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--node", required=True, type=Path)
    parser.add_argument("--limits", default="0,500,250", help="millicores, 0 for none")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a run")
    parser.add_argument("--output", type=Path, help="write every run to this JSON file")
    options = parser.parse_args(arguments)
    hardware = read_node(options.node)
    limits = [int(word) for word in options.limits.split(",")]
    if any(limits) and not can_limit():
        print("NO LIMITS: this needs root and a writable cgroup tree; unlimited runs only", file=sys.stderr)
        limits = [0]
    threads = [int(word) for word in options.threads.split(",")]
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"NOT IDLE: load average {load:.1f}; wall clock figures will be too high", file=sys.stderr)
    runs: list[Comparison] = []
    for path in options.models:
        profile = inspect(
            InspectionRequest(
                url=path.absolute().as_uri(), input_shapes=SHAPES.get(path.stem, {}), allow_files=True
            )
        )
        for count in threads:
            for limit in limits:
                run = compare(path, profile, hardware, Serving(limit or None, count), options.seconds)
                runs.append(run)
                print(
                    f"{run.model:32s} limit {limit:5d} threads {count}  {run.queries:5d} queries  "
                    f"P50 {run.p50:9.2f} ms ({run.p50_error:+7.1%})  "
                    f"P90 {run.p90:9.2f} ms ({run.p90_error:+7.1%})",
                    flush=True,
                )
    for count in threads:
        for limit in limits:
            chosen = [run for run in runs if (run.limit_millicores, run.threads) == (limit, count)]
            print(report(f"limit {limit or 'none'}, threads {count}", chosen))
    if options.output:
        options.output.write_text(json.dumps([_row(run) for run in runs], indent=1))
    return 0


def _row(run: Comparison) -> dict[str, float | int | str]:
    return {
        "model": run.model,
        "limitMillicores": run.limit_millicores,
        "threads": run.threads,
        "queries": run.queries,
        "p50Milliseconds": run.p50,
        "p90Milliseconds": run.p90,
        "predictedP50Milliseconds": run.predicted.p50_milliseconds,
        "predictedP90Milliseconds": run.predicted.p90_milliseconds,
        "boundMilliseconds": run.predicted.bound_milliseconds,
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
