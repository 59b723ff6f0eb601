"""GET /docs: the OpenAPI document as a page, without scripts and without other hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api.addresses import base_of
from service.web.page import html_page

router = APIRouter(include_in_schema=False)

METHODS = ("get", "head", "post", "delete")


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


@router.get("/docs")
async def reference(request: Request) -> Response:
    """Every route with its parameters and answers."""
    document = request.app.openapi()
    groups: dict[str, list[Operation]] = {}
    for operation in operations(document):
        groups.setdefault(operation.tag, []).append(operation)
    return html_page("reference.html", base=base_of(request), info=document["info"], groups=groups)


def operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    """What an OpenAPI document (version 3.1) offers; HEAD stands beside its GET."""
    for path, item in document["paths"].items():
        offered = [method for method in METHODS if method in item]
        merged = [method for method in offered if not (method == "head" and "get" in offered)]
        for method in merged:
            found = item[method]
            both = method == "get" and "head" in offered
            yield Operation(
                method="GET, HEAD" if both else method.upper(),
                path=path,
                summary=found.get("summary", ""),
                description=found.get("description", ""),
                tag=(found.get("tags") or ["other"])[0],
                parameters=tuple(found.get("parameters", ())),
                responses=found.get("responses", {}),
            )
