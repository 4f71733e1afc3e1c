"""Runs in a pod: a neighbour that uses a share of the node's cores, in bursts as a server's queries are.

POST / with {"share": 0.35, "cores": 1.5} sets it; a share of 1 never rests. Each process wants its part of
the work whatever it gets: a burst that others slowed down is followed by less rest.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

PORT = 8091
_BURST_SECONDS = 0.012
_LONGEST_BURST_SECONDS = 0.06
_BACKLOG_SECONDS = 0.25


def burn(demand: Any, number: int) -> None:
    """Use ``demand.value`` of one CPU, for ever."""
    generator = random.Random(number)  # noqa: S311 - bursts, no secrets
    due = time.monotonic()
    while True:
        wanted = demand.value
        if wanted <= 0:
            time.sleep(0.02)
            due = time.monotonic()
            continue
        burst = min(generator.expovariate(1 / _BURST_SECONDS), _LONGEST_BURST_SECONDS)
        end = time.thread_time() + burst
        while time.thread_time() < end:
            for _ in range(500):
                pass
        if wanted >= 1:
            due = time.monotonic()
            continue
        due = max(due + burst / wanted, time.monotonic() - _BACKLOG_SECONDS)
        rest = due - time.monotonic()
        if rest > 0:
            time.sleep(rest)


class Handler(BaseHTTPRequestHandler):
    """POST sets the share."""

    demands: list[Any] = []  # noqa: RUF012 - filled once, before the server begins

    def do_GET(self) -> None:
        """Ready."""
        self._answer()

    def do_POST(self) -> None:
        """Share the demand over as many processes as the node has CPUs."""
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        processes = max(1, math.ceil(wanted["cores"]))
        # On a part of a core a process that wants that part and one that never rests are told apart.
        each = 1.0 if wanted["share"] >= 1 else wanted["share"] * wanted["cores"] / processes
        for number, demand in enumerate(self.demands):
            demand.value = each if number < processes else 0.0
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
        """Say nothing."""

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    Handler.demands = [multiprocessing.Value("d", 0.0) for _ in range(os.cpu_count() or 1)]
    for number, demand in enumerate(Handler.demands):
        multiprocessing.Process(target=burn, args=(demand, number), daemon=True).start()
    HTTPServer(("", PORT), Handler).serve_forever()
