"""Conditional requests: an answer that the client has already is not sent again."""

from __future__ import annotations

import hashlib
import re

from starlette.requests import Request
from starlette.responses import Response

TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
LIST = re.compile(rf"[ \t,]*{TAG.pattern}(?:[ \t]*,[ \t,]*{TAG.pattern})*[ \t,]*")
OF_THE_BODY = ("content-type", "content-length")


def conditional(request: Request, response: Response) -> Response:
    """``response`` with a strong ETag, or 304 in its place if ``If-None-Match`` names that.

    For answers of status 200 to GET and HEAD, whose body is there as a whole.
    """
    tag = entity_tag(bytes(response.body))
    response.headers["ETag"] = tag
    if not names(", ".join(request.headers.getlist("if-none-match")), tag):
        return response
    kept = {name: text for name, text in response.headers.items() if name not in OF_THE_BODY}
    return Response(status_code=304, headers=kept)


def entity_tag(body: bytes) -> str:
    """A strong validator of exactly these bytes (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.sha256(body).hexdigest()}"'


def names(if_none_match: str, tag: str) -> bool:
    """Whether the field's value names ``tag``, compared weakly (RFC 9110, section 13.1.2).

    A value that does not keep to the grammar names nothing: a whole answer is never wrong.
    """
    if if_none_match.strip(" \t") == "*":
        return True
    return LIST.fullmatch(if_none_match) is not None and tag in TAG.findall(if_none_match)
