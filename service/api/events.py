"""GET /v1/exports/{id}/events and /v1/events: Server-Sent Events."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from service.api.addresses import base_of
from service.api.openapi_jobs import ALL_EVENTS_RESPONSES, EVENTS_PARAMETERS, EVENTS_RESPONSES
from service.api.records import stored_export
from service.api.responses import HeadResponse
from service.api.router import Router
from service.detached import DetachedResponse
from service.jobs.model import Record
from service.jobs.watching import HEADERS, AllEvents, EventStream, ExportEvents
from service.runtime import caller_of, service_of
from service.sse import last_event_id

router = Router(tags=["events"])
NEVER = -1  # the number of no event: what a client sends that none of ours ever had


@router.get(
    "/v1/exports/{export_id}/events",
    summary="What happens to one export, live",
    responses=EVENTS_RESPONSES,
    response_class=Response,
    openapi_extra={"parameters": EVENTS_PARAMETERS},
)
async def export_events(
    request: Request,
    export_id: UUID,
    last_event_id: Annotated[str | None, Query()] = None,
) -> Response:
    """`state`, then `progress` at most four times a second, then how it ended, then `close`."""
    service = service_of(request)
    last = last_number(request, last_event_id)
    # Somebody else's events of it are ours, too, as long as they are not behind the client's.
    watched = service.hub.known(str(export_id))
    behind = watched is None or (watched.event_seq or 0) < (last or 0)
    record = await stored_export(request, export_id, None if behind else watched)
    if _has_all(record, last):
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    stream = ExportEvents(
        record,
        last,
        base_of(request),
        engine=service.engine,
        hub=service.hub,
        readers=service.readers,
    )
    return _response(request, stream)


@router.get(
    "/v1/events",
    summary="What happens to every export of the caller, live",
    responses=ALL_EVENTS_RESPONSES,
    response_class=Response,
)
async def all_events(request: Request) -> Response:
    """An `export` event for each live one, then one for each change of any."""
    service = service_of(request)
    stream = AllEvents(
        caller_of(request).subject,
        base_of(request),
        engine=service.engine,
        hub=service.hub,
        readers=service.readers,
    )
    return _response(request, stream)


def _response(request: Request, stream: EventStream) -> Response:
    if request.method == "HEAD":
        return HeadResponse(headers=HEADERS)
    return DetachedResponse(stream, service_of(request).active, HEADERS)


def last_number(request: Request, parameter: str | None) -> int | None:
    """The header's id, which is newer than that in the address of a client that comes back."""
    text = request.headers.get("last-event-id") or parameter
    if not text:
        return None
    number = last_event_id(text)
    return NEVER if number is None else number


def _has_all(record: Record, last: int | None) -> bool:
    """Whether the client has the terminal event or ``close``, so that it should not come back."""
    return record.state.final and last is not None and last in _last_two(record)


def _last_two(record: Record) -> tuple[int, int]:
    close = record.event_seq or 0
    return close - 1, close
