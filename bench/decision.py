"""How long one placement takes: snapshot, filters, Algorithm 1 and the assumption, over a grid of nodes.

    python -m bench.decision [--nodes 10 100 1000 5000 50000] [--decisions 500]

Predictions are gathered from a table over utilisation, as the operator does it; making that table is not
part of a decision and not part of this figure.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "operator"))

from tailwise.domain.assumption import AssumedLoad, Assumption, assume
from tailwise.domain.capacity import assumed_utilisation
from tailwise.domain.filtering import filter_nodes
from tailwise.domain.parse import node_from_object, pod_from_object
from tailwise.domain.scoring import PredictedLatencies, Preferences, decide
from tailwise.domain.state import ClusterState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = ("a", "b", "c")
TABLE_POINTS = 101
GOAL_NODES, GOAL_MILLISECONDS = 5000, 1.0


def make_state(nodes: int, rng: random.Random) -> ClusterState:
    """Nodes in three zones, one in ten tainted, one in fifty cordoned, two running pods each."""
    state = ClusterState()
    for number in range(nodes):
        taints = [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}] if number % 10 == 0 else []
        name = f"node-{number:05d}"
        labels = {f"label-{each}": str(number % (each + 2)) for each in range(15)}
        labels |= {"topology.kubernetes.io/zone": rng.choice(ZONES), "kubernetes.io/hostname": name}
        state.put_node(
            node_from_object(
                {
                    "metadata": {"name": name, "labels": labels},
                    "spec": {"taints": taints, "unschedulable": number % 50 == 1},
                    "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}},
                }
            )
        )
        for pod in range(2):
            running = pod_object(f"running-{number}-{pod}", name, rng.randrange(1, 6), f"w-{number // 50}")
            state.put_pod(pod_from_object(running))
    return state


def pod_object(name: str, node: str | None, cores: int, workload: str = "bench") -> dict[str, object]:
    """A pod of the workload that asks for a zone, cores and memory."""
    spec: dict[str, object] = {
        "containers": [{"name": "server", "resources": {"requests": {"cpu": cores, "memory": "1Gi"}}}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"]}
                            ]
                        }
                    ]
                }
            }
        },
    }
    if node is not None:
        spec["nodeName"] = node
    labels = {"tailwise.dev/workload": workload}
    return {"metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels}, "spec": spec}


def decision_milliseconds(nodes: int, decisions: int) -> list[float]:
    """Durations of so many placements, one after another, each seeing the one before."""
    state = make_state(nodes, random.Random(1))  # noqa: S311 - the same cluster each time
    generator = np.random.default_rng(1)
    utilisation = generator.random(nodes) * 0.6
    capacity = np.full(nodes, 16.0)
    table = 20.0 / (1.0 - np.linspace(0, 0.95, TABLE_POINTS))
    age, hardware = np.zeros(nodes), np.ones(nodes, dtype=np.bool_)
    source = np.ones(nodes, dtype=np.int8)
    pods = [pod_from_object(pod_object(f"new-{number}", None, 1)) for number in range(decisions)]
    ledger = AssumedLoad()
    durations = []
    for pod in pods:
        # CPU time: on a machine that others use too, the wall clock measures them.
        begin = time.thread_time()
        snapshot = state.snapshot()
        verdicts = filter_nodes(pod, snapshot)
        assumed = ledger.cores(snapshot.table)
        busy = utilisation + assumed_utilisation(assumed, capacity)
        p90 = table[(busy * (TABLE_POINTS - 1)).astype(np.int64)]
        predicted = PredictedLatencies(p90 * 0.8, p90, p90 * 1.1, age, source, hardware)
        preferences = Preferences(snapshot.workload_pods("default", "bench"), assumed)
        decision = decide(verdicts, predicted, preferences, slo_milliseconds=60)
        if decision.node is not None:
            state.assume(pod, decision.node)
            ledger = assume(ledger, Assumption(pod.uid, decision.node, 1000, NOW))
        durations.append((time.thread_time() - begin) * 1000)
    return durations


def plot(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw CPU time of a decision by nodes, both on logarithmic scales, with the goal at 5,000 nodes."""
    import matplotlib as mpl  # noqa: PLC0415 - only who draws needs it

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(7, 4))
    nodes = [row["nodes"] for row in rows]
    for share in (50, 90, 99):
        axes.plot(nodes, [row[f"p{share}Milliseconds"] for row in rows], marker="o", label=f"P{share}")
    axes.plot([GOAL_NODES], [GOAL_MILLISECONDS], marker="x", color="black", linestyle="", label="goal")
    axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="CPU time of one decision, ms")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def main(arguments: list[str] | None = None, write: Callable[[str], object] = print) -> None:
    """Print a line for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000, 5000, 50_000])
    parser.add_argument("--decisions", type=int, default=500)
    options = parser.parse_args(arguments)
    write(f"{'nodes':>7} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8}  (CPU time of one decision)")
    for nodes in options.nodes:
        durations = np.array(decision_milliseconds(nodes, options.decisions))
        p50, p90, p99 = np.percentile(durations, [50, 90, 99], method="inverted_cdf")
        write(f"{nodes:>7} {p50:>8.3f} {p90:>8.3f} {p99:>8.3f}")


if __name__ == "__main__":
    main()
