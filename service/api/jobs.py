"""POST /v1/exports and what can be done with a job: cancel, retry, delete."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import orjson
import uuid_utils.compat as uuid_utils
from fastapi import Request
from starlette.responses import Response

from service.access import Action
from service.api.addresses import base_of
from service.api.body import json_body
from service.api.datasets import readable_dataset
from service.api.json import json_response
from service.api.openapi import NOT_FOUND
from service.api.openapi_jobs import (
    CANCEL_RESPONSES,
    DELETE_RESPONSES,
    ESTIMATE_RESPONSES,
    EXPORT_BODY,
    JOB_PARAMETERS,
    JOB_RESPONSES,
    PREVIEW_RESPONSES,
    RETRY_RESPONSES,
)
from service.api.records import readable_export
from service.api.router import Router
from service.database import utcnow
from service.errors import Conflict, InvalidParameter, StorageFull
from service.export.assembly import Asked, assemble
from service.export.encode import FORMATS
from service.grammar.query import RowsQuery
from service.jobs.expectation import Rows, expected_rows, sample_bytes, whole_of
from service.jobs.ledger import Answer, Entered, Key, Room
from service.jobs.model import Kind, Record, State, describe
from service.jobs.request import ExportRequest, understand
from service.jobs.transitions import asked_again
from service.jobs.watching import until_final
from service.preferences import Count, preferred_count, preferred_wait
from service.representation import Representation
from service.runtime import Service, caller_of, service_of

router = Router(tags=["exports"])

MAX_KEY = 255  # characters
CANCEL_SECONDS = 5.0  # in which the answer to a cancellation has its proof
PREVIEWED = 20  # rows
ACCEPTED = 202


@router.post(
    "/v1/exports",
    summary="Make an export as a job",
    status_code=ACCEPTED,
    responses=JOB_RESPONSES,
    openapi_extra={"parameters": JOB_PARAMETERS, **EXPORT_BODY},
)
async def create_export(request: Request) -> Response:
    """Queues the export, or joins one that makes the same file; the answer says where it is."""
    service = service_of(request)
    wanted, body = await json_body(request, ExportRequest)
    key = _key(request, body)
    prefer = ",".join(request.headers.getlist("prefer"))
    if preferred_count(prefer) is Count.EXACT:
        wanted = wanted.model_copy(update={"count": Count.EXACT.value})
    asked = await understood(request, wanted)
    rows = await _expected(service, asked)
    limits = service.settings.limits
    entered = await service.ledger.enter(
        _record(request, wanted, asked, rows),
        Room(limits.max_queued, limits.max_queued_per_caller),
        join=None if wanted.fresh else timedelta(seconds=limits.join_max_age),
        key=key,
        storage=lambda: _require_storage(service),
        answer=lambda record, joined: _accepted(request, record, joined=joined),
    )
    return await _answered(request, entered, key, preferred_wait(prefer))


@router.post(
    "/v1/exports/estimate",
    summary="How large an export would be",
    responses=ESTIMATE_RESPONSES,
    openapi_extra=EXPORT_BODY,
)
async def estimate(request: Request) -> Response:
    """Rows by the planner, bytes by a sample; each says how sure it is."""
    service = service_of(request)
    wanted, _ = await json_body(request, ExportRequest)
    asked = await understood(request, wanted)
    rows = await _expected(service, asked)
    source = service.sources[asked.dataset.source]
    size = await sample_bytes(asked, source, (service.cursors, service.settings.limits), rows.rows)
    return json_response(
        {
            "rows": rows.rows,
            "rows_kind": rows.kind,
            "bytes": size,
            "bytes_kind": "unknown" if size is None else "estimate",
        }
    )


@router.post(
    "/v1/exports/preview",
    summary="The first 20 rows",
    responses=PREVIEW_RESPONSES,
    openapi_extra=EXPORT_BODY,
)
async def preview(request: Request) -> Response:
    """As JSON with the columns, whatever the format will be: each value as NDJSON spells it."""
    service = service_of(request)
    wanted, _ = await json_body(request, ExportRequest)
    asked = await understood(request, wanted)
    source = service.sources[asked.dataset.source]
    few = Asked(asked.dataset, _few(asked.query), Representation(FORMATS["json"], chunk_size=2**20))
    export = assemble(few, source, service.cursors, service.settings.limits, "preview")
    columns = [
        {"name": selected.label, "type": selected.column.type} for selected in asked.query.select
    ]
    # The rows stay as the database spelled them: a parser would round numbers.
    rows = await whole_of(export)
    return Response(
        b'{"columns":' + orjson.dumps(columns) + b',"rows":' + rows.strip() + b"}",
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


@router.post(
    "/v1/exports/{export_id}/cancel",
    summary="Stop an export",
    responses=CANCEL_RESPONSES | NOT_FOUND,
)
async def cancel(request: Request, export_id: UUID) -> Response:
    """Ends its query; the proof says whether the database has nothing of it any more."""
    record = await readable_export(request, export_id, Action.CANCEL)
    if record.state.final:
        return json_response({"cancelled": False, "reason": f"already {record.state}"})
    ended = await _stopped(service_of(request), record)
    if ended is None or not ended.state.final:
        return json_response({"cancelled": "pending"}, status=ACCEPTED)
    if ended.state is not State.CANCELLED:
        return json_response({"cancelled": False, "reason": f"already {ended.state}"})
    return json_response({"cancelled": True, "proof": ended.cancel})


@router.post(
    "/v1/exports/{export_id}/retry",
    summary="Try a failed export again",
    status_code=ACCEPTED,
    responses=RETRY_RESPONSES | NOT_FOUND,
)
async def retry(request: Request, export_id: UUID) -> Response:
    """A new attempt with a new artifact; its events go on where they ended."""
    service = service_of(request)
    record = await readable_export(request, export_id, Action.CANCEL)
    if record.kind is not Kind.JOB:
        raise Conflict(f"The export {export_id} was a {record.kind}: ask for it again.")
    _require_storage(service)
    change = asked_again(record, service.settings.limits.max_attempts)
    made = await service.ledger.apply(record, change)
    if made is None:
        raise Conflict(f"The export {export_id} has changed meanwhile.")
    return _response(_accepted(request, made, joined=False))


@router.delete(
    "/v1/exports/{export_id}",
    summary="Stop an export, and remove its artifact and record",
    status_code=204,
    responses=DELETE_RESPONSES | NOT_FOUND,
)
async def delete(request: Request, export_id: UUID) -> Response:
    """Cancels it first if it is live; 409 where that takes longer than five seconds."""
    service = service_of(request)
    record: Record | None = await readable_export(request, export_id, Action.CANCEL)
    if record is not None and not record.state.final:
        record = await _stopped(service, record)
    if record is not None:
        await service.recorder.flush()
        if not record.state.final or not await service.ledger.delete(record):
            raise Conflict("The export is still being stopped.", headers={"Retry-After": "1"})
        if record.artifact:
            await asyncio.to_thread(service.folder.remove, record.artifact)
    return Response(status_code=204)


async def understood(request: Request, wanted: ExportRequest) -> Asked:
    """What ``wanted`` means to the caller; raises NotFound, InvalidParameter and their kin."""
    service = service_of(request)
    dataset = await readable_dataset(request, wanted.dataset)
    return understand(wanted, dataset, service.cursors, service.settings.limits.chunk_size)


async def _expected(service: Service, asked: Asked) -> Rows:
    source = service.sources[asked.dataset.source]
    return await expected_rows(asked, source, (service.cursors, service.settings.limits))


def _key(request: Request, body: bytes) -> Key | None:
    text = request.headers.get("idempotency-key")
    if text is None:
        return None
    if not 0 < len(text) <= MAX_KEY:
        message = f"Idempotency-Key: 1 to {MAX_KEY} characters are possible."
        raise InvalidParameter("Idempotency-Key", message)
    return Key(text, hashlib.sha256(body).hexdigest())


def _record(request: Request, wanted: ExportRequest, asked: Asked, rows: Rows) -> Record:
    owner = caller_of(request).subject
    source = service_of(request).sources[asked.dataset.source]
    return Record(
        id=str(uuid_utils.uuid7()),
        kind=Kind.JOB,
        owner=owner,
        dataset=asked.dataset.name,
        source=source.name,
        lane=source.lane,
        format=wanted.format,
        compression=wanted.compression,
        profile=wanted.profile,
        request=wanted.stored(),
        created_at=utcnow(),
        state=State.QUEUED,
        total_rows=rows.rows,
        total_kind=rows.kind,
        filename=wanted.filename,
        fingerprint=wanted.fingerprint(owner),
        priority=rows.priority,
        attempts_until=service_of(request).settings.limits.max_attempts,
    )


def _require_storage(service: Service) -> None:
    free = service.folder.free_bytes()
    least = service.settings.limits.min_free_space
    if free is not None and free < least:
        raise StorageFull(
            f"{free} bytes are free for artifacts; new exports need {least}.",
            headers={"Retry-After": "60"},
        )


async def _answered(
    request: Request, entered: Entered, key: Key | None, wait: int | None
) -> Response:
    """202 at once, or 200 if the export ends within ``wait`` seconds."""
    service = service_of(request)
    if entered.answer is not None:
        return _response(entered.answer)
    record = entered.record
    assert record is not None  # noqa: S101 - one of the two is there
    if not wait:
        return _response(_accepted(request, record, joined=entered.joined))
    ended = await until_final(service.hub, record, wait)
    done = ended is not None and ended.state.final
    answer = _accepted(request, ended or record, joined=entered.joined, status=200 if done else 202)
    answer["headers"]["Preference-Applied"] = f"wait={wait}"
    if done and key is not None:
        await service.ledger.remember(record.owner, key, answer)
    return _response(answer)


def _accepted(request: Request, record: Record, *, joined: bool, status: int = ACCEPTED) -> Answer:
    base = base_of(request)
    headers = {"Location": f"{base}/v1/exports/{record.id}"}
    if status == ACCEPTED:
        headers["Retry-After"] = "1"
    if joined:
        headers["X-Export-Joined"] = "true"
    return {"status": status, "headers": headers, "body": describe(record, base, utcnow())}


def _response(answer: Answer) -> Response:
    return json_response(answer["body"], status=answer["status"], headers=answer["headers"])


async def _stopped(service: Service, record: Record) -> Record | None:
    """The record once it has stopped, or as it is after a while; None once it is gone."""
    if service.recorder.cancel(record.id):
        return await _ended_here(service, record)
    asked = await service.ledger.ask_to_stop(record.id)
    return asked and await until_final(service.hub, asked, CANCEL_SECONDS)


async def _ended_here(service: Service, record: Record) -> Record | None:
    """A stream of this process is known here before it is written anywhere."""
    newest: Record | None = record
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            while newest is not None and not newest.state.final:
                await asyncio.sleep(0.02)
                newest = await service.recorder.get(record.id)
    except TimeoutError:
        pass
    return newest


def _few(query: RowsQuery) -> RowsQuery:
    most = PREVIEWED if query.limit is None else min(query.limit, PREVIEWED)
    return replace(query, limit=most)
