"""docs/placement-speed.md, written from docs/placement-speed.json: what was measured, without a word by hand.

    python -m bench.placement_report docs/placement-speed.md

``python -m bench placement|scale|decision --report docs/placement-speed.md`` puts new figures into the JSON
beside the page and writes the page anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine
from bench.placement import Side, load_word

Figures = Mapping[str, Any]
_SIDES = tuple(Side)
_PARTS = ("kube-apiserver", "etcd", "kube-scheduler", "kube-controller-manager", "kwok", "operator",
          "creating pods", "watching pods")  # fmt: skip

# kueue's performance test of its scheduler, test/performance/scheduler/configs/baseline: 15,000 workloads of
# 30 queues, each with a time that it runs; the mean of five runs as its rangespec.yaml has it.
_KUEUE_SECONDS = 351

_INTRODUCTION = """# How fast pods are placed

Written by `python -m bench placement|scale|decision --report docs/placement-speed.md` from
`placement-speed.json`; bench/README.md says how each figure comes about.

`make bench-placement` measures the first part again. Everything runs on one machine: control plane, simulated
nodes, the operator, the process that creates pods and the one that watches them. The sides take turns with
the same pods on the same cluster; each pod is owned by a ReplicaSet and requires three of four kinds of nodes
by node affinity. No client is held back (kube-scheduler: 5,000 requests a second; the operator: none).

- **kube-scheduler**: pods for it alone, no operator.
- **tailwise**: pods gated by the chart's policy, placed by the operator's patch, bound by kube-scheduler.
- **tailwise-binds**: `binding: NodeName`, pods decided and bound by the operator.
"""


def add(page: Path, name: str, figures: Any) -> None:
    """Put one benchmark's figures into the JSON beside the page, and write the page."""
    path = page.with_suffix(".json")
    document = json.loads(path.read_text()) if path.exists() else {}
    document["machine"] = asdict(machine.machine())
    document[name] = figures
    path.write_text(json.dumps(document, indent=1) + "\n")
    page.write_text(text(document))


def text(document: Mapping[str, Any]) -> str:
    """The page."""
    here = document["machine"]
    parts = [
        _INTRODUCTION,
        f"Machine: {here['cores']} cores, {here['memory_mebibytes'] // 1024} GiB, {here['architecture']}.\n",
    ]
    if "note" in document:
        parts.append(f"{document['note']}\n")
    if "placement" in document:
        parts += _placement(document["placement"])
    if "apiCosts" in document:
        parts.append(_api_costs(document["apiCosts"]))
    if "scale" in document:
        parts.append(_scale(document["scale"]))
    if "decision" in document:
        parts.append(_decision(document["decision"]))
    return "\n".join(parts)


# ---- placement


def _placement(rounds: Sequence[Figures]) -> Iterator[str]:
    found: dict[tuple[Any, ...], list[Figures]] = {}
    for each in rounds:
        found.setdefault((each["nodes"], load_word(each), each["pods"]), []).append(each)
    yield "## Pods a second\n\nAll pods are created at once; medians of the rounds.\n"
    bursts = [key for key in found if key[1] == "at once"]
    yield _table(
        ("nodes", "pods", "side", "rounds", "pods/s of each", "pods/s", "ratio", *_delay_heads()),
        (row for key in bursts for row in _rows(found[key])),
    )
    others = [key for key in found if key[1] != "at once"]
    if others:
        yield (
            "## Other loads\n\n`20/s`: pods that come one after another. `10000 wait`: so many are gated "
            "meanwhile, for kube-scheduler at somebody else's gate, for Tailwise at its own, for an SLO that "
            "no node holds. `churn`: each pod is deleted 15 s after its creation.\n"
        )
        yield _table(
            ("nodes", "pods", "load", "side", "pods/s", *_delay_heads()),
            (row for key in others for row in _rows(found[key], load=key[1])),
        )
    yield (
        "## Where the time goes\n\nCPU milliseconds a pod, and the most memory in MiB, by process; medians "
        "of the rounds.\n"
    )
    yield _table(
        ("nodes", "load", "side", *(f"{part}" for part in _PARTS), "others, cores"),
        (row for key in found for row in _costs(found[key], key[1])),
    )


def _delay_heads() -> tuple[str, ...]:
    return ("created to ungated ms P50 / P90 / P99", "created to bound ms P50 / P90 / P99")


def _by_side(rounds: Iterable[Figures]) -> dict[str, list[Figures]]:
    sides: dict[str, list[Figures]] = {side.value: [] for side in _SIDES}
    for each in rounds:
        sides[each["side"]].append(each)
    return {side: found for side, found in sides.items() if found}


