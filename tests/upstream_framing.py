"""How the end of a body is told, rightly and wrongly (RFC 9112, sections 6 and 7). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle

from tests.upstream_answer import Answer, Fields
from tests.upstream_options import Options

Frame = tuple[bytes, bytes, bytes]  # what stands before some bytes of the body, they, what behind

CHUNKED = ("both", "bad_chunk", "cut_tail")  # options of a chunked body alone
CLOSING = ("short", "two_lengths", "bad_length", "bad_chunk", "cut_tail")
LENGTHS: dict[str, Callable[[int, str], tuple[str, ...]]] = {
    "short": lambda size, text: (str(size + int(text or 1)),),
    "long": lambda size, text: (str(size - int(text or 1)),),
    "two_lengths": lambda size, text: (str(size), text or str(size + 1)),
    "bad_length": lambda _, text: (text,),
}


@dataclass(frozen=True, slots=True)
class Framing:
    """The fields that tell it, and the body in ``frames``; ``closes``: with the connection."""

    fields: Fields
    frames: Callable[[Iterable[bytes]], Iterator[Frame]]
    closes: bool


def framing(options: Options, answer: Answer) -> Framing:
    """None at all where an answer has no body by its status."""
    if answer.status in {204, 304}:
        return Framing((), lambda _: iter(()), closes=False)
    chunked = answer.body.size is None or any(map(options.has, CHUNKED))
    name = options.text("framing", "chunked" if chunked else "length")
    size = options.count("size", 0) if answer.body.size is None else answer.body.size
    return FRAMINGS[name](options, size)


def pieces(options: Options, answer: Answer) -> Iterator[bytes]:
    """The body in writes of the sizes asked for, over and over."""
    sizes = options.counts("pieces") or options.counts("trickle")[:1] or answer.pieces
    body, position = answer.body, 0
    for size in cycle(sizes):
        if body.size is not None and position >= body.size:
            return
        end = position + size if body.size is None else min(position + size, body.size)
        yield body.read(position, end - 1)
        position = end


def plain(data: Iterable[bytes]) -> Iterator[Frame]:
    """Bytes as they are."""
    return ((b"", some, b"") for some in data)


def _length(options: Options, size: int) -> Framing:
    return Framing(_lengths(options, size), plain, closes=any(map(options.has, CLOSING)))


def _lengths(options: Options, size: int) -> Fields:
    name = next(filter(options.has, LENGTHS), None)
    values = (str(size),) if name is None else LENGTHS[name](size, options.text(name))
    return tuple(("Content-Length", value) for value in values)


def _chunked(options: Options, size: int) -> Framing:
    told = options.has("both") or any(map(options.has, LENGTHS))
    fields = (*(_lengths(options, size) if told else ()), ("Transfer-Encoding", "chunked"))
    bad = options.text("bad_chunk", "zz").encode("latin-1") if options.has("bad_chunk") else None
    tail = not options.has("cut_tail")
    closes = any(map(options.has, CLOSING))
    return Framing(fields, lambda data: _chunks(data, bad, tail=tail), closes)


def _chunks(data: Iterable[bytes], bad: bytes | None, *, tail: bool) -> Iterator[Frame]:
    count = 0
    for count, some in enumerate(data, 1):
        line = bad if bad is not None and count == 2 else b"%x" % len(some)
        yield line + b"\r\n", some, b"\r\n"
    if tail:
        line = bad if bad is not None and count < 2 else b"0"
        yield line + b"\r\n\r\n", b"", b""


def _close(options: Options, size: int) -> Framing:
    return Framing((), plain, closes=True)


FRAMINGS: dict[str, Callable[[Options, int], Framing]] = {
    "length": _length,
    "chunked": _chunked,
    "close": _close,
}
