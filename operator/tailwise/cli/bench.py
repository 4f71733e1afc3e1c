"""``tailwise bench``: the same pods placed by several policies, asked by MLPerf LoadGen, and who was right.

Exit codes: 0 every step is measured and the report written, 1 it could not be, 2 wrong usage, 130 interrupted
(what was measured is kept, and the same command goes on). Needs the training extra and kubectl.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tailwise.benchmark.kubectl import Kubectl, KubectlError
from tailwise.benchmark.records import RunDirectory, RunError
from tailwise.benchmark.scenario import PolicyKind, Scenario, ScenarioError, load_scenario
from tailwise.cli.argument_types import whole_number
from tailwise.cli.train import EXTRA_MISSING

if TYPE_CHECKING:
    from tailwise.benchmark.stage import Stage

# The namespace in which the project's own clusters say that they may be loaded.
OWN_CLUSTER_LABEL = "tailwise.dev/own-cluster"


def add_parser(subparsers: Any) -> None:
    """Add ``bench`` and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure placement policies against each other",
        description="Places the pods of a scenario by each of its policies in turn, has MLPerf LoadGen ask "
        "all of them at once, and reports who served best. A run that was stopped goes on where it was.",
    )
    parser.add_argument(
        "--scenario", type=Path, metavar="FILE", help="what to compare (docs/reference/scenario.md)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory; default: bench-runs/NAME")
    parser.add_argument("--report-only", action="store_true", help="write the report of a run once more")
    parser.add_argument("--kubeconfig", type=Path, help="default: $KUBECONFIG, else ~/.kube/config")
    parser.add_argument("--context", help="context of the kubeconfig")
    parser.add_argument(
        "--prometheus-url", metavar="URL", default="", help="Prometheus as seen from here, for utilisation"
    )
    parser.add_argument("--utilisation-preset", default="CAdvisor", choices=["CAdvisor", "NodeExporter"])
    parser.add_argument(
        "--operator-namespace", default="tailwise-system", metavar="NAMESPACE", help="where agents write"
    )
    parser.add_argument("--rounds", type=whole_number(1, 100), help="instead of the scenario's")
    parser.add_argument(
        "--policies",
        type=lambda word: tuple(word.split(",")),
        default=(),
        metavar="A,B",
        help="only these of the scenario's; the others can be measured later",
    )
    parser.add_argument("--image", help="instead of the scenario's: where your nodes pull it")
    parser.add_argument("--yes", action="store_true", help="load the cluster without asking")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; returns the exit code."""
    before = signal.signal(signal.SIGTERM, _interrupted)
    try:
        return _run(arguments)
    except ImportError as error:
        print(f"tailwise bench: {EXTRA_MISSING.format(error=error)}", file=sys.stderr)
    except (ScenarioError, RunError, KubectlError) as error:
        print(f"tailwise bench: {error}", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 1


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    # As from a keyboard: what was made on the cluster is taken away on the way out.
    raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    if arguments.report_only:
        return _report(RunDirectory(_directory(arguments)))
    scenario = _scenario(arguments)
    unknown = sorted(set(arguments.policies) - {policy.name for policy in scenario.policies})
    if unknown:
        raise RunError(f"--policies {','.join(unknown)}: the scenario has no such policy")
    wanted = [each for each in scenario.policies if not arguments.policies or each.name in arguments.policies]
    if any(policy.kind is PolicyKind.PAPER for policy in wanted) and not arguments.prometheus_url:
        raise RunError("policy Paper decides by utilisation: give --prometheus-url, or leave it out")
    from tailwise.benchmark.runner import Runner  # noqa: PLC0415 - help needs none of this
    from tailwise.benchmark.stage import Stage  # noqa: PLC0415

    stage = Stage(_kubectl(arguments), scenario, _progress(), arguments.operator_namespace)
    if not (arguments.yes or _is_our_own(stage) or _agreed(stage, scenario.rounds * len(wanted))):
        print("tailwise bench: nothing was done", file=sys.stderr)
        return 1
    directory = RunDirectory(_directory(arguments))
    Runner(
        stage,
        directory,
        arguments.prometheus_url,
        arguments.utilisation_preset,
        arguments.policies,
        threads=os.cpu_count() or 1,
    ).run()
    return _report(directory)


def _report(directory: RunDirectory) -> int:
    from tailwise.benchmark.report import write_report  # noqa: PLC0415 - loads matplotlib

    record = directory.run()
    if record is None or not directory.steps():
        raise RunError(f"{directory.path}: no step was measured here")
    print(write_report(directory, lambda file: print(f"wrote {file}", file=sys.stderr)))
    return 0


def _scenario(arguments: argparse.Namespace) -> Scenario:
    if arguments.scenario is None:
        raise RunError("--scenario FILE is needed: examples/bench has some")
    scenario = load_scenario(arguments.scenario)
    changes = {
        name: value
        for name, value in (("rounds", arguments.rounds), ("image", arguments.image))
        if value is not None
    }
    return scenario.model_copy(update=changes)


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.out is not None:
        return Path(arguments.out)
    if arguments.scenario is None:
        raise RunError("name the run: --out DIR or --scenario FILE")
    return Path("bench-runs") / str(arguments.scenario.stem)


def _kubectl(arguments: argparse.Namespace) -> Kubectl:
    program = shutil.which("kubectl")
    if program is None:
        raise RunError("kubectl must be on the PATH")
    return Kubectl(Path(program), arguments.kubeconfig, arguments.context)


def _is_our_own(stage: Stage) -> bool:
    """Whether the cluster is one of the project's own, made to be loaded."""
    label = stage.kubectl.run(
        "get", "namespace", "default", "-o", f"jsonpath={{.metadata.labels.{_escaped()}}}"
    )
    return label == "true"


def _escaped() -> str:
    return OWN_CLUSTER_LABEL.replace(".", r"\.")


def _agreed(stage: Stage, steps: int) -> bool:
    """Tell what will be made on a cluster that is not the project's own, and ask."""
    from tailwise.benchmark.manifests import NAMESPACE  # noqa: PLC0415

    scenario = stage.scenario
    nodes = ", ".join(sorted(stage.serving_nodes()))
    beside = sum(len(each.nodes) for each in scenario.neighbours)
    print(
        f"On the cluster of context {stage.kubectl.context or 'current'} this makes the namespace "
        f"{NAMESPACE} and in it, {steps} times, {scenario.pods} pods of {scenario.image} on {nodes}, "
        f"{beside} pods that compute without rest beside them, {len(scenario.workloads)} "
        "InferenceWorkloads, a store of models and a Job of clients. What else runs on these nodes will be "
        "slower meanwhile. The namespace goes at the end, also when you interrupt.",
        file=sys.stderr,
    )
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print("nobody to ask: --yes goes on without", file=sys.stderr)
        return False


def _progress() -> Any:
    began = time.monotonic()

    def report(line: str) -> None:
        elapsed = int(time.monotonic() - began)
        print(f"[{elapsed // 60:02d}:{elapsed % 60:02d}] {line}", file=sys.stderr, flush=True)

    return report