def _rows(rounds: Sequence[Figures], load: str | None = None) -> Iterator[tuple[str, ...]]:
    sides = _by_side(rounds)
    alone = _speed(sides[Side.SCHEDULER.value]) if Side.SCHEDULER.value in sides else None
    for side, found in sides.items():
        first = found[0]
        speed = _speed(found)
        lost = sum(each["lost"] for each in found)
        delays = (
            _delays(found, "created_to_ungated_milliseconds"),
            _delays(found, "created_to_bound_milliseconds"),
        )
        ratio = f"{speed / alone:.2f}" if alone and side != Side.SCHEDULER.value else ""
        start = (str(first["nodes"]), str(first["pods"]))
        if load is not None:
            shown = f"{speed:.0f}" + (f" ({lost} deleted before they had a node)" if lost else "")
            yield (*start, load, side, shown, *delays)
        else:
            each_round = ", ".join(f"{each['pods_per_second']:.0f}" for each in found)
            yield (*start, side, str(len(found)), each_round, f"{speed:.0f}", ratio, *delays)


def _speed(rounds: Iterable[Figures]) -> float:
    return float(median(each["pods_per_second"] for each in rounds))


def _delays(rounds: Sequence[Figures], name: str) -> str:
    known = [each[name] for each in rounds if each[name] is not None]
    if not known:
        return ""
    return " / ".join(f"{median(each[share] for each in known):.0f}" for share in ("p50", "p90", "p99"))


def _costs(rounds: Sequence[Figures], load: str) -> Iterator[tuple[str, ...]]:
    for side, found in _by_side(rounds).items():
        costs = []
        for part in _PARTS:
            known = [each for each in found if part in each["cpu_seconds"]]
            if not known:
                costs.append("")
                continue
            spent = median(each["cpu_seconds"][part] / each["pods"] * 1000 for each in known)
            memory = median(each["peak_mebibytes"][part] for each in known)
            costs.append(f"{spent:.2f} ms, {memory:.0f} MiB")
        others = median(each["others_cores"] for each in found)
        yield (str(found[0]["nodes"]), load, side, *costs, f"{others:.2f}")


def _api_costs(costs: Sequence[Figures]) -> str:
    rows = [
        (
            each["write"],
            f"{each['api_server_milliseconds']:.2f}",
            f"{each['client_milliseconds']:.2f}",
        )
        for each in costs
    ]
    return (
        "## What single writes cost\n\nCPU milliseconds of the API server, watchers included, and of the "
        "client in Python. A placement by affinity adds the policy and one patch to a pod's way, and spares "
        "kube-scheduler its search; a binding by Tailwise replaces kube-scheduler's own and its event.\n\n"
        + _table(("write", "API server ms", "client ms"), rows)
    )


# ---- scale and decision


def _scale(found: Figures) -> str:
    rows = [
        ("cold start: to leading", f"{found['leading_seconds']:.1f} s"),
        ("cold start: to the first placement", f"{found['cold_start_seconds']:.1f} s"),
        ("all statuses written after", f"{found['settled_seconds']:.0f} s"),
        ("resident memory then", f"{found['resident_mebibytes']:.0f} MiB"),
        ("most memory until then", f"{found['peak_mebibytes']:.0f} MiB"),
        ("idle", f"{found['idle_cores'] * 100:.1f} % of a core, over {found['idle_seconds']:.0f} s"),
    ]
    lines = [
        f"## Size\n\nOne operator, {found['nodes']} nodes, {found['workloads']} workloads.\n",
        _table(("what", "measured"), rows),
    ]
    if found["burst"]:
        spent = found["burst_cpu_seconds"] or {}
        parts = ", ".join(f"{part} {spent[part]:.0f} s" for part in _PARTS if spent.get(part, 0) >= 1)
        lines.append(
            f"{found['burst']} more InferenceWorkloads at once: created in "
            f"{found['burst_created_seconds']:.0f} s, all with a status after "
            f"{found['burst_settled_seconds']:.0f} s; {found['burst_resident_mebibytes']:.0f} MiB resident "
            f"then, {found['burst_peak_mebibytes']:.0f} at most. CPU: {parts}. For a scale beside it: "
            f"kueue's own performance test takes {_KUEUE_SECONDS} s to admit 15,000 Workloads (its baseline "
            "configuration, mean of five runs, on its own machines); there each runs for a while and queues "
            "for quota, so the two are not the same work.\n"
        )
    if found["failover_seconds"]:
        seconds = ", ".join(f"{each:.1f}" for each in found["failover_seconds"])
        lines.append(
            "Fail-over: the leader is killed (SIGKILL) and a pod is created; it is placed by the other "
            f"replica after {seconds} s.\n"
        )
    return "\n".join(lines)


def _decision(rows: Sequence[Figures]) -> str:
    table = _table(
        ("nodes", "P50 ms", "P90 ms", "P99 ms"),
        (
            (str(each["nodes"]), *(f"{each[f'p{share}Milliseconds']:.3f}" for share in (50, 90, 99)))
            for each in rows
        ),
    )
    return (
        "## One decision\n\nCPU time of snapshot, filters, scores and assumption, with pods in groups on "
        "every node. Predictions are looked up in tables.\n\n"
        + table
        + "\n![CPU time of a decision by nodes](decision-speed.svg)\n"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(heads), " | ".join("---" for _ in heads), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page from the JSON beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    page = parser.parse_args(arguments).page
    page.write_text(text(json.loads(page.with_suffix(".json").read_text())))


if __name__ == "__main__":
    main()
