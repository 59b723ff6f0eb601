"""GET /v1/exports/{id}/content: the artifact of a job, while it grows and when it is finished."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from service.api.fields import field_values
from service.api.openapi_jobs import CONTENT_PARAMETERS, CONTENT_RESPONSES
from service.api.records import announced, stored_export
from service.api.responses import HeadResponse
from service.api.router import Router
from service.errors import NotFound
from service.jobs.content import Content, ContentRequest, has_it_already, validators
from service.jobs.following import require_attempt, require_content
from service.jobs.model import Kind, Record, State
from service.jobs.request import ExportRequest, representation_of
from service.representation import Representation, content_disposition
from service.runtime import service_of
from service.streaming import StreamResponse

router = Router(tags=["exports"])
KEPT_BY_304 = ("Cache-Control", "X-Export-Id", "Link")  # RFC 9110, section 15.4.5: no more of it


@router.get(
    "/v1/exports/{export_id}/content",
    summary="The file of a job, also while it grows",
    responses=CONTENT_RESPONSES,
    response_class=Response,
    openapi_extra={"parameters": CONTENT_PARAMETERS},
)
async def get_content(
    request: Request, export_id: UUID, attempt: Annotated[int | None, Query(ge=1)] = None
) -> Response:
    """Follows a running job to its end, and resumes at a byte; ranges of a finished one."""
    service = service_of(request)
    record = await stored_export(request, export_id)
    if record.kind is not Kind.JOB:
        raise NotFound(f"The export {export_id} was a {record.kind}: its bytes are not kept.")
    require_attempt(record, attempt)
    require_content(record)
    sent = field_values(request)
    asked = representation_of(ExportRequest.model_validate(record.request), 0)
    headers = _about(request, record, asked)
    if has_it_already(record, sent):
        kept = {name: headers[name] for name in KEPT_BY_304}
        return Response(status_code=304, headers=kept | validators(record))
    if request.method == "HEAD":
        return HeadResponse(headers=headers | validators(record) | _length(record))
    content = Content(record, ContentRequest(sent, attempt, asked.media_type), service.shelf)
    limits = service.settings.limits
    return StreamResponse(
        content, service.active, headers=headers, max_duration=limits.max_duration
    )


def _about(request: Request, record: Record, asked: Representation) -> dict[str, str]:
    """What is told of the file, whichever part of it is sent."""
    return {
        "Content-Type": asked.media_type,
        "Content-Disposition": content_disposition(
            record.filename or asked.filename(record.subject)
        ),
        "Cache-Control": "private, no-cache, no-transform",
        "X-Content-Type-Options": "nosniff",
        **announced(request, record.id),
        "Accept-Ranges": "bytes",
    }


def _length(record: Record) -> dict[str, str]:
    finished = record.state is State.SUCCEEDED
    return {"Content-Length": str(record.bytes)} if finished else {}
