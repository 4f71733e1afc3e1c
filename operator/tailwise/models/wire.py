"""Reads a protobuf message in order, leaving out what is not wanted, without holding or fetching it.

A reader keeps one window of the file. Skipping moves the position; only the next read decides whether the
gap is jumped over (a new request) or read through, by the pace the source has shown: a gap costs the time
to transfer it, a jump a round trip. How much is read in advance follows the same rule. After a jump it is
little, since behind a large weight mostly stands the next large one; where reading goes on in order it
grows, up to a few round trips' worth; and a rest that takes less than two of them is read at once.
"""

from __future__ import annotations

from tailwise.models.errors import ModelTooLarge, ModelTruncated, NotAModel
from tailwise.models.sources import ByteSource

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
LEAST_READ_BYTES = 2 * 1024
MOST_READ_BYTES = 16 * 2**20


class WireReader:
    """A position in a file, and the window of it that is in memory.

    ``limit_bytes`` bounds what is fetched from the source in all.
    """

    def __init__(self, source: ByteSource, limit_bytes: int) -> None:
        self._source = source
        self._limit_bytes = limit_bytes
        self._window = b""
        self._start = 0
        self._ahead = LEAST_READ_BYTES
        self.position = 0

    @property
    def size(self) -> int | None:
        """Size of the file, None where it is not known before its end."""
        return self._source.size

    def at_end(self) -> bool:
        """Whether no byte is left."""
        return not self._fill(1)

    def take(self, length: int) -> bytes:
        """The next bytes; ModelTruncated when the file has fewer."""
        if not self._fill(length):
            raise ModelTruncated(f"the file ends at byte {self._end()}, inside its graph; upload it again")
        begin = self.position - self._start
        self.position += length
        return self._window[begin : begin + length]

    def skip(self, length: int) -> None:
        """Move on without reading; whether there is anything is seen at the next read."""
        self.position += length

    def varint(self) -> tuple[int, bytes]:
        """The next variable-length integer, and the bytes it is written in."""
        value, shift = 0, 0
        raw = bytearray()
        while True:
            begin = self.position - self._start
            if not 0 <= begin < len(self._window):
                byte = self.take(1)[0]
            else:
                byte = self._window[begin]
                self.position += 1
            raw.append(byte)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, bytes(raw)
            shift += 7
            if shift > 63:
                raise NotAModel("the file is not an ONNX model (an invalid number in its structure)")

    def _end(self) -> int:
        return self._start + len(self._window)

    def _fill(self, length: int) -> bool:
        """Have ``length`` bytes from the position on in the window; False at the end of the file."""
        missing = self.position + length - self._end()
        if missing <= 0:
            return True
        if self._source.size is not None and self.position + length > self._source.size:
            return False
        if self.position < self._end():
            self._window = self._window[self.position - self._start :]
            self._start = self.position
        while self.position + length > self._end():
            # Weighed anew with each piece: reading tells the pace that the decision stands on.
            gap = self.position - self._end()
            if gap > 0 and self._source.seekable and gap >= self._source.pace.jump_bytes:
                self._window, self._start = b"", self.position
                self._ahead = self._after_jump()
            wanted = max(self.position + length - self._end() + self._ahead, self._short_rest())
            data = self._source.read(self._end(), wanted)
            if self._source.bytes_read > self._limit_bytes:
                raise ModelTooLarge(
                    f"more than {self._limit_bytes // 2**20} MiB would have to be read to get at the graph"
                )
            if not data:
                return False
            self._ahead = self._in_order()
            self._append(data)
        return True

    def _append(self, data: bytes) -> None:
        """Add to the window, and let go of what lies before the position."""
        end = self._end() + len(data)
        if end <= self.position:
            self._window, self._start = b"", end
            return
        joined = self._window + data
        drop = max(0, self.position - self._start)
        self._window, self._start = joined[drop:], self._start + drop

    def _after_jump(self) -> int:
        """How much to read in advance behind a jump."""
        return min(max(self._source.pace.jump_bytes // 32, LEAST_READ_BYTES), 64 * 1024)

    def _in_order(self) -> int:
        """How much to read in advance when the last read was followed by its neighbour."""
        jump = self._source.pace.jump_bytes
        return min(max(2 * self._ahead, jump // 16), 4 * jump, MOST_READ_BYTES)

    def _short_rest(self) -> int:
        """All that is left, where two round trips would take longer; else nothing."""
        if self._source.size is None or not self._source.seekable:
            return 0
        rest = self._source.size - self._end()
        return rest if rest <= 2 * self._source.pace.jump_bytes else 0
