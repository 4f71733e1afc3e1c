"""Types of options: each takes a word and gives its value, or says what is wrong with it for argparse.

And the one option that all commands with an answer have.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Whole numbers of a range, ends included."""

    def parse(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{value} is above {most}")
        return value

    return parse


def positive_number(word: str) -> float:
    """A number above 0, and not infinite."""
    try:
        value = float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is not above 0")
    return value


def network(word: str) -> Network:
    """A network as a CIDR; an address in it will do."""
    try:
        return ipaddress.ip_network(word, strict=False)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; give a CIDR such as 10.96.0.0/12") from None


def add_output(parser: argparse.ArgumentParser) -> None:
    """The option of how the answer is printed."""
    parser.add_argument(
        "--output",
        "-o",
        choices=("table", "json", "yaml"),
        default="table",
        help="for people, or for programs",
    )
