"""The outermost ASGI layer: an id for every request, its log line, its metrics."""

from __future__ import annotations

import re
import time

import structlog
import uuid_utils.compat as uuid_utils
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observe import Observer, RequestEnded

ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
UNROUTED = "unrouted"


class RequestContext:
    """Pure ASGI: it must not touch the body, which may be a stream that breaks on purpose."""

    def __init__(self, app: ASGIApp, observe: Observer) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status: int | None = None

        async def identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        started = time.monotonic()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, identified)
            except Exception:
                # The layer around this one answers it, unless the response has begun.
                status = status or 500
                raise
            finally:
                route = getattr(scope.get("route"), "path", UNROUTED)
                seconds = time.monotonic() - started
                self._observe(
                    RequestEnded(scope["method"], scope["path"], route, status, round(seconds, 6))
                )


def _request_id(scope: Scope) -> str:
    """The caller's ``X-Request-Id`` where it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if ACCEPTED_ID.fullmatch(given):
                return str(given)
    return str(uuid_utils.uuid7())
