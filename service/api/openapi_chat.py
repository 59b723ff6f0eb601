"""What OpenAPI says of language models."""

from __future__ import annotations

from typing import Any

from service.api.openapi import NOT_FOUND, NOT_MODIFIED, TEXT, Responses, answers, header, problems
from service.chat.asking import ChatBody
from service.sse import MEDIA_TYPE

CHAT = {
    "messages": [{"role": "user", "content": "What is a tailrace?"}],
    "provider": None,
    "max_tokens": 256,
    "on_disconnect": "cancel",
}
CHAT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChatBody.model_json_schema(), "example": CHAT}},
    }
}
GENERATION_ID = "01a203e2-617a-73c6-8b81-598ec9b633b8"
GENERATION = {
    "id": GENERATION_ID,
    "owner": "anonymous",
    "provider": "default",
    "model": "echo",
    "request": {"messages": 1, "max_tokens": 256, "temperature": 0.7, "on_disconnect": "cancel"},
    "state": "succeeded",
    "text": "A stand-in, which only repeats: What is a tailrace?",
    "tokens": 9,
    "chars": 51,
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 4, "completion_tokens": 9},
    "error": None,
    "created_at": "2026-11-25T03:31:37.470083Z",
    "first_token_at": "2026-11-25T03:31:37.471098Z",
    "finished_at": "2026-11-25T03:31:37.476473Z",
    "links": {
        "self": f"…/v1/generations/{GENERATION_ID}",
        "events": f"…/v1/generations/{GENERATION_ID}/events",
        "cancel": f"…/v1/generations/{GENERATION_ID}/cancel",
    },
}
EVENTS = (
    'id: 1\nevent: start\ndata: {"id":"…","provider":"default","model":"echo"}\n\n'
    'id: 2\nevent: token\ndata: {"t":"A ","n":1}\n\n…'
    'event: done\ndata: {"finish_reason":"stop","usage":{…},"tokens":9,"chars":51}\n\n'
    "event: close\ndata: {}\n\n"
)
CHAT_RESPONSES: Responses = {
    200: {
        "description": "Events, or with `Accept: text/plain` the bare text, which breaks off if the "
        "generation fails. `X-Generation-Id` names it.",
        "content": {
            MEDIA_TYPE: {"schema": TEXT, "example": EVENTS},
            "text/plain": {"schema": TEXT, "example": "A stand-in, which only repeats: …"},
        },
    },
    **problems(
        _400="A field is wrong; the problem names it.",
        _406="Neither events nor text is acceptable.",
        _415="The body is not JSON.",
        _422="The body is not such a request; `errors` names the places.",
        _429="As text: the provider takes no more requests now.",
        _502="As text: the provider failed before the first token.",
        _503="No such provider can be asked, all are busy, or draining.",
        _504="As text: the provider sent no token in time.",
    ),
}
GENERATION_RESPONSES = (
    answers("The generation as it is now.", GENERATION) | NOT_MODIFIED | NOT_FOUND
)
PROVIDERS_RESPONSES = (
    answers(
        "Every provider, by name.",
        {
            "providers": [
                {
                    "name": "default",
                    "kind": "echo",
                    "model": "echo",
                    "max_tokens": 8192,
                    "usable": True,
                    "missing": None,
                }
            ]
        },
    )
    | NOT_MODIFIED
)
EVENTS_PARAMETERS = [
    header(
        "Last-Event-ID",
        "The number of the last event that the client has: only later ones are sent.",
        "17",
    )
]
EVENTS_RESPONSES: Responses = {
    200: {
        "description": "The events; `reset` first where the number is not known any more.",
        "content": {MEDIA_TYPE: {"schema": TEXT, "example": EVENTS}},
    },
    204: {"description": "The client has the end already."},
    **NOT_FOUND,
}
CANCEL_RESPONSES: Responses = {
    **answers("Whether it was stopped, or why not.", {"cancelled": True}),
    202: {
        "description": "It was asked to stop, and has not said yet that it has.",
        "content": {"application/json": {"example": {"cancelled": "pending"}}},
    },
}
