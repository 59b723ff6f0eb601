"""POST /v1/chat/stream and /v1/generations: answers of language models, token by token."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query, Request
from starlette.responses import Response

from service.access import Action, Common, authorize, may
from service.api.addresses import base_of
from service.api.body import json_body
from service.api.events import last_number
from service.api.json import json_response, stable_json
from service.api.openapi_chat import (
    CANCEL_RESPONSES,
    CHAT_BODY,
    CHAT_RESPONSES,
    EVENTS_PARAMETERS,
    EVENTS_RESPONSES,
    GENERATION_RESPONSES,
    PROVIDERS_RESPONSES,
)
from service.api.responses import HeadResponse
from service.api.router import Router
from service.chat.asking import ChatBody
from service.chat.following import GenerationEvents
from service.chat.live import Live
from service.chat.model import Generation, describe
from service.chat.plain import PlainText
from service.detached import DetachedResponse
from service.errors import NotAcceptable, NotFound
from service.jobs.watching import HEADERS
from service.representation import prefers_text
from service.runtime import caller_of, service_of
from service.streaming import StreamResponse

router = Router(tags=["language models"])
CANCEL_SECONDS = 5.0  # in which a generation that was cancelled has ended
PLAIN = {
    "Content-Type": "text/plain; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect tokens before it passes them on
    "X-Content-Type-Options": "nosniff",
}


@router.get(
    "/v1/providers",
    summary="The providers of language models",
    responses=PROVIDERS_RESPONSES,
)
async def list_providers(request: Request) -> Response:
    """Their names, kinds, default models, and whether they can be asked. No addresses, no keys."""
    authorize(caller_of(request), Action.READ, Common())
    found = [
        {
            "name": name,
            "kind": offered.settings.kind,
            "model": offered.settings.model,
            "max_tokens": offered.settings.max_tokens,
            "usable": offered.provider is not None,
            "missing": offered.missing or None,
        }
        for name, offered in service_of(request).desk.offered.items()
    ]
    return stable_json(request, {"providers": found})


@router.post(
    "/v1/chat/stream",
    summary="Ask a language model",
    responses=CHAT_RESPONSES,
    response_class=Response,
    openapi_extra=CHAT_BODY,
)
async def chat(request: Request) -> Response:
    """Events as tokens come: `start`, `token`, `progress`; then how it ended, and `close`."""
    service = service_of(request)
    authorize(caller_of(request), Action.READ, Common())
    asked, _ = await json_body(request, ChatBody)
    plain = _wants_text(request)
    live = await service.desk.begin(asked, caller_of(request).subject)
    told = {"X-Generation-Id": live.id}
    if plain:
        return StreamResponse(
            PlainText(live), service.active, headers=PLAIN | told, max_duration=None
        )
    stream = events_of(request, live.id, 0, live)
    return DetachedResponse(stream, service.active, HEADERS | told)


@router.get(
    "/v1/generations/{generation_id}",
    summary="One generation, with its text so far",
    responses=GENERATION_RESPONSES,
)
async def get_generation(request: Request, generation_id: UUID) -> Response:
    """State, text, tokens, usage, and why it failed if it did."""
    found = await _readable(request, generation_id)
    return stable_json(request, describe(found, base_of(request)))


@router.get(
    "/v1/generations/{generation_id}/events",
    summary="The events of a generation, from the beginning or from where a client was",
    responses=EVENTS_RESPONSES,
    response_class=Response,
    openapi_extra={"parameters": EVENTS_PARAMETERS},
)
async def generation_events(
    request: Request,
    generation_id: UUID,
    last_event_id: Annotated[str | None, Query()] = None,
) -> Response:
    """What was missed behind `Last-Event-ID`, then each event as it comes."""
    last = last_number(request, last_event_id) or 0
    found = await _readable(request, generation_id, last)
    if found.state.final and last in (found.seq, found.seq - 1):
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    if request.method == "HEAD":
        return HeadResponse(headers=HEADERS)
    journal = service_of(request).desk.journal
    known, live = await journal.has(found, last), journal.live(found.id)
    stream = events_of(request, found.id, last if known else 0, live, reset=not known)
    return DetachedResponse(stream, service_of(request).active, HEADERS)


@router.post(
    "/v1/generations/{generation_id}/cancel",
    summary="Stop a generation",
    responses=CANCEL_RESPONSES,
)
async def cancel(request: Request, generation_id: UUID) -> Response:
    """From any process: the connection to its provider closes at once."""
    service = service_of(request)
    try:
        found = await _readable(request, generation_id)
    except NotFound:
        return json_response({"cancelled": False, "reason": "not found"})
    authorize(caller_of(request), Action.CANCEL, found)
    if found.state.final:
        return json_response({"cancelled": False, "reason": "finished"})
    ended = await service.desk.cancel(found.id, CANCEL_SECONDS)
    if ended is None or not ended.state.final:
        return json_response({"cancelled": "pending"}, status=202)
    if ended.state.value != "cancelled":
        return json_response({"cancelled": False, "reason": "finished"})
    return json_response({"cancelled": True})


def events_of(
    request: Request, generation_id: str, after: int, live: Live | None, *, reset: bool = False
) -> GenerationEvents:
    """The events of one generation behind the number ``after``."""
    service = service_of(request)
    return GenerationEvents(
        generation_id,
        after,
        live=live,
        tails=service.desk.tails,
        readers=service.readers,
        reset=reset,
    )


async def _readable(request: Request, generation_id: UUID, seq: int = 1) -> Generation:
    found = await service_of(request).desk.journal.get(str(generation_id), seq)
    if found is None or not may(caller_of(request), Action.READ, found):
        raise NotFound(f"There is no generation {generation_id}.")
    return found


def _wants_text(request: Request) -> bool:
    """Whether ``Accept`` likes text/plain better than events, which are the default."""
    chosen = prefers_text(request.headers.get("accept", ""))
    if chosen is None:
        raise NotAcceptable("Offered are text/event-stream and text/plain.")
    return chosen
