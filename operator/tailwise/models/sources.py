"""Bytes at an address, read in ranges: the one interface between stores and formats."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tailwise.models.errors import InvalidUrl, ModelForbidden, ModelNotFound, ModelUnreachable


@dataclass(frozen=True, slots=True)
class Identity:
    """What a store says the file is: its own digest or tag, so that a change is noticed without reading."""

    value: str = ""
    source: str = ""

    @property
    def sha256(self) -> str | None:
        """The file's sha256 where the store's tag is one (hubs of models, registries), else None."""
        digits = self.value.lower()
        return digits if len(digits) == 64 and set(digits) <= set("0123456789abcdef") else None


class Pace:
    """What a store has shown so far: its least round trip, and the bandwidth of all its answers.

    The bandwidth begins with an assumption on the fast side that the first answers replace: a gap is read
    through a little too long rather than jumped over for nothing, and weighed again while it is read.
    """

    # Below this round trip waiting is not felt, and skipped bytes are worth more than the time.
    SHORT_ROUND_TRIP_SECONDS = 0.010
    SHORT_JUMP_BYTES = 48 * 1024
    MOST_JUMP_BYTES = 16 * 2**20
    LONG_MARGIN = 1.25
    # As if that much had been transferred: one short answer among busy neighbours proves little.
    _ASSUMED_BYTES = 128 * 1024

    def __init__(self, round_trip_seconds: float = 1.0, bytes_per_second: float = 125e6) -> None:
        """Begin with an assumption, which the first answers replace."""
        self.round_trip_seconds = round_trip_seconds
        self.bytes_per_second = bytes_per_second
        self.reconnect_seconds = 0.0
        """What a jump costs beside the round trip, where the open answer has to be broken off for it."""
        self._bytes = self._ASSUMED_BYTES
        self._seconds = self._bytes / bytes_per_second

    def waited(self, seconds: float) -> None:
        """An answer began that long after it was asked for."""
        self.round_trip_seconds = min(self.round_trip_seconds, seconds)

    def transferred(self, count: int, seconds: float) -> None:
        """An answer's content took that long."""
        if count >= 4 * 1024:
            self._bytes += count
            self._seconds += seconds
            self.bytes_per_second = self._bytes / max(self._seconds, 1e-6)

    @property
    def long(self) -> bool:
        """Whether a round trip is felt."""
        return self.round_trip_seconds >= self.SHORT_ROUND_TRIP_SECONDS

    @property
    def jump_bytes(self) -> int:
        """Gaps from this size on are cheaper to jump over than to read through.

        That is what is transferred during a round trip; at most 48 KiB where a round trip is short.
        """
        gap = (self.round_trip_seconds + self.reconnect_seconds) * self.bytes_per_second
        # On a long way a jump that saves next to nothing is not worth what may go wrong with it.
        gap = gap * self.LONG_MARGIN if self.long else min(gap, self.SHORT_JUMP_BYTES)
        return int(min(max(gap, 4 * 1024), self.MOST_JUMP_BYTES))


class ByteSource(Protocol):
    """A file somewhere. ``read`` returns at least one byte, at most ``length``, or none at the end.

    ``seekable`` is False where only the next bytes can be had; reading at an earlier offset is then an
    error. ``size`` is None where the store does not tell. Errors are ``InspectionError``.
    """

    seekable: bool
    pace: Pace

    @property
    def bytes_read(self) -> int:
        """Bytes that came from the store so far."""

    @property
    def size(self) -> int | None:
        """Size of the file in bytes."""

    @property
    def identity(self) -> Identity:
        """The store's own digest or tag of the file."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on."""

    def close(self) -> None:
        """Give up connections and handles."""


class FileSource:
    """A file of this machine's file system."""

    seekable = True

    def __init__(self, path: Path) -> None:
        self.bytes_read = 0
        # A seek costs next to nothing; the figures make the reader fetch pages and jump over most tensors.
        self.pace = Pace(round_trip_seconds=1e-5, bytes_per_second=1e9)
        try:
            # Not blocking, so that a pipe without a writer cannot hold the process.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelNotFound(f"there is no file {path}") from error
        except PermissionError as error:
            raise ModelForbidden(f"the file {path} may not be read by this user") from error
        except (OSError, ValueError) as error:
            raise ModelUnreachable(f"the file {path} cannot be opened ({error})") from error
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise InvalidUrl(f"{path} is not a regular file; name the .onnx file itself")
        self._size = status.st_size
        self._tag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._size

    @property
    def identity(self) -> Identity:
        """Inode, time of change and size: enough to notice a new file, no digest."""
        return Identity(self._tag, "FileStatus")

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on."""
        data = os.pread(self._descriptor, length, offset)
        self.bytes_read += len(data)
        return data

    def close(self) -> None:
        """Close the handle."""
        with suppress(OSError):
            os.close(self._descriptor)


class _PassedThrough:
    """A source around another that changes one thing of it."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.pace = source.pace

    @property
    def size(self) -> int | None:
        """Size of the file in bytes."""
        return self._source.size

    @property
    def bytes_read(self) -> int:
        """Bytes that came from the store so far."""
        return self._source.bytes_read

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on."""
        return self._source.read(offset, length)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class IdentifiedSource(_PassedThrough):
    """A source whose identity is known from elsewhere: from a registry's manifest."""

    def __init__(self, source: ByteSource, identity: Identity) -> None:
        super().__init__(source)
        self.seekable = source.seekable
        self.identity = identity


class HashingSource(_PassedThrough):
    """A streamed source whose digest is known once all of it has passed."""

    seekable = False

    def __init__(self, source: ByteSource) -> None:
        super().__init__(source)
        self._digest = hashlib.sha256()
        self._passed = 0

    @property
    def identity(self) -> Identity:
        """The store's own digest or tag."""
        return self._source.identity

    def read(self, offset: int, length: int) -> bytes:
        """The next bytes."""
        data = super().read(offset, length)
        self._digest.update(data)
        self._passed += len(data)
        return data

    def rest_of_digest(self, limit_bytes: int) -> str | None:
        """Read what is left; the whole file's sha256, None when it is larger than the limit."""
        while self.read(self._passed, 4 * 2**20):
            if self._passed > limit_bytes:
                return None
        return self._digest.hexdigest()


def sha256_of(source: ByteSource, limit_bytes: int) -> str | None:
    """Digest of the whole file, or None when it is larger than the limit; reads (the rest of) all of it."""
    if source.size is not None and source.size > limit_bytes:
        return None
    if isinstance(source, HashingSource):
        return source.rest_of_digest(limit_bytes)
    digest, offset = hashlib.sha256(), 0
    while chunk := source.read(offset, 4 * 2**20):
        digest.update(chunk)
        offset += len(chunk)
        if offset > limit_bytes:
            return None
    return digest.hexdigest()
