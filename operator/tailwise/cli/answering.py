"""What commands that ask a cluster have in common: its options, errors as sentences, tables and documents."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import yaml

from tailwise.cli.waiting import shown_while_waiting
from tailwise.cluster.client import ApiError, Client, ConfigurationError, connect, context_namespace

Document = dict[str, Any]

EXIT_NO_ANSWER = 1


class NoAnswerError(Exception):
    """The question cannot be answered; the message says why and what to do."""


def add_cluster(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The options by which a cluster is found."""
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, else ~/.kube/config")
    cluster.add_argument("--context", metavar="NAME", help="context of the kubeconfig (its current one)")
    return cluster


def answer(
    command: str,
    arguments: argparse.Namespace,
    ask: Callable[[Client], Awaitable[Document]],
    table: Callable[[Document], str],
    exit_code: Callable[[Document], int] = lambda _: 0,
) -> int:
    """Ask, print the answer as it is wanted, and return the exit code of it; 1 when there is none."""
    try:
        with shown_while_waiting(f"tailwise {command}: asking the cluster"):
            document = asyncio.run(_asked(arguments, ask))
    except (NoAnswerError, ApiError, ConfigurationError) as error:
        print(f"tailwise {command}: {error}", file=sys.stderr)
        return EXIT_NO_ANSWER
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        why = str(error) or type(error).__name__
        print(f"tailwise {command}: no answer of the API server: {why}; see --kubeconfig", file=sys.stderr)
        return EXIT_NO_ANSWER
    print_document(document, arguments.output, table)
    return exit_code(document)


async def _asked(arguments: argparse.Namespace, ask: Callable[[Client], Awaitable[Document]]) -> Document:
    kubeconfig = arguments.kubeconfig or os.environ.get("KUBECONFIG")
    if arguments.context is not None:
        context_namespace(kubeconfig, arguments.context)  # says better than a connection that there is none
    # What the operator would log, a command says itself.
    logging.getLogger("tailwise").addHandler(logging.NullHandler())
    client = await connect(kubeconfig=kubeconfig, context=arguments.context)
    try:
        return await ask(client)
    finally:
        await client.close()


def print_document(document: Document, output: str, table: Callable[[Document], str]) -> None:
    """Print a document as JSON or YAML, or as a table for people."""
    if output == "json":
        print(json.dumps(document, indent=2))
    elif output == "yaml":
        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
    else:
        print(table(document))


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table as kubectl prints them; ``-`` where there is nothing."""
    cells = [tuple(header), *[tuple(shown(each) for each in row) for row in rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def shown(value: object) -> str:
    """A value as a cell of a table; figures with no more digits than tell anything."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")
    return "-" if value is None or value == "" else str(value)


def figure(value: float, digits: int = 2) -> float | None:
    """A figure as a document has it, a whole number for no digits; None where it is not a number."""
    if math.isnan(value):
        return None
    return round(float(value), digits) if digits else round(float(value))
