"""Responses that several routes give."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response


class HeadResponse(Response):
    """The headers of a stream without the stream: no body, and no length but one that is given."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers=dict(headers))
        if "Content-Length" not in headers:
            del self.headers["content-length"]
