"""Conditional requests: an answer that the client has already is not sent again."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from service.preconditions import entity_tag, names

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
