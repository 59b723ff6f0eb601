"""The file that the test upstream serves, as a query describes it. Pure."""

from __future__ import annotations

from collections.abc import Callable

from tests.upstream_answer import Answer, Body, held
from tests.upstream_bytes import bomb, encoded, piece
from tests.upstream_options import Options

OTHER_DATE = "Fri, 02 Jan 2026 03:04:05 GMT"


def file(options: Options, version: int | None = None) -> Answer:
    """All of it. Version 1 is another file under the same address, see the option ``changes``."""
    if version is None:
        version = int(options.has("changes") and options.number >= options.count("changes", 1))
    source = next((name for name in SOURCES if options.has(name)), "plain")
    seed = options.count("seed", 0) + version
    return Answer(200, _fields(options, version, source), SOURCES[source](options, seed))


def _fields(options: Options, version: int, source: str) -> tuple[tuple[str, str], ...]:
    default = "" if options.has("type") else "application/octet-stream"
    etag, modified = options.text("etag"), options.text("modified")
    fields = {
        "Content-Type": options.text("type", default),
        "Content-Encoding": "gzip" if source in {"gzip", "bomb"} else "",
        "ETag": etag.removesuffix('"') + '-other"' if etag and version else etag,
        "Last-Modified": OTHER_DATE if modified and version else modified,
        "Accept-Ranges": "bytes" if options.has("ranges") else "",
    }
    return tuple((name, value) for name, value in fields.items() if value)


def _plain(options: Options, seed: int) -> Body:
    return Body(options.count("size", 1000), _reader(seed))


def _endless(options: Options, seed: int) -> Body:
    return Body(None, _reader(seed))


def _gzip(options: Options, seed: int) -> Body:
    return held(encoded(options.count("size", 1000), seed))


def _bomb(options: Options, seed: int) -> Body:
    return held(bomb(options.count("bomb", 4)))


def _reader(seed: int) -> Callable[[int, int], bytes]:
    return lambda first, last: piece(first, last, seed)


SOURCES: dict[str, Callable[[Options, int], Body]] = {
    "bomb": _bomb,
    "gzip": _gzip,
    "endless": _endless,
    "plain": _plain,
}
