"""Progress that a person can follow, and the time each stage took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


def _to_standard_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(slots=True)
class Stages:
    """Tells of each stage as it begins and ends, and remembers how long it took."""

    write: Callable[[str], None] = _to_standard_error
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage of the demonstration."""
        self.report(f"==> {name}")
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - begin
        self.report(f"    {name}: done in {self.seconds[name]:.1f} s")

    def report(self, line: str) -> None:
        """One line of progress, with the time since the beginning."""
        elapsed = int(time.monotonic() - self.started)
        self.write(f"[{elapsed // 60:02d}:{elapsed % 60:02d}] {line}")
