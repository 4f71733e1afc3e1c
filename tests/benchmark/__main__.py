"""``python -m tests.benchmark SCENARIO``: a cluster of the scenario's nodes, and the benchmark on it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from tailwise.benchmark.kubectl import KubectlError
from tailwise.benchmark.records import RunError
from tailwise.benchmark.scenario import ScenarioError, load_scenario
from tailwise.cli.bench import OWN_CLUSTER_LABEL
from tailwise.cli.main import main as tailwise
from tests.benchmark import proving_ground
from tests.demo.stages import Stages

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Bring up what lacks, measure, report; what was measured before is not measured again."""
    signal.signal(signal.SIGTERM, _interrupted)
    words = sys.argv[1:]
    own, options = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    arguments = _parser().parse_args(own)
    stages = Stages()
    try:
        scenario = load_scenario(arguments.scenario)
        with stages.stage(f"cluster {proving_ground.CLUSTER} with the scenario's nodes"):
            cluster = proving_ground.up(scenario, stages.report)
        if arguments.prepare:
            return 0
        os.environ["PATH"] = f"{cluster.kubectl.parent}:{os.environ['PATH']}"
        asked = [f"--scenario={arguments.scenario}", f"--kubeconfig={cluster.kubeconfig}"]
        asked += [f"--prometheus-url={cluster.prometheus_url}", *options]
        with stages.stage(f"tailwise bench ({OWN_CLUSTER_LABEL})"):
            return tailwise(["bench", *asked])
    except (KubectlError, RunError, ScenarioError, TimeoutError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if not (arguments.keep or arguments.prepare):
            with stages.stage("take the cluster down"):
                proving_ground.down(stages.report)


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark",
        usage="%(prog)s [SCENARIO] [--keep] [--prepare] [-- OPTIONS OF TAILWISE BENCH]",
        description=__doc__,
    )
    parser.add_argument("scenario", type=Path, nargs="?", default=ROOT / "examples" / "bench" / "short.yaml")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    parser.add_argument("--prepare", action="store_true", help="bring the cluster up and do no more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
