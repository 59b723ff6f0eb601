"""Ranges of bytes: what a ``Range`` field asks for, and how several are sent as one body. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from service.errors import RangeNotSatisfiable

MAX_RANGES = 100
VERY_LARGE = 2**53 - 1  # from here on a last position means "as far as it goes" (RFC 8673)

UNIT = re.compile(r"[ \t]*bytes=(.*)", re.IGNORECASE | re.ASCII)
RANGE = re.compile(r"([0-9]{0,999})-([0-9]{0,999})")  # int() refuses numbers that are much longer


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from ``first`` to ``last``, both included, counted from 0."""

    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Multipart:
    """The frame around several spans of a whole of ``size`` bytes (RFC 9110, section 14.6).

    ``boundary`` must not occur in the whole.
    """

    spans: tuple[Span, ...]
    size: int
    media_type: str
    boundary: str

    @property
    def content_type(self) -> str:
        return f"multipart/byteranges; boundary={self.boundary}"

    def heads(self) -> list[bytes]:
        """What stands before the bytes of each span."""
        heads = [self._head(span) for span in self.spans]
        return [heads[0], *(b"\r\n" + head for head in heads[1:])]

    def tail(self) -> bytes:
        """What stands behind the bytes of the last span."""
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")

    def length(self) -> int:
        """The bytes of the body in all, its Content-Length."""
        bodies = sum(span.length for span in self.spans)
        return bodies + sum(map(len, self.heads())) + len(self.tail())

    def _head(self, span: Span) -> bytes:
        where = content_range(span.first, span.last, self.size)
        lines = f"--{self.boundary}", f"Content-Type: {self.media_type}", f"Content-Range: {where}"
        return "\r\n".join((*lines, "", "")).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent of a whole of ``size`` bytes: all of it where ``asked``, from ``spans``, is None.

    ``boundary`` parts several spans, and must not occur in the whole.
    """

    size: int
    media_type: str
    asked: tuple[Span, ...] | None
    boundary: str

    @property
    def status(self) -> int:
        return 200 if self.asked is None else 206

    @property
    def length(self) -> int:
        """The bytes of the body in all, its Content-Length."""
        frame = self._frame
        return sum(span.length for span in self._spans) if frame is None else frame.length()

    def headers(self) -> dict[str, str]:
        told = {"Accept-Ranges": "bytes", "Content-Type": self.media_type}
        if (frame := self._frame) is not None:
            told["Content-Type"] = frame.content_type
        elif self.asked is not None:
            (span,) = self.asked
            told["Content-Range"] = content_range(span.first, span.last, self.size)
        return {**told, "Content-Length": str(self.length)}

    def pieces(self) -> Iterator[bytes | Span]:
        """What to send, in order: bytes as they are, and what is in these places of the whole."""
        frame = self._frame
        if frame is None:
            yield from self._spans
            return
        for head, span in zip(frame.heads(), self._spans, strict=True):
            yield head
            yield span
        yield frame.tail()

    @property
    def _spans(self) -> tuple[Span, ...]:
        if self.asked is None:
            return (Span(0, self.size - 1),) if self.size else ()
        return self.asked

    @property
    def _frame(self) -> Multipart | None:
        if len(self._spans) < 2:  # noqa: PLR2004 - one needs none
            return None
        return Multipart(self._spans, self.size, self.media_type, self.boundary)


def spans(header: str | None, size: int) -> tuple[Span, ...] | None:
    """What to send of a whole of ``size`` bytes (RFC 9110, section 14.2); None: the whole.

    In the order asked. Spans that overlap or touch become one where the first of them was asked
    for, so that no byte is sent twice. Raises RangeNotSatisfiable when nothing is at any of them.
    """
    asked = _asked(header)
    if not asked or len(asked) > MAX_RANGES or size == 0:
        return None
    found = [span for positions in asked if (span := _span(*positions, size)) is not None]
    if not found:
        raise RangeNotSatisfiable(size)
    return _coalesced(found)


def live_span(header: str | None) -> tuple[int, int | None] | None:
    """The first and last byte of a single range of what is still growing; None: the whole.

    The last one is None where the range is open or ends at VERY_LARGE (RFC 8673, section 2.1). A
    suffix of what has no end yet cannot be told.
    """
    asked = _asked(header)
    if not asked or len(asked) > 1:
        return None
    first, last = asked[0]
    if first is None:
        return None
    return first, None if last is None or last >= VERY_LARGE else last


def content_range(first: int, last: int, size: int | None) -> str:
    """The value of ``Content-Range``; a ``size`` of None is not known yet (section 14.4)."""
    return f"bytes {first}-{last}/{'*' if size is None else size}"


def _asked(header: str | None) -> list[tuple[int | None, int | None]] | None:
    """First and last position of each range; None for another unit and for what is malformed."""
    found = UNIT.fullmatch(header or "")
    if found is None:
        return None
    texts = [text for item in found[1].split(",") if (text := item.strip(" \t"))]
    asked = [_positions(text) for text in texts]
    valid = [positions for positions in asked if positions is not None]
    return valid if len(valid) == len(asked) else None


def _positions(text: str) -> tuple[int | None, int | None] | None:
    found = RANGE.fullmatch(text)
    if found is None or not any(found.groups()):
        return None
    first, last = (int(digits) if digits else None for digits in found.groups())
    return None if first is not None and last is not None and last < first else (first, last)


def _span(first: int | None, last: int | None, size: int) -> Span | None:
    """What is at these positions; without a first one, ``last`` is the length of a suffix."""
    if first is None:
        first, last = max(size - (last or 0), 0), None
    last = size - 1 if last is None else min(last, size - 1)
    return Span(first, last) if first <= last else None


def _coalesced(found: Iterable[Span]) -> tuple[Span, ...]:
    kept: list[Span] = []
    for span in found:
        touching = [other for other in kept if _touch(span, other)]
        place = kept.index(touching[0]) if touching else len(kept)
        kept = [other for other in kept if other not in touching]
        kept.insert(place, _hull([span, *touching]))
    return tuple(kept)


def _touch(one: Span, other: Span) -> bool:
    return one.first <= other.last + 1 and other.first <= one.last + 1


def _hull(group: Sequence[Span]) -> Span:
    return Span(min(span.first for span in group), max(span.last for span in group))
