"""What a provider says of a failure, whichever of the usual shapes its answer has (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from service.preconditions import http_date

LOWEST, HIGHEST = 400, 599  # statuses of errors


@dataclass(frozen=True, slots=True)
class Told:
    """A provider's account of a failure; ``names`` are its codes and types, in lower case."""

    status: int | None
    names: frozenset[str]
    message: str


def account(error: Exception) -> Told:
    """That of an SDK's error, which has what was answered as its ``body``."""
    body: Any = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(inner, Mapping):
        return Told(_status(error, None), frozenset(), inner if isinstance(inner, str) else "")
    details = inner.get("details")
    further = details.get("error_code") if isinstance(details, Mapping) else None
    named = (inner.get("code"), inner.get("type"), further)
    message = next((inner[key] for key in ("message", "detail") if inner.get(key)), "")
    return Told(
        _status(error, inner.get("code")),
        frozenset(name.lower() for name in named if isinstance(name, str)),
        message if isinstance(message, str) else "",
    )


def _status(error: Exception, code: object) -> int | None:
    """That of the answer or, in the middle of a stream, the one that its event tells."""
    for status in (getattr(error, "status_code", None), code):
        if isinstance(status, int) and LOWEST <= status <= HIGHEST:
            return status
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait (RFC 9110, section 10.2.3, and OpenAI's field in milliseconds)."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1_000
    field = headers.get("retry-after")
    seconds = _number(field)
    if seconds is not None or field is None:
        return seconds
    date = http_date(field)
    return None if date is None else max(0.0, (date - datetime.now(UTC)).total_seconds())


def _number(field: str | None) -> float | None:
    try:
        number = float(field or "")
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None
