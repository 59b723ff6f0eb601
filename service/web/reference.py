"""GET /openapi.json, and /docs: the same as a page, without scripts and without other hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from service.api.addresses import base_of
from service.api.conditional import conditional
from service.api.json import stable_json
from service.api.router import Router
from service.web.page import html_page

router = Router(include_in_schema=False)

METHODS = ("get", "post", "delete")
CACHE_CONTROL = "no-cache"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, as the template shows it."""

    method: str
    path: str
    summary: str
    description: str
    tag: str
    parameters: tuple[Mapping[str, Any], ...]
    responses: Mapping[str, Any]


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The document (OpenAPI 3.1); ``servers`` has the prefix of a proxy."""
    document = request.app.openapi()
    if root_path := request.scope.get("root_path", "").rstrip("/"):
        document = document | {"servers": [{"url": root_path}]}
    return stable_json(request, document, cache_control=CACHE_CONTROL)


@router.get("/docs")
async def reference(request: Request) -> Response:
    """Every route with its parameters and answers."""
    document = request.app.openapi()
    groups: dict[str, list[Operation]] = {}
    for operation in operations(document):
        groups.setdefault(operation.tag, []).append(operation)
    page = html_page(
        "reference.html", CACHE_CONTROL, base=base_of(request), info=document["info"], groups=groups
    )
    return conditional(request, page)


def operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    """What an OpenAPI document (version 3.1) offers; every GET is a HEAD, too."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            found = item[method]
            yield Operation(
                method="GET, HEAD" if method == "get" else method.upper(),
                path=path,
                summary=found.get("summary", ""),
                description=found.get("description", ""),
                tag=(found.get("tags") or ["other"])[0],
                parameters=tuple(found.get("parameters", ())),
                responses=found.get("responses", {}),
            )
