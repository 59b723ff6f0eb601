"""GET /v1/exports: the records of streams, and their receipts."""

from __future__ import annotations

import base64
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from service.api.addresses import base_of
from service.api.json import json_response, stable_json
from service.api.openapi import EXPORT, NOT_FOUND, NOT_MODIFIED, RECEIPT, answers
from service.api.records import readable_export
from service.api.router import Router
from service.database import utcnow
from service.errors import InvalidParameter, NotFound
from service.export.receipt import Receipt
from service.jobs.model import Kind, Record, State, describe
from service.runtime import caller_of, service_of

router = Router(tags=["exports"])

MAX_PAGE = 500
PLACES = {field.name: place for place, field in enumerate(fields(Receipt))}


@router.get(
    "/v1/exports",
    summary="Exports, newest first",
    responses=answers("One page.", {"exports": [EXPORT]}),
)
async def list_exports(
    request: Request,
    kind: Kind | None = None,
    state: State | None = None,
    dataset: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: str | None = None,
) -> Response:
    """The caller's exports; ``Link: rel="next"`` leads to older ones."""
    if dataset is not None and "\x00" in dataset:
        raise InvalidParameter("dataset", "dataset: NUL characters cannot be asked for.")
    records = await service_of(request).recorder.newest(
        owner=caller_of(request).subject,
        kind=kind,
        state=state,
        dataset=dataset,
        before=_place(cursor) if cursor is not None else None,
        limit=limit + 1,
    )
    page, more = records[:limit], len(records) > limit
    base, now = base_of(request), utcnow()
    headers = {}
    if more:
        following = request.url.include_query_params(cursor=_cursor(page[-1]))
        headers["Link"] = f'<{base}/v1/exports?{following.query}>; rel="next"'
    return json_response({"exports": [describe(r, base, now) for r in page]}, headers=headers)


@router.get(
    "/v1/exports/{export_id}",
    summary="One export",
    responses=answers("The export as it is now.", EXPORT) | NOT_MODIFIED | NOT_FOUND,
)
async def get_export(request: Request, export_id: UUID) -> Response:
    """Its request, state, progress and links."""
    record = await readable_export(request, export_id)
    return stable_json(request, describe(record, base_of(request), utcnow()))


@router.get(
    "/v1/exports/{export_id}/receipt",
    summary="The proof of an export",
    responses=answers("The receipt; it never changes.", RECEIPT) | NOT_MODIFIED | NOT_FOUND,
)
async def get_receipt(request: Request, export_id: UUID) -> Response:
    """Rows, bytes, SHA-256, snapshot and outcome; 404 until the export has ended."""
    record = await readable_export(request, export_id)
    if record.receipt is None:
        yet = "" if record.state.final else " yet"
        raise NotFound(f"The export {export_id} is {record.state} and has no receipt{yet}.")
    return stable_json(request, _ordered(record.receipt))


def _ordered(receipt: dict[str, Any]) -> dict[str, Any]:
    """The same bytes, and so the same ETag, from memory as from the table, which orders anew."""
    return dict(sorted(receipt.items(), key=lambda item: PLACES.get(item[0], len(PLACES))))


def _cursor(record: Record) -> str:
    text = f"{record.created_at.isoformat()} {record.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[datetime, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, export_id = base64.urlsafe_b64decode(padded).decode().split(" ")
        return datetime.fromisoformat(moment).astimezone(UTC), str(UUID(export_id))
    except (ValueError, OverflowError) as error:
        raise InvalidParameter("cursor", "cursor: this is not one that a page gave.") from error
