"""File locks between processes, which the kernel releases when their holder dies."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[str], None]


def say(line: str) -> None:
    """Print a line of progress at once, even into a pipe."""
    print(line, flush=True)


@contextmanager
def exclusive(path: Path, what: str, progress: Progress = say, *, remove: bool = False) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block; says so when it has to wait.

    `remove` takes the file away at the end, for what will not come back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(path, what, progress)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
        if remove:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(path: Path, what: str, progress: Progress) -> int:
    """Return the open and locked file that has this name now: a holder before us may have removed another."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "another process"
            progress(f"{what}: waiting for process {holder}, which holds {path}")
            began = time.monotonic()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            progress(f"{what}: waited {time.monotonic() - began:.0f} s")
        try:
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)
