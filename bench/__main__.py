"""Measures Tailwise: python -m bench [NAME] [--full] [--json FILE].

Without a name all run, one after another. Figures come with the machine's load, and nothing is
compared with a threshold: what is fast or slow depends on the machine and on who else uses it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine

_SHARES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: ``run`` prints its table and returns its figures as JSON has them."""

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Any]


def _decision_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, nargs="+")
    parser.add_argument("--decisions", type=int)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures, such as an SVG")
    parser.add_argument("--report", type=Path, metavar="PAGE", help="put the figures into this page's JSON")


def _decision(options: argparse.Namespace) -> Any:
    from bench import decision  # noqa: PLC0415 - each benchmark's imports are its own cost

    sizes = options.nodes or ([10, 100, 1000, 5000, 50_000] if options.full else [100, 1000, 5000])
    decisions = options.decisions or (500 if options.full else 200)
    _write(f"{'nodes':>7} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8}  (CPU time of one decision)")
    rows = []
    for nodes in sizes:
        durations = decision.decision_milliseconds(nodes, decisions)
        p50, p90, p99 = (float(each) for each in np.percentile(durations, _SHARES, method="inverted_cdf"))
        rows.append({"nodes": nodes, "p50Milliseconds": p50, "p90Milliseconds": p90, "p99Milliseconds": p99})
        _write(f"{nodes:>7} {p50:>8.3f} {p90:>8.3f} {p99:>8.3f}")
    if options.plot is not None:
        decision.plot(rows, options.plot)
    return _reported("decision", options, rows)


def _reported(name: str, options: argparse.Namespace, figures: Any) -> Any:
    from bench import placement_report  # noqa: PLC0415

    if options.report is not None:
        placement_report.add(options.report, name, figures)
    return figures


def _placement_arguments(parser: argparse.ArgumentParser) -> None:
    from bench import placement  # noqa: PLC0415

    placement.add_arguments(parser)


def _placement(options: argparse.Namespace) -> Any:
    from bench import placement  # noqa: PLC0415

    return _reported("placement", options, placement.run(options, _write))


def _scale_arguments(parser: argparse.ArgumentParser) -> None:
    from bench import scale  # noqa: PLC0415

    scale.add_arguments(parser)


def _scale(options: argparse.Namespace) -> Any:
    from bench import scale  # noqa: PLC0415

    figures = scale.measure(scale.sizes(options), options.cluster, options.keep, _write)
    return _reported("scale", options, asdict(figures))


def _api_costs_arguments(parser: argparse.ArgumentParser) -> None:
    from bench import api_costs  # noqa: PLC0415

    api_costs.add_arguments(parser)


def _api_costs(options: argparse.Namespace) -> Any:
    from bench import api_costs  # noqa: PLC0415

    costs = api_costs.measure(
        options.nodes, options.writes, options.rounds, options.cluster, options.keep, _write
    )
    return _reported("apiCosts", options, [asdict(each) for each in costs])


def _prior_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", metavar="NAME", help="of tests/models; default: the set's")
    parser.add_argument("--seconds", type=float, help="length of one run")


def _prior(options: argparse.Namespace) -> Any:
    from bench import prior_accuracy  # noqa: PLC0415

    runs = prior_accuracy.measure(options.models, options.seconds, options.full, _write)
    return [asdict(each) for each in runs]


def _training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help="synthetic rows; --full: 100,000")
    parser.add_argument("--profiles", type=int, default=100, help="models")
    parser.add_argument("--node-classes", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="of training; tables take one")


def _training(options: argparse.Namespace) -> Any:
    from bench import training  # noqa: PLC0415

    figures = training.measure(
        options.rows, options.profiles, options.node_classes, options.threads, options.full, _write
    )
    for stage in figures.stages:
        _write(f"{stage.stage:12s} {stage.seconds:8.1f} s")
    _write(
        f"{figures.rows} rows, {figures.candidates} candidates: {figures.seconds:.0f} s, "
        f"{figures.cpu_seconds:.0f} s of CPU, peak {figures.peak_mebibytes:.0f} MiB, "
        f"artefact {figures.artefact_bytes / 1024:.0f} KiB"
    )
    for name, seconds in figures.table_seconds.items():
        _write(f"{figures.tables} tables of 101 utilisations, {name}: {seconds:.1f} s of CPU on one core")
    return asdict(figures)


def _profiles_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profiled", nargs="+", metavar="NAME", help="of tests/models; default: all")
    parser.add_argument("--counters", nargs="+", metavar="NAME", help="tailwise, onnx, onnx-tool ...")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each, of which the median is told")


def _profiles(options: argparse.Namespace) -> Any:
    from bench.profiles import compare  # noqa: PLC0415

    runs = options.runs or (5 if options.full else 1)
    return [asdict(each) for each in compare.compare(options.profiled, options.counters, runs, _write)]


def _reading_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which the median counts (3)")


def _reading(options: argparse.Namespace) -> Any:
    from bench import reading  # noqa: PLC0415

    return reading.measure(options.rounds, _write)


BENCHMARKS = (
    Benchmark("decision", "how long one placement decision takes", _decision_arguments, _decision),
    Benchmark("placement", "pods a second, with and without Tailwise", _placement_arguments, _placement),
    Benchmark("scale", "a large cluster: start, memory, bursts, fail-over", _scale_arguments, _scale),
    Benchmark("api-costs", "what single writes cost the API server", _api_costs_arguments, _api_costs),
    Benchmark("training", "how long training and prediction tables take", _training_arguments, _training),
    Benchmark("prior", "predicted P90 against ONNX Runtime on this machine", _prior_arguments, _prior),
    Benchmark("reading", "how much of a model is read, near and far", _reading_arguments, _reading),
    Benchmark("profiles", "FLOPs of models against other counters", _profiles_arguments, _profiles),
)


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark or all; returns the exit status."""
    options = _parser().parse_args(arguments)
    chosen = [each for each in BENCHMARKS if options.benchmark in (None, each.name)]
    here = machine.machine()
    _write(f"{here.cores} cores, {here.memory_mebibytes} MiB, {here.architecture}")
    results: dict[str, Any] = {}
    for benchmark in chosen:
        before = machine.load()
        _write(f"\n== {benchmark.name}: {benchmark.summary}; load {before:.1f}")
        figures = benchmark.run(options)
        after = machine.load()
        _write(f"== {benchmark.name}: done; load {before:.1f} before, {after:.1f} after")
        results[benchmark.name] = {"loadBefore": before, "loadAfter": after, "figures": figures}
        if options.json:  # after each, so that what fails later costs nothing that was measured
            document = {"machine": asdict(here), "results": results}
            options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.json:
        _write(f"written to {options.json}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.set_defaults(full=False, json=None)
    _everywhere(parser)
    for benchmark in BENCHMARKS:
        # What a benchmark is run with when it is one of all and has no options of its own.
        own = argparse.ArgumentParser(add_help=False)
        benchmark.add_arguments(own)
        parser.set_defaults(**vars(own.parse_args([])))
    named = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK")
    for benchmark in BENCHMARKS:
        sub = named.add_parser(benchmark.name, help=benchmark.summary)
        _everywhere(sub)
        benchmark.add_arguments(sub)
    return parser


def _everywhere(parser: argparse.ArgumentParser) -> None:
    """Options before and after the name; suppressed, so that the latter's default is not taken for given."""
    parser.add_argument(
        "--full", action="store_true", default=argparse.SUPPRESS, help="the sizes of the goals; much longer"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="write all figures there too"
    )


def _write(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
