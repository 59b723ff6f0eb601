"""GET /: what can be downloaded here, and what was, lately."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from service.access import Action, may
from service.api.addresses import base_of
from service.api.datasets import summary
from service.database import utcnow
from service.errors import TailraceError
from service.export.encode import FORMATS
from service.jobs.model import describe
from service.runtime import caller_of, service_of

router = APIRouter(include_in_schema=False)

HERE = Path(__file__).parent
RECENT = 15
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


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
    page = environment().get_template("home.html")
    body = page.render(
        base=base,
        datasets=datasets,
        formats=list(FORMATS),
        exports=[describe(record, base, now) for record in records],
        problem=problem,
    )
    return Response(body, media_type="text/html", headers=SECURITY)


@router.get("/static/style.css")
async def style() -> Response:
    """The one style sheet."""
    text = (HERE / "static" / "style.css").read_text()
    return Response(text, media_type="text/css", headers={"Cache-Control": "max-age=300"})


@cache
def environment() -> Environment:
    """Templates that escape everything and fail on what they are not given."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )
    made.filters["count"] = lambda number: f"{number:,}" if number is not None else "?"
    made.filters["size"] = size
    return made


def size(count: int) -> str:
    """Bytes in the unit that a person would say."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - decimal units
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
