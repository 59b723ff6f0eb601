"""The head of an answer on the wire, right or wrong (RFC 9112, sections 4 and 5). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus

from tests.upstream_answer import WRITE, Fields
from tests.upstream_options import Options

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
BAD_HEADERS = {
    "nul": b"X-Bad: a\x00b\r\n",
    "fold": b"X-Bad: a\r\n b\r\n",
    "cr": b"X-Bad: a\rb\r\n",
    "lf": b"X-Bad: a\nX-Next: b\r\n",
    "space": b"X-Bad : a\r\n",
    "colonless": b"X-Bad\r\n",
    "nameless": b": a\r\n",
}
MORE: dict[str, Callable[[str], bytes]] = {
    "many_headers": lambda text: b"".join(b"X-%d: 1\r\n" % n for n in range(int(text or 10_000))),
    "bad_header": lambda text: BAD_HEADERS[text or "nul"],
}


def head(options: Options, status: int, fields: Fields) -> Iterator[bytes]:
    """One write, unless it is huge."""
    if options.has("bad_head"):
        yield options.text("bad_head", "SSH-2.0-OpenSSH_9.6").encode("latin-1") + b"\r\n\r\n"
        return
    hints = HINT * options.count("hints", 1) if options.has("hints") else b""
    version = "HTTP/1.0" if options.has("http10") else "HTTP/1.1"
    lines = [f"{version} {status} {_reason(status)}", *(f"{name}: {text}" for name, text in fields)]
    known = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
    more = b"".join(MORE[name](options.text(name)) for name in MORE if options.has(name))
    if not options.has("huge_head"):
        yield hints + known + more + b"\r\n"
        return
    yield hints + known + more + b"X-Huge: "
    yield from _filling(options.count("huge_head", 100_000_000))
    yield b"\r\n\r\n"


def _filling(count: int) -> Iterator[bytes]:
    for left in range(count, 0, -WRITE):
        yield b"a" * min(left, WRITE)


def _reason(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unheard Of"
