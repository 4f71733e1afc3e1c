"""Makes a dataset of measured latencies on real nodes: python -m bench.dataset [--minutes 20]. Needs root.

Once more, it goes on where it stopped. In parts: --only up | measure | write | down.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench.dataset import cluster, journal
from bench.dataset.measure import Length, measure
from bench.dataset.plan import FAMILIES, LANES, LOADS, stretches
from tailwise.models.inspection import InspectionRequest, inspect
from tailwise.training.files import write_parquet
from tests.cluster import paths, real

OUT = Path("bench/data/latencies.parquet")
PARTS = ("up", "measure", "write", "down")


def main(arguments: list[str] | None = None) -> int:
    """Bring up, measure, write, take down: all of it or one part."""
    options = _parser().parse_args(arguments)
    began = time.monotonic()

    def write(line: str) -> None:
        elapsed = int(time.monotonic() - began)
        print(f"[{elapsed // 60:02d}:{elapsed % 60:02d}] {line}", file=sys.stderr, flush=True)

    parts = PARTS if options.only is None else (options.only,)
    if {"up", "measure"} & set(parts):
        standing = real.get(options.name) or cluster.up(options.name, progress=write)
        stage = cluster.prepare(standing, write, options.models)
        if "measure" in parts:
            directory = paths.cluster_directory(options.name) / "models"
            profiles = {
                model: inspect(
                    InspectionRequest(url=(directory / f"{model}.onnx").as_uri(), allow_files=True)
                )
                for model in options.models
            }
            plan = tuple(stretches(options.rounds, options.models, LANES, options.loads))
            seconds = None if options.minutes is None else 60 * options.minutes
            length = Length(options.seconds, 2.5 * options.seconds)
            whole = measure(stage, plan, profiles, options.journal, seconds, write, length)
            write("all of the plan is measured" if whole else "not all yet: the same command goes on")
    if "write" in parts:
        models = paths.state_directory() / "dataset-models"
        models.mkdir(parents=True, exist_ok=True)
        rows = journal.rows(journal.read(options.journal), models)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(options.out, rows)
        write(f"{options.out}: {len(rows)} rows, {options.out.stat().st_size / 2**20:.2f} MiB")
    if "down" in parts:
        cluster.down(options.name, write)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.dataset", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part; without it all, in this order")
    parser.add_argument("--minutes", type=float, help="begin no window after so many minutes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(FAMILIES), choices=list(FAMILIES), metavar="NAME")
    parser.add_argument("--loads", nargs="+", type=float, default=list(LOADS), metavar="SHARE")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a window (4)")
    parser.add_argument("--name", default="dataset", help="the cluster's name")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--journal",
        type=Path,
        default=paths.state_directory() / "dataset.jsonl",
        help="what a run goes on from",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
