"""Conditional requests to the test upstream (RFC 9110, section 13). Pure."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from tests.upstream_answer import Answer, bare
from tests.upstream_options import Options
from tests.upstream_request import Request


def conditional(request: Request, options: Options, answer: Answer) -> Answer:
    """304 and 412 where the conditions of the request ask for it."""
    if answer.status != 200:
        return answer
    etag = answer.field("ETag") or ""
    match, none_match = request.header("If-Match"), request.header("If-None-Match")
    if match is not None and not _names(match, etag):
        return bare(412)
    if none_match is not None:
        same = _names(none_match.replace("W/", ""), etag.removeprefix("W/"))
    else:
        same = _unmodified(request.header("If-Modified-Since"), answer.field("Last-Modified"))
    if not same:
        return answer
    kept = ("ETag", "Last-Modified")
    return bare(304, *(pair for pair in answer.fields if pair[0] in kept))


def is_current(if_range: str | None, answer: Answer) -> bool:
    """Whether a range may be sent: by strong comparison (section 13.1.5)."""
    if if_range is None:
        return True
    weak = if_range.startswith("W/")
    return not weak and if_range in {answer.field("ETag"), answer.field("Last-Modified")}


def _names(listed: str, etag: str) -> bool:
    """Whether a list of strong tags has this one."""
    return listed == "*" or etag in [tag.strip() for tag in listed.split(",") if tag.strip()]


def _unmodified(since: str | None, modified: str | None) -> bool:
    if since is None or modified is None:
        return False
    return parsedate_to_datetime(modified) <= parsedate_to_datetime(since)
