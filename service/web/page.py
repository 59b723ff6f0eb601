"""Rendering a page: templates that escape everything, headers that allow nothing foreign."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import Response

HERE = Path(__file__).parent
STATIC = HERE / "static"
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
KILO = 1000
CODE = re.compile(r"`([^`]+)`")


def html_page(template: str, cache_control: str = "no-store", /, **values: Any) -> Response:
    """``template`` filled with ``values``; nobody may keep it unless ``cache_control`` says so."""
    body = _environment().get_template(template).render(**values)
    headers = {**SECURITY, "Cache-Control": cache_control}
    return Response(body, media_type="text/html", headers=headers)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )
    made.filters["count"] = lambda number: f"{number:,}" if number is not None else "?"
    made.filters["size"] = size
    made.filters["code"] = code
    return made


def code(text: str) -> Markup:
    """``text`` escaped, with what stands between backticks as code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped first


def size(count: int) -> str:
    """Bytes in the unit that a person would say."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < KILO:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= KILO
    return f"{amount:.1f} TB"
