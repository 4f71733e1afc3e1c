"""A run's progress for people: live bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column

from tailwise.training.run import Progress

_SECONDS_BETWEEN_LINES = 5.0


class Shown:
    """Shows what it is told; a context, so that a terminal is left as it was."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._bars = Bars(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=12)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            # What is under way gives way first on a narrow terminal.
            TextColumn(
                "{task.fields[what]}",
                style="dim",
                table_column=Column(no_wrap=True, overflow="ellipsis", max_width=24),
            ),
            console=Console(file=stream),
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: tuple[str, float] = ("", 0.0)

    def __enter__(self) -> Shown:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._all_done()
        self._bars.stop()

    def told(self, progress: Progress) -> None:
        """Show a stage of the run."""
        self._show(progress.stage.value, progress.done, progress.total, progress.what)

    def reading(self, name: str) -> Callable[[int, int | None], None]:
        """What a reader of a file calls."""
        return lambda done, of: self._show(f"Read {name}", done, of, "")

    def families(self, done: int, of: int, family: str) -> None:
        """Show which family is left out."""
        self._show("Families left out", done, of, family)

    def _show(self, stage: str, done: int, total: int | None, what: str) -> None:
        if self._live:
            if stage not in self._tasks:
                self._all_done()  # a stage that begins tells that those before it ended
                self._tasks[stage] = self._bars.add_task(stage, total=total, what=what)
            self._bars.update(self._tasks[stage], completed=done, total=total, what=what)
            return
        last, printed_at = self._printed
        now = time.monotonic()
        if stage != last or now - printed_at >= _SECONDS_BETWEEN_LINES:
            of = "" if total is None else f" of {total}"
            print(f"{stage}: {done}{of} {what}".rstrip(), file=self._stream, flush=True)
            self._printed = (stage, now)

    def _all_done(self) -> None:
        for task in self._tasks.values():
            self._bars.update(task, completed=self._bars.tasks[task].total, what="")
