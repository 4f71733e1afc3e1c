"""The ``tailwise`` command: one table of subcommands, each imported only when it is asked for.

A subcommand is a module with ``add_parser(subparsers)``, which adds a parser of its name, and
``run(arguments) -> int`` (the exit code).
The table below is all that ``tailwise --help`` needs, so that help is quick and an image without the
training libraries can still show it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tailwise.api.release import RELEASE


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A word after ``tailwise``, the module that answers to it, and its line in the help."""

    name: str
    module: str
    help: str


SUBCOMMANDS = (
    Subcommand("inspect", "tailwise.cli.inspect", "count a model's FLOPs, parameters and operators"),
    Subcommand("flops", "tailwise.cli.flops", "the same as inspect"),
    Subcommand("predict", "tailwise.cli.predict", "predict a model's P90 on a node"),
    Subcommand("dataset", "tailwise.cli.dataset", "read a dataset from a cluster's Prometheus"),
    Subcommand("train", "tailwise.cli.train", "train a version from a dataset"),
    Subcommand("report", "tailwise.cli.report", "draw how good a version is"),
    Subcommand("explain", "tailwise.cli.explain", "tell why a workload's pods are where they are"),
    Subcommand("bench", "tailwise.cli.bench", "measure placement policies against each other"),
    Subcommand("nodes", "tailwise.cli.nodes", "tell what is known of each node"),
    Subcommand(
        "what-if",
        "tailwise.cli.what_if",
        "tell where a workload's next pod would go if things were otherwise",
    ),
    Subcommand("regret", "tailwise.cli.regret", "tell how right predictions were, and what was missed"),
    Subcommand("agent", "tailwise.cli.agent", "describe this node's hardware"),
    Subcommand("operator", "tailwise.cli.operator", "run the operator"),
    Subcommand("generate", "tailwise.cli.generate", "write the CRDs and references from the code"),
    Subcommand("completion", "tailwise.cli.completion", "print a shell's completion script"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; usage errors exit with 2, as argparse does."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parsed = _parser(words).parse_args(words)
    try:
        return int(parsed.run(parsed))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (a pager, head) has gone; there is nobody left to tell.
        sys.stderr.close()
        return 0


def parser_of(name: str) -> argparse.ArgumentParser | None:
    """A subcommand's own parser; None where there is no such command, or its libraries are not installed."""
    subparsers = argparse.ArgumentParser(prog="tailwise").add_subparsers()
    for subcommand in SUBCOMMANDS:
        if subcommand.name == name:
            with contextlib.suppress(ImportError):
                importlib.import_module(subcommand.module).add_parser(subparsers)
    return subparsers.choices.get(name)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The root parser, with the arguments of the one subcommand that was named."""
    # kubectl runs kubectl-tailwise for `kubectl tailwise`, and that is what its user typed.
    as_plugin = Path(sys.argv[0]).name == "kubectl-tailwise"
    parser = argparse.ArgumentParser(
        prog="kubectl tailwise" if as_plugin else "tailwise",
        description="Places inference pods where their tail latency meets its objective.",
    )
    parser.add_argument("--version", action="version", version=f"tailwise {RELEASE}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    wanted = next((word for word in words if not word.startswith("-")), None)
    for subcommand in SUBCOMMANDS:
        if subcommand.name == wanted:
            module = importlib.import_module(subcommand.module)
            module.add_parser(subparsers)
            subparsers.choices[subcommand.name].set_defaults(run=module.run)
        else:
            subparsers.add_parser(subcommand.name, help=subcommand.help)
    return parser
