"""``tailwise flops MODEL_URL``: ``tailwise inspect`` by the name of what it is mostly asked for."""

from __future__ import annotations

from typing import Any

from tailwise.cli import inspect

run = inspect.run


def add_parser(subparsers: Any) -> None:
    """Add ``flops`` and the options of ``inspect``."""
    inspect.add_parser(subparsers, "flops")
