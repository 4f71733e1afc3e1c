"""Tells who waits that something is still being done, and for how long it has been."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_SECONDS = 2.0
LINE_SECONDS = 10.0


@contextmanager
def shown_while_waiting(what: str, quiet_seconds: float = QUIET_SECONDS) -> Iterator[None]:
    """Show ``what`` and the seconds it has taken on standard error, from ``quiet_seconds`` on.

    A terminal gets one line that changes and then goes; a file or a pipe gets a line every ten seconds.
    """
    done = threading.Event()
    shower = threading.Thread(target=_show, args=(what, quiet_seconds, done), daemon=True)
    shower.start()
    try:
        yield
    finally:
        done.set()
        shower.join()


def _show(what: str, quiet_seconds: float, done: threading.Event) -> None:
    begin = time.monotonic()
    if done.wait(quiet_seconds):
        return
    if not sys.stderr.isatty():
        while True:
            print(f"{what} ({time.monotonic() - begin:.0f} s)", file=sys.stderr, flush=True)
            if done.wait(LINE_SECONDS):
                return
    while True:
        print(f"\r{what} ({time.monotonic() - begin:.0f} s)\x1b[K", end="", file=sys.stderr, flush=True)
        if done.wait(0.5):
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            return
