"""Absolute addresses in answers."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request


def base_of(request: Request) -> str:
    """Scheme, host and path prefix that the client used, without a final slash."""
    return str(request.base_url).rstrip("/")


def quoted(name: str) -> str:
    """``name`` as one segment of a path or a query (RFC 3986)."""
    return quote(name, safe="")
