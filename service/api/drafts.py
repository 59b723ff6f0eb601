"""POST /v1/exports/draft: a wish becomes an export request, which nobody has run yet."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import Request
from starlette.responses import Response

from service.access import Action, Common, authorize
from service.api.addresses import base_of
from service.api.body import json_body
from service.api.chat import events_of
from service.api.datasets import readable_dataset, readable_datasets
from service.api.jobs import understood
from service.api.openapi_drafts import DRAFT_BODY, DRAFT_RESPONSES
from service.api.router import Router
from service.chat.draft import DraftBody, Drafting
from service.chat.drafting import ranked
from service.detached import DetachedResponse
from service.errors import NotFound
from service.jobs.watching import HEADERS
from service.runtime import caller_of, service_of

router = Router(tags=["exports"])


@router.post(
    "/v1/exports/draft",
    summary="Have a language model draft an export request",
    responses=DRAFT_RESPONSES,
    response_class=Response,
    openapi_extra=DRAFT_BODY,
)
async def draft(request: Request) -> Response:
    """Events: `start`, `token`, perhaps `repair`; then `draft` or how else it ended, and `close`."""
    service, caller = service_of(request), caller_of(request)
    authorize(caller, Action.READ, Common())
    body, _ = await json_body(request, DraftBody)
    if body.dataset is not None:
        await readable_dataset(request, body.dataset)
    readable = await readable_datasets(request)
    if not readable:
        raise NotFound("There is no dataset to draft a request for.")
    # Thousands of datasets are not looked through in the event loop.
    likeliest = await asyncio.to_thread(ranked, readable, body.prompt, body.dataset)
    drafting = Drafting(body, likeliest, partial(understood, request), base_of(request))
    live = await service.desk.begin(drafting, caller.subject)
    stream = events_of(request, live.id, 0, live)
    return DetachedResponse(stream, service.active, HEADERS | {"X-Generation-Id": live.id})
