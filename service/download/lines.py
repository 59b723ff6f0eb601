"""JSON lines, framed anew at their ends whatever the blocks were that they came in. Pure."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence

import orjson

from service.errors import BadLine

SPACE = b" \t\r"  # RFC 8259, section 2, without the LF that ends a line


class JsonLines:
    r"""Passes JSON lines on byte for byte, with no space around them and one LF behind each.

    A line ends at LF. Blank ones are dropped, and so is a byte order mark before the first. A good
    one is a JSON text (RFC 8259) of at most ``max_line`` bytes, the space around it not counted.
    orjson decides: names may repeat and numbers have many digits. Malformed beside wrong grammar
    is what a reader may refuse (sections 6, 8 and 9): UTF-8 that is not strict, half a surrogate
    pair (``\ud800``), a number beyond a double (``1e999``), more than 1,024 levels.

    With ``skip`` a bad line is left out and counted. Without it BadLine is raised, as soon as no
    good line before it is left to give: what was given is the same in whatever blocks it came.

    ``rows`` were passed on, ``skipped`` left out. At most ``max_line`` bytes are held.
    """

    def __init__(self, max_line: int, *, skip: bool) -> None:
        self.rows = 0
        self.skipped = 0
        self._max_line = max_line
        self._skip = skip
        self._start: bytes | None = b""  # the first bytes while they may become a mark
        self._open = OpenLine(max_line)
        self._ended = 0
        self._refusal: BadLine | None = None

    def feed(self, data: bytes) -> bytes:
        """The lines that ``data`` ends, joined. Raises BadLine."""
        first, *others = self._past_mark(data).split(b"\n")
        self._open.add(first)
        lines: list[bytes | None] = []
        if others:
            last = others.pop()
            lines = [self._open.take(), *others]
            self._open.add(last)
        if self._open.too_long and not self._skip:
            lines.append(self._open.take())
        return self._framed(lines)

    def finish(self) -> bytes:
        """The last line if it had no end of its own; it gets one. Raises BadLine."""
        self._open.add(self._start or b"")
        return self._framed([self._open.take()])

    def _past_mark(self, data: bytes) -> bytes:
        if self._start is None:
            return data
        start = self._start + data
        if start != BOM_UTF8 and BOM_UTF8.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(BOM_UTF8)

    def _framed(self, lines: Sequence[bytes | None]) -> bytes:
        passed = [] if self._refusal else self._passed(lines)
        if self._refusal and not passed:
            raise self._refusal
        return b"\n".join([*passed, b""])

    def _passed(self, lines: Sequence[bytes | None]) -> list[bytes]:
        """The good ones of ``lines``, or those before the first that is refused."""
        passed = []
        for number, line in enumerate(lines, self._ended + 1):
            value = line and line.strip(SPACE)
            if value and len(value) <= self._max_line and is_json(value):
                passed.append(value)
            elif value != b"" and not self._left_out(number, value):
                break
        self._ended += len(lines)
        self.rows += len(passed)
        return passed

    def _left_out(self, number: int, value: bytes | None) -> bool:
        """Counts a bad line, or has it refused; ``value`` is None or too long, or malformed."""
        if self._skip:
            self.skipped += 1
            return True
        too_long = value is None or len(value) > self._max_line
        limit = f"longer than {self._max_line:,} bytes (max_line)"
        fault = limit if too_long else "malformed: it is not one JSON text"
        self._refusal = BadLine(f"Line {number} is {fault}.")
        return False


class OpenLine:
    """The line whose end has not come: at most ``most`` bytes, without the space before them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()
        self._length = 0  # from the first byte that is no space
        self._filled = 0  # from there behind the last one

    @property
    def too_long(self) -> bool:
        return self._filled > self._most

    def add(self, piece: bytes) -> None:
        if not self._length:
            piece = piece.lstrip(SPACE)
        if filled := len(piece.rstrip(SPACE)):
            self._filled = self._length + filled
        self._length += len(piece)
        self._held += piece[: self._most - len(self._held)]  # beyond it a good line has only space

    def take(self) -> bytes | None:
        """The whole line, with space behind it, None if it is too long; the next starts empty."""
        line = None if self.too_long else bytes(self._held)
        self._held.clear()
        self._length = self._filled = 0
        return line


def is_json(value: bytes) -> bool:
    """Whether ``value`` is one JSON text, as orjson reads it."""
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True
