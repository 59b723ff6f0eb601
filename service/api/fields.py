"""The header fields of a request."""

from __future__ import annotations

from starlette.requests import Request


def field_values(request: Request) -> dict[str, str]:
    """Values by lower-case names, several fields of a name joined (RFC 9110, section 5.3)."""
    joined: dict[str, str] = {}
    for name, value in request.headers.items():
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
