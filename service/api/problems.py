"""Every error becomes ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from service.errors import PROBLEM_MEDIA_TYPE, StreamBroken, TailraceError, problem
from service.observe import Observer, Unexpected

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]
CODES = {404: "not_found", 405: "method_not_allowed", 406: "not_acceptable"}
ROWS = "/v1/rows/"


def problem_response(
    request: Request, document: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """``document`` with its own status; for rows with the member that PostgREST's clients show."""
    route = getattr(request.scope.get("route"), "path", "")
    message = {"message": document["detail"]} if route.startswith(ROWS) else {}
    return Response(
        orjson.dumps({**document, **message}),
        status_code=document["status"],
        media_type=PROBLEM_MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def handlers(observe: Observer) -> dict[int | type[Exception], Handler]:
    """The exception handlers of the application."""

    async def tailrace(request: Request, error: TailraceError) -> Response:
        if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return await unexpected(request, error)
        return problem_response(request, error.problem(request_id(request)), error.headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        found = request_id(request)
        if _is_bug(error):
            path = request.scope["path"]
            with structlog.contextvars.bound_contextvars(request_id=found):
                observe(Unexpected(path, "".join(traceback.format_exception(error))))
        detail = "An unexpected error happened. It is logged under this request_id."
        # This answer passes outside of the layer that gives the others their X-Request-Id.
        headers = {"X-Request-Id": found} if found else {}
        return problem_response(request, TailraceError(detail).problem(found), headers)

    return {
        TailraceError: tailrace,
        HTTPException: _http,
        RequestValidationError: _validation,
        Exception: unexpected,
    }


def _is_bug(error: Exception) -> bool:
    """Starlette tells of every exception here, also of those that break a stream on purpose."""
    if not isinstance(error, StreamBroken):
        return True
    cause = error.__cause__
    return cause is not None and getattr(cause, "status", 500) == HTTPStatus.INTERNAL_SERVER_ERROR


async def _http(request: Request, error: HTTPException) -> Response:
    title = HTTPStatus(error.status_code).phrase
    code = CODES.get(error.status_code, title.lower().replace(" ", "_"))
    detail = error.detail if error.detail != title else _detail(request, error.status_code)
    document = problem(error.status_code, code, title, detail, request_id(request))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return problem_response(request, document, {"Allow": _allowed(request)})
    return problem_response(request, document, error.headers)


def _allowed(request: Request) -> str:
    """Every method of the path: the route that refused names only its own."""
    offered = (
        route.methods or ()
        for route in iter_route_contexts(request.app.routes)
        if route.matches(request.scope)[0] is not Match.NONE
    )
    return ", ".join(sorted({method for methods in offered for method in methods}))


def _detail(request: Request, status: int) -> str:
    if status == HTTPStatus.NOT_FOUND:
        return f"Nothing is at {request.scope['path']}; /openapi.json lists what there is."
    return f"{request.method} is not possible here."


async def _validation(request: Request, error: RequestValidationError) -> Response:
    found = [{"loc": list(item["loc"]), "msg": item["msg"]} for item in error.errors()]
    named = ", ".join(str(item["loc"][-1]) for item in found)
    document = problem(
        422,
        "invalid_request",
        "The request is not valid",
        f"Wrong: {named}.",
        request_id(request),
        {"errors": found},
    )
    return problem_response(request, document)


def request_id(request: Request) -> str | None:
    """The id that the outermost layer gave."""
    found: str | None = request.scope.get("state", {}).get("request_id")
    return found
