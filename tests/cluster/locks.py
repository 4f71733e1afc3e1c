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
def exclusive(path: Path, what: str, progress: Progress = say) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block; says so when it has to wait.

    The file itself stays: removing it would let two holders lock two different files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "another process"
            progress(f"{what}: waiting for process {holder}, which holds {path}")
            began = time.monotonic()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            progress(f"{what}: waited {time.monotonic() - began:.0f} s")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
