"""The JSON body of a request, bounded, and read into a model."""

from __future__ import annotations

from typing import TypeVar

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.errors import BodyTooLarge, NotJson

MAX_BODY = 1024 * 1024  # bytes

Model = TypeVar("Model", bound=BaseModel)


async def json_body(request: Request, model: type[Model]) -> tuple[Model, bytes]:
    """The body as ``model``, and its bytes.

    Raises NotJson for another media type, which a form of a foreign page could send without
    being asked; BodyTooLarge; RequestValidationError with the place of every mistake.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise NotJson("Send the request as JSON, with Content-Type: application/json.")
    body = await _bounded(request)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        found = {"type": "json_invalid", "loc": ("body", error.pos), "msg": f"no JSON: {error.msg}"}
        raise RequestValidationError([found]) from error
    try:
        return model.model_validate(content), body
    except ValidationError as error:
        mistakes = [
            {**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)
        ]
        raise RequestValidationError(mistakes) from error


async def _bounded(request: Request) -> bytes:
    parts, length = [], 0
    async for part in request.stream():
        parts.append(part)
        length += len(part)
        if length > MAX_BODY:
            raise BodyTooLarge(f"A body may have {MAX_BODY} bytes.")
    return b"".join(parts)
