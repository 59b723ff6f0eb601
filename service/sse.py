"""Server-Sent Events as bytes (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re

from fastapi.sse import format_sse_event

MEDIA_TYPE = "text/event-stream"
PING = b": ping\n"

BREAKING = re.compile(r"[\r\n\0]")  # it ends the line, or has the reader ignore the field
MOST_DIGITS = 18  # always below 2⁶³

# In JSON only strings hold these, so that the escapes mean the same. The standard ends no line at
# them, but whoever reads lines by str.splitlines does, as iter_lines of httpx.
NEW_LINES = {mark.encode(): rf"\u{ord(mark):04x}".encode() for mark in "\x85\u2028\u2029"}
NEW_LINE = re.compile(b"|".join(NEW_LINES))


def frame(
    name: str,
    data: bytes | str,
    *,
    id: int | str | None = None,  # noqa: A002 - the field's name in the standard
    retry_ms: int | None = None,
) -> bytes:
    """One whole event; ``data`` is UTF-8, and a CR or CRLF in it arrives as LF.

    ``id`` is what a client sends back as ``Last-Event-ID``, and ``retry_ms`` how many milliseconds
    it waits before it connects again. Raises ValueError for what no client reads as it is meant.
    """
    return format_sse_event(
        event=_one_line(name),
        data_str=data if isinstance(data, str) else data.decode(),
        id=None if id is None else _one_line(str(id)),
        retry=None if retry_ms is None else _not_negative(retry_ms),
    )


def retry(milliseconds: int) -> bytes:
    """A line before an event: how long a client waits to connect again.

    No blank line ends it, since some readers make an event of every block.
    """
    return format_sse_event(retry=_not_negative(milliseconds))[:-1]


def comment(text: str) -> bytes:
    """Lines that every client ignores, between events as ``retry``'s."""
    return format_sse_event(comment=text)[:-1]


def json_data(data: bytes) -> bytes:
    """The same JSON without the characters at which some readers would end a line."""
    if data.isascii():
        return data
    return NEW_LINE.sub(lambda found: NEW_LINES[found[0]], data)


def last_event_id(text: str) -> int | None:
    """The number in a client's ``Last-Event-ID``; None for whatever ``frame`` did not send."""
    if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS:
        return int(text)
    return None


def _one_line(value: str) -> str:
    if BREAKING.search(value):
        raise ValueError(f"{value!r} holds a line break or NUL")
    return value


def _not_negative(milliseconds: int) -> int:
    if milliseconds < 0:
        raise ValueError(f"a client would ignore a wait of {milliseconds} ms")
    return milliseconds
