"""A request to the test upstream → its answer, one stage after another. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

from tests.upstream_answer import Answer, bare, held
from tests.upstream_bytes import lines
from tests.upstream_conditions import conditional
from tests.upstream_file import file
from tests.upstream_options import Options
from tests.upstream_ranges import ranged
from tests.upstream_request import Request

ODD = (1, 2, 3, 7, 61, 1021, 4099)  # bytes of the writes of /lines


def answered(request: Request, options: Options) -> Answer:
    """What is sent to the request if nothing goes wrong; any other path is a file."""
    answer = PAGES.get(request.path, _file)(request, options)
    for stage in STAGES:
        answer = stage(request, options, answer)
    return answer


def _file(request: Request, options: Options) -> Answer:
    return file(options)


def _lines(request: Request, options: Options) -> Answer:
    found = lines(
        options.count("n", 100),
        malformed=options.counts("malformed"),
        overlong=options.counts("overlong"),
        width=options.count("width", 100_000),
    )
    text = b"".join(found)
    body = held(text.removesuffix(b"\n") if options.has("unended") else text)
    typed = replace(file(options), body=body, pieces=ODD).without("Content-Type")
    return typed.having(("Content-Type", options.text("type", "application/x-ndjson")))


def _loop(request: Request, options: Options) -> Answer:
    return bare(options.count("code", 302), ("Location", request.target))


def _chain(request: Request, options: Options) -> Answer:
    """``n`` redirects, each to the next, and then the file."""
    left = options.count("n", 5)
    if left == 0:
        return file(options)
    kept = [pair for pair in parse_qsl(request.query, keep_blank_values=True) if pair[0] != "n"]
    query = urlencode([("n", left - 1), *kept])
    return bare(options.count("code", 302), ("Location", f"/chain?{query}"))


def _redirected(request: Request, options: Options, answer: Answer) -> Answer:
    if not options.has("redirect"):
        return answer
    moved = replace(answer, status=options.count("code", 302))
    return moved.having(("Location", options.text("redirect")))


def _with_status(request: Request, options: Options, answer: Answer) -> Answer:
    return replace(answer, status=options.count("status", answer.status))


def _with_headers(request: Request, options: Options, answer: Answer) -> Answer:
    pairs = [text.partition(":") for text in options.every("header")]
    return answer.having(*((name, value.lstrip(" ")) for name, _, value in pairs))


PAGES: dict[str, Callable[[Request, Options], Answer]] = {
    "/lines": _lines,
    "/loop": _loop,
    "/chain": _chain,
}
STAGES = (_redirected, _with_status, conditional, ranged, _with_headers)
