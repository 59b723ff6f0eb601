"""The export that a route is about, if the caller may see it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from starlette.requests import Request

from service.access import Action, authorize, may
from service.api.addresses import base_of
from service.database import utcnow
from service.errors import NotFound
from service.jobs.model import Kind, Record
from service.jobs.store import BATCH_SECONDS
from service.runtime import caller_of, service_of


async def readable_export(
    request: Request, export_id: UUID, action: Action = Action.READ
) -> Record:
    """The newest that is known of it; one that may not be read is not there.

    Raises NotFound, and Forbidden where it may be read but ``action`` is not allowed.
    """
    return _allowed(
        request, export_id, await service_of(request).recorder.get(str(export_id)), action
    )


async def stored_export(request: Request, export_id: UUID, known: Record | None = None) -> Record:
    """The export as the table has it, with the number of its last event, or as it is ``known``."""
    ledger = service_of(request).ledger
    found = known or await ledger.get(str(export_id))
    if found is None:
        # A direct stream's record is written a little behind it.
        await asyncio.sleep(2 * BATCH_SECONDS)
        found = await ledger.get(str(export_id))
    return _allowed(request, export_id, found, Action.READ)


def _allowed(request: Request, export_id: UUID, record: Record | None, action: Action) -> Record:
    caller = caller_of(request)
    if record is None or not may(caller, Action.READ, record):
        raise NotFound(f"There is no export {export_id}.")
    authorize(caller, action, record)
    return record


def announced(request: Request, export_id: str) -> dict[str, str]:
    """What a stream says of its record: its id, and where its receipt will be."""
    receipt = f"{base_of(request)}/v1/exports/{export_id}/receipt"
    return {"X-Export-Id": export_id, "Link": f'<{receipt}>; rel="receipt"'}


def download_record(
    request: Request,
    kind: Kind,
    export_id: str,
    source: str,
    asked: dict[str, Any],
    format: str | None = None,  # noqa: A002 - the record's word
) -> Record:
    """The record of a download from ``source``, a root or an upstream, as it begins."""
    return Record(
        id=export_id,
        kind=kind,
        owner=caller_of(request).subject,
        dataset=None,
        source=source,
        lane=None,
        format=format,
        compression=None,
        profile=None,
        request=asked,
        created_at=utcnow(),
    )
