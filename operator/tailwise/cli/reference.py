"""The page of all commands, from their parsers: what ``tailwise COMMAND --help`` says."""

from __future__ import annotations

import argparse
import importlib

from tailwise.cli.main import SUBCOMMANDS

_WIDTH = 100


class _Formatter(argparse.HelpFormatter):
    """As wide on every terminal, so that the page is the same on every machine."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH, max_help_position=32)


def commands_reference() -> str:
    """The page in Markdown, ending in a newline."""
    lines = [
        "# Commands",
        "",
        "`tailwise COMMAND`; where the Python package is installed also `kubectl tailwise COMMAND`. "
        "This page is generated from the parsers.",
        "",
    ]
    for subcommand in SUBCOMMANDS:
        root = argparse.ArgumentParser(prog="tailwise")
        subparsers = root.add_subparsers()
        importlib.import_module(subcommand.module).add_parser(subparsers)
        parser: argparse.ArgumentParser = subparsers.choices[subcommand.name]
        parser.formatter_class = _Formatter
        lines += [f"## tailwise {subcommand.name}", "", "```", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"
