"""JSON answers by orjson."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.api.conditional import conditional


def json_response(
    content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """``content`` as JSON that nobody may keep, since it is live."""
    return Response(
        orjson.dumps(content),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def stable_json(
    request: Request, content: Any, *, cache_control: str = "private, no-cache"
) -> Response:
    """``content`` as JSON that a client may keep and ask about, by ``If-None-Match``.

    What depends on the caller's rights stays ``private``.
    """
    return conditional(request, json_response(content, headers={"Cache-Control": cache_control}))
