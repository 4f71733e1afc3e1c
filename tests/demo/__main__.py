"""``python -m tests.demo``: the demonstration from nothing to the final table. See ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tailwise.benchmark.kubectl import KubectlError
from tests.demo import benchmark_report, clusters, report
from tests.demo.run import Run
from tests.demo.stages import Stages
from tests.demo.target import Target, TargetKind


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    arguments.add_argument(
        "--cluster", choices=[kind.value for kind in TargetKind], help="default: the best this machine allows"
    )
    arguments.add_argument("--kubeconfig", help="run on this cluster of your own")
    arguments.add_argument("--operator-image", help="for your own cluster: where its nodes pull the operator")
    arguments.add_argument("--serving-image", help="for your own cluster: where its nodes pull the server")
    arguments.add_argument("--prometheus-url", help="for your own cluster: as seen from its pods")
    arguments.add_argument(
        "--queries", type=int, default=1024, help="LoadGen queries at each pod (the paper: 1,024)"
    )
    arguments.add_argument(
        "--neighbour-node", help="node that the busy neighbour loads; default: the largest"
    )
    arguments.add_argument("--keep", action="store_true", help="leave the cluster up afterwards")
    return arguments


def main() -> int:
    """Run it; 0 when every pod runs on the node that status names and every client measured."""
    arguments = parser().parse_args()
    stages = Stages()
    kind = clusters.choose(arguments.kubeconfig, arguments.cluster)
    try:
        with stages.stage(f"cluster ({kind.value})"):
            target = _target(arguments, kind, stages)
        run = Run(target, stages, arguments.queries, arguments.neighbour_node)
        with stages.stage("install the chart"):
            run.install()
        default: list[report.PodResult] = []
        if target.runs_containers:
            with stages.stage("the same ten pods by the default scheduler"):
                default = run.default_scheduler()
        with stages.stage("the same ten pods by Tailwise"):
            tailwise = run.tailwise()
    except (clusters.DemoError, KubectlError, TimeoutError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        if not arguments.keep and kind is not TargetKind.EXISTING:
            with stages.stage("take the cluster down"):
                clusters.down(stages.report, kind)
    return _conclude(target, stages, default, tailwise, arguments.queries)


def _target(arguments: argparse.Namespace, kind: TargetKind, stages: Stages) -> Target:
    match kind:
        case TargetKind.REAL:
            return clusters.real(stages.report)
        case TargetKind.SIMULATED:
            return clusters.simulated(stages.report)
        case TargetKind.EXISTING:
            return clusters.existing(
                Path(arguments.kubeconfig or os.environ.get("KUBECONFIG", "~/.kube/config")).expanduser(),
                arguments.operator_image,
                arguments.serving_image,
                arguments.prometheus_url,
            )


def _conclude(
    target: Target,
    stages: Stages,
    default: list[report.PodResult],
    tailwise: list[report.PodResult],
    queries: int,
) -> int:
    print("\nPods placed by Tailwise")
    print(report.pods_table(tailwise))
    if default:
        print("\nAVG_NP90 (equation 16): mean P90 of the pods on a node, in the same run")
        print(report.comparison_table(default, tailwise))
        print("\nOver all pods")
        print(
            report.summary_table(
                {"default": report.summarise(default), "tailwise": report.summarise(tailwise)}
            )
        )
    print("\nTime of each stage")
    print(report.table(["STAGE", "SECONDS"], stages.seconds.items()))
    if not target.runs_containers:
        print(f"\n{clusters.LEFT_OUT}")
        return 0 if tailwise else 1
    if default and any(result.latencies_milliseconds for result in (*default, *tailwise)):
        directory = clusters.ROOT / "build" / "demo"
        benchmark_report.write({"default": default, "tailwise": tailwise}, queries, directory)
        print(f"\nThe same with distributions and intervals: {directory / 'report.html'}")
    unmeasured = [result.pod for result in (*default, *tailwise) if result.measured_p90_milliseconds is None]
    if unmeasured:
        print(f"\nNot measured: {', '.join(unmeasured)}", file=sys.stderr)
    return 1 if unmeasured or not tailwise else 0


if __name__ == "__main__":
    sys.exit(main())
