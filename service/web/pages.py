"""GET /: what can be downloaded here, and what was, lately."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from service.access import Action, may
from service.api.addresses import base_of
from service.api.conditional import conditional
from service.api.datasets import summary
from service.api.router import Router
from service.database import utcnow
from service.errors import TailraceError
from service.export.encode import FORMATS
from service.jobs.model import describe
from service.runtime import caller_of, service_of
from service.web.page import STATIC, html_page

router = Router(include_in_schema=False)

RECENT = 15


@router.get("/")
async def home(request: Request) -> Response:
    """Datasets with their links, a line for a shell, and the newest exports."""
    service, caller, base = service_of(request), caller_of(request), base_of(request)
    problem = None
    try:
        found = (await service.catalog.datasets()).values()
        datasets = [summary(item, base) for item in found if may(caller, Action.READ, item)]
    except TailraceError as error:
        datasets, problem = [], error.detail
    try:
        records = await service.recorder.newest(owner=caller.subject, limit=RECENT)
    except TailraceError as error:
        records, problem = [], error.detail
    now = utcnow()
    return html_page(
        "home.html",
        base=base,
        datasets=datasets,
        formats=list(FORMATS),
        exports=[describe(record, base, now) for record in records],
        problem=problem,
    )


@router.get("/static/style.css")
async def style(request: Request) -> Response:
    """The one style sheet."""
    text = (STATIC / "style.css").read_text()
    headers = {"Cache-Control": "max-age=300"}
    return conditional(request, Response(text, media_type="text/css", headers=headers))
