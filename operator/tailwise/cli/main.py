"""The ``tailwise`` command: one table of subcommands, each imported only when it is asked for.

A subcommand is a module with ``add_parser(subparsers)``, which adds a parser of its name, and
``run(arguments) -> int`` (the exit code).
The table below is all that ``tailwise --help`` needs, so that help is quick and an image without the
training libraries can still show it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tailwise.api.release import RELEASE


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A word after ``tailwise``, the module that answers to it, and its line in the help."""

    name: str
    module: str
    help: str


SUBCOMMANDS = (
    Subcommand("inspect", "tailwise.cli.inspect", "count a model's FLOPs, parameters and operators"),
    Subcommand("predict", "tailwise.cli.predict", "predict a model's P90 on a node"),
    Subcommand("train", "tailwise.cli.train", "train a version from a dataset"),
    Subcommand("report", "tailwise.cli.report", "draw how good a version is"),
    Subcommand("explain", "tailwise.cli.explain", "tell why a workload's pods are where they are"),
    Subcommand("bench", "tailwise.cli.bench", "measure placement policies against each other"),
    Subcommand("agent", "tailwise.cli.agent", "describe this node's hardware"),
    Subcommand("operator", "tailwise.cli.operator", "run the operator"),
    Subcommand("generate", "tailwise.cli.generate", "write the CRDs and references from the code"),
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


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The root parser, with the arguments of the one subcommand that was named."""
    parser = argparse.ArgumentParser(
        prog="tailwise", description="Places inference pods where their tail latency meets its objective."
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
