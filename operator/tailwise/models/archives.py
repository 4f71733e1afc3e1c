"""A file inside a tar archive that is itself a source of bytes, compressed by gzip or not.

Of a plain archive only the headers are read and the file becomes a window of the source. A compressed one
can only be unpacked from its beginning; what it unpacks to is bounded, so a small archive of zeros ends in
an error and not in a full memory.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, cast

from tailwise.models.errors import ModelTooLarge, ModelTruncated, ModelUnreachable
from tailwise.models.sources import ByteSource, Identity, Pace

_MOST_MEMBERS = 100_000
_BUFFER_BYTES = 16 * 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def open_member(source: ByteSource, path: str, most_bytes: int) -> ByteSource | None:
    """The file at ``path`` of the archive, or its only ``*.onnx`` where path is empty; None without one.

    Raises ModelTooLarge past ``most_bytes`` unpacked, ModelTruncated and ModelUnreachable for an archive
    that is broken or compressed in another way.
    """
    head = source.read(0, 4)
    if head.startswith(_ZSTD):
        raise ModelUnreachable("a layer of the image is compressed by zstd; build the image with gzip layers")
    if head.startswith(_GZIP) or not source.seekable:
        unpacked = _Unpacked(source, head, most_bytes) if head.startswith(_GZIP) else _Plain(source, head)
        return _streamed(unpacked, path)
    file = _RangeFile(source)
    try:
        with tarfile.open(fileobj=cast(Any, file), mode="r:") as archive:
            for member in _files(archive):
                if _meant(member.name, path):
                    return _Window(source, member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise ModelTruncated(f"a layer of the image is not a readable tar archive ({error})") from error
    return None


def _streamed(unpacked: _Stream, path: str) -> ByteSource | None:
    try:
        with tarfile.open(fileobj=cast(Any, unpacked), mode="r|", bufsize=tarfile.BLOCKSIZE) as archive:
            for member in _files(archive):
                if _meant(member.name, path):
                    reader = archive.extractfile(member)
                    # The archive object must outlive this block: its file reads through it.
                    return _Member(unpacked, archive, reader, member.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ModelTruncated(f"a layer of the image is not a readable tar archive ({error})") from error
    return None


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for seen, member in enumerate(archive):
        if seen > _MOST_MEMBERS:
            raise ModelTooLarge(f"a layer of the image has more than {_MOST_MEMBERS} files")
        if member.isreg():
            yield member


def _meant(name: str, path: str) -> bool:
    name = name.removeprefix("./").lstrip("/")
    if path:
        return name in (path, f"models/{path}")
    return name.endswith(".onnx")


class _RangeFile(io.RawIOBase):
    """A source as a file that can seek, with a small buffer: headers lie far apart."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._position, self._start, self._buffer = 0, 0, b""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size or 0}[whence]
        self._position = origin + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        out = bytearray()
        while size < 0 or len(out) < size:
            begin = self._position - self._start
            if not 0 <= begin < len(self._buffer):
                self._start, begin = self._position, 0
                self._buffer = self._source.read(self._position, max(_BUFFER_BYTES, size - len(out)))
                if not self._buffer:
                    break
            part = self._buffer[begin:] if size < 0 else self._buffer[begin : begin + size - len(out)]
            out += part
            self._position += len(part)
        return bytes(out)


class _Window:
    """A part of a source that is a file of its own."""

    seekable = True

    def __init__(self, source: ByteSource, begin: int, size: int) -> None:
        self._source, self._begin, self.size = source, begin, size
        self.pace = source.pace
        self.identity = Identity()

    @property
    def bytes_read(self) -> int:
        return self._source.bytes_read

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        return self._source.read(self._begin + offset, length) if length > 0 else b""

    def close(self) -> None:
        self._source.close()


class _Plain:
    """A source that can only be read in order, as tarfile wants it."""

    def __init__(self, source: ByteSource, head: bytes) -> None:
        self.source, self._left, self._offset = source, head, len(head)

    def read(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            if not self._left:
                self._left = self._more()
                if not self._left:
                    break
            part, self._left = self._left[: size - len(out)], self._left[size - len(out) :]
            out += part
        return bytes(out)

    def _more(self) -> bytes:
        data = self.source.read(self._offset, 256 * 1024)
        self._offset += len(data)
        return data


class _Unpacked(_Plain):
    """The same, through gzip; ``most_bytes`` bounds what comes out."""

    def __init__(self, source: ByteSource, head: bytes, most_bytes: int) -> None:
        super().__init__(source, b"")
        self._packed, self._offset = head, len(head)
        self._inflate = zlib.decompressobj(wbits=31)
        self._room = self._most = most_bytes

    def _more(self) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed or super()._more()
            self._packed = b""
            if not packed:
                raise ModelTruncated("a layer of the image ends inside its compressed data")
            try:
                data = self._inflate.decompress(packed, 256 * 1024)
            except zlib.error as error:
                raise ModelTruncated(f"a layer of the image cannot be unpacked ({error})") from error
            self._room -= len(data)
            if self._room < 0:
                raise ModelTooLarge(f"a layer of the image unpacks to more than {self._most // 2**20} MiB")
            if data:
                return data
        return b""


_Stream = _Plain


class _Member:
    """A file of an archive that is read in order."""

    seekable = False

    def __init__(self, stream: _Plain, archive: tarfile.TarFile, reader: Any, size: int) -> None:
        self._stream, self._archive, self._reader, self.size = stream, archive, reader, size
        self._offset = 0
        self.pace = Pace()
        self.identity = Identity()

    @property
    def bytes_read(self) -> int:
        return self._stream.source.bytes_read

    def read(self, offset: int, length: int) -> bytes:
        if offset != self._offset:
            raise AssertionError("a streamed file is read in order")
        try:
            data = bytes(self._reader.read(min(length, 256 * 1024)))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ModelTruncated(f"a layer of the image breaks off ({error})") from error
        self._offset += len(data)
        return data

    def close(self) -> None:
        self._stream.source.close()
