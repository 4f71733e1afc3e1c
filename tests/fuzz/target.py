"""What is fuzzed: a file's bytes become a profile or an error with a reason, by the child process's rule.

The child turns an exception that it did not expect into an answer too (reason InspectionCrashed): the graph
contradicts itself somewhere that no check of its own is worth. So a finding is what the child could not
answer: a crash of a library, a file that takes too long, or one that takes too much memory.
"""

from __future__ import annotations

import traceback

from tailwise.models.errors import InspectionCrashed, InspectionError
from tailwise.models.graph import GraphLimits, parse_skeleton, walk_graph
from tailwise.models.profile import build_profile
from tailwise.models.sources import Identity, Pace

LIMITS = GraphLimits(read_bytes=2**24, stream_bytes=2**24, kept_bytes=2**22)


UNEXPECTED: set[str] = set()
"""Exceptions of other kinds that came up, and where: each is worth a check of its own some day."""


class Bytes:
    """A file that is given."""

    def __init__(self, content: bytes, *, seekable: bool = True, sized: bool = True) -> None:
        self._content = content
        self.seekable = seekable
        self.size = len(content) if sized else None
        self.pace = Pace(round_trip_seconds=1e-5, bytes_per_second=1e9)
        self.bytes_read = 0
        self.identity = Identity()

    def read(self, offset: int, length: int) -> bytes:
        data = self._content[offset : offset + length]
        self.bytes_read += len(data)
        return data

    def close(self) -> None:
        """Nothing to close."""


def inspected(content: bytes) -> str:
    """Read and count; the reason of the error, or "Profile". The first bit of the last byte takes turns."""
    streamed = bool(content) and content[-1] & 1 == 1
    source = Bytes(content, seekable=not streamed, sized=not streamed)
    try:
        build_profile(parse_skeleton(walk_graph(source, LIMITS)))
    except InspectionError as error:
        if not error.reason or not error.field.startswith("spec.") or not error.message:
            raise AssertionError(f"an error without reason, field or message: {error!r}") from error
        return error.reason
    except MemoryError:
        raise  # No file of a fuzzer is large enough for that.
    except Exception as error:
        UNEXPECTED.add(f"{type(error).__name__} at {_place(error)}")
        return InspectionCrashed.reason
    return "Profile"


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = [each for each in traceback.extract_tb(error.__traceback__) if "/tailwise/" in each.filename]
    frame = ours[-1] if ours else frame
    return f"{frame.filename.rpartition('/tailwise/')[2]}:{frame.lineno} ({frame.name})"
