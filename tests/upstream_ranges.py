"""Ranges of the test upstream: as RFC 9110, section 14, has them, and as a liar does. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.upstream_answer import Answer, Body, bare, held
from tests.upstream_conditions import is_current
from tests.upstream_file import file
from tests.upstream_options import Options
from tests.upstream_request import Request

Span = tuple[int, int]  # first and last byte, both included

BOUNDARY = "upstream-boundary"
RANGE = re.compile(r"[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII)


def ranged(request: Request, options: Options, answer: Answer) -> Answer:
    """206 or 416 where a range is asked for and ``ranges`` is on."""
    field, mode = request.header("Range"), options.text("ranges")
    size = answer.body.size
    if not mode or field is None or answer.status != 200 or size is None:
        return answer
    spans = asked(field, size)
    if spans is None or not is_current(request.header("If-Range"), answer):
        return answer
    if not spans:
        return _refused(options, answer, spans)
    honest = options.number < options.count("lies_from", 1)
    return RANGES["1" if honest else mode](options, answer, spans)


def asked(field: str, size: int) -> list[Span] | None:
    """The spans that there are; None for another unit and for what is malformed."""
    unit, _, texts = field.partition("=")
    found = [RANGE.fullmatch(text) for text in texts.split(",")]
    if unit.strip().lower() != "bytes" or not all(match and any(match.groups()) for match in found):
        return None
    spans = [_span(match[1], match[2], size) for match in found if match]
    return [(first, last) for first, last in spans if first <= last]


def _span(first: str, last: str, size: int) -> Span:
    if not first:
        return max(size - int(last), 0), size - 1
    return int(first), min(int(last or size), size - 1)


def part(answer: Answer, span: Span, *, total: int | None = None) -> Answer:
    """206 with one span."""
    first, last = span
    read = answer.body.read
    body = Body(last - first + 1, lambda start, end: read(first + start, first + end))
    named = answer.body.size if total is None else total
    found = replace(answer, status=206, body=body, first=first)
    return found.having(("Content-Range", f"bytes {first}-{last}/{named}"))


def _parts(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """206 with what is asked for."""
    if len(spans) == 1:
        return part(answer, spans[0])
    media = answer.field("Content-Type") or "application/octet-stream"
    body = b"".join(_framed(answer.body, span, media) for span in spans)
    found = answer.without("Content-Type").having(
        ("Content-Type", f"multipart/byteranges; boundary={BOUNDARY}")
    )
    return replace(found, status=206, body=held(body + f"\r\n--{BOUNDARY}--\r\n".encode()))


def _framed(body: Body, span: Span, media: str) -> bytes:
    first, last = span
    where = f"Content-Range: bytes {first}-{last}/{body.size}"
    head = f"\r\n--{BOUNDARY}\r\nContent-Type: {media}\r\n{where}\r\n\r\n"
    return head.encode() + body.read(first, last)


def _refused(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """416."""
    return bare(416, ("Content-Range", f"bytes */{answer.body.size}"))


def _lie(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """200 from the start, though ranges are said to be accepted."""
    return answer


def _shift(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """206 from another byte than asked for, and it says so."""
    first, last = spans[0]
    return part(answer, (first - 1 if first else min(1, last), last))


def _other(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """206 of another file: another ETag, other bytes."""
    return part(file(options, version=1), spans[0])


def _total(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """206 whose Content-Range gives another size of the whole."""
    return part(answer, spans[0], total=(answer.body.size or 0) + 1)


def _less(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """206 with the first half of what is asked for, which a server may send."""
    first, last = spans[0]
    return part(answer, (first, (first + last) // 2))


def _more(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """206 from where it is asked for to the end of the file."""
    return part(answer, (spans[0][0], (answer.body.size or 0) - 1))


def _unsaid(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """206 without Content-Range."""
    return part(answer, spans[0]).without("Content-Range")


def _untagged(options: Options, answer: Answer, spans: Sequence[Span]) -> Answer:
    """206 without the ETag that the whole has."""
    return part(answer, spans[0]).without("ETag")


RANGES: dict[str, Callable[[Options, Answer, Sequence[Span]], Answer]] = {
    "1": _parts,
    "lie": _lie,
    "shift": _shift,
    "other": _other,
    "total": _total,
    "less": _less,
    "more": _more,
    "unsaid": _unsaid,
    "untagged": _untagged,
    "refused": _refused,
}
