"""What OpenAPI says of drafts."""

from __future__ import annotations

from typing import Any

from service.api.openapi import TEXT, Responses, problems
from service.chat.draft import DraftBody
from service.sse import MEDIA_TYPE

WISH = {"prompt": "Flights from JFK that were an hour late or more, the worst first"}
DRAFT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": DraftBody.model_json_schema(), "example": WISH}},
    }
}
EVENTS = (
    'id: 1\nevent: start\ndata: {"id":"…","provider":"default","model":"…"}\n\n'
    'id: 2\nevent: token\ndata: {"t":"{\\"request\\"","n":1}\n\n…'
    'event: draft\ndata: {"request":{"dataset":"flights","format":"csv",'
    '"where":{"origin":"eq.JFK","dep_delay":"gte.60"},"order":["dep_delay.desc"]},'
    '"explanation":"…","curl":"curl -sSf -o flights.csv …","url":"…/v1/rows/flights.csv?…",'
    '"repaired":false}\n\n'
    "event: close\ndata: {}\n\n"
)
DRAFT_RESPONSES: Responses = {
    200: {
        "description": "The events of a generation, which `X-Generation-Id` names. `repair` says "
        "that the first answer had a mistake and a second one follows; `draft` has a body for "
        "`POST /v1/exports`; `error` with the code `invalid_draft` says that there is none.",
        "content": {MEDIA_TYPE: {"schema": TEXT, "example": EVENTS}},
    },
    **problems(
        _400="A field is wrong; the problem names it.",
        _404="There is no such dataset, or none at all.",
        _415="The body is not JSON.",
        _422="The body is not such a request; `errors` names the places.",
        _503="No such provider can be asked, all are busy, or draining.",
    ),
}
