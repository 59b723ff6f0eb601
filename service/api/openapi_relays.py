"""What OpenAPI says of relays."""

from __future__ import annotations

from typing import Any

from service.api.openapi import PROBLEM, SWITCH, TEXT
from service.export.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE


def _parameter(
    name: str, description: str, schema: dict[str, Any], example: Any, place: str = "query"
) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": False,
        "description": description,
        "schema": schema,
        "example": example,
    }


_MANNER = [
    _parameter(
        "chunk_size",
        "Blocks of exactly so many bytes; the last may be smaller. Without it they pass as they "
        "come.",
        {"type": "integer", "minimum": MIN_CHUNK_SIZE, "maximum": MAX_CHUNK_SIZE},
        262144,
    ),
    _parameter(
        "lines",
        "`1`: JSON lines are framed anew, so that every block ends with a whole one.",
        SWITCH,
        "1",
    ),
    _parameter(
        "on_bad_line",
        "With `lines=1`: whether a line that is no JSON, or too long, breaks the stream or is left "
        "out and counted in the receipt.",
        {"type": "string", "enum": ["fail", "skip"]},
        "skip",
    ),
    _parameter("Range", "Passed on, as are the conditions.", TEXT, "bytes=0-99", "header"),
]
RELAY_PARAMETERS: list[dict[str, Any]] = _MANNER
FREE_PARAMETERS: list[dict[str, Any]] = [
    _parameter(
        "url",
        "Where the download is: http or https, a public host, percent-encoded as a whole.",
        TEXT,
        "https://example.com/data.csv",
    )
    | {"required": True},
    *_MANNER,
]

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
RELAY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The upstream's bytes. One that breaks off, breaks the connection here, too.",
        "content": _BYTES,
    },
    206: {"description": "The part that the upstream gave.", "content": _BYTES},
    304: {"description": "The upstream says that the client has it; there is no body."},
    400: {"description": "A parameter is wrong; the problem names it.", **PROBLEM},
    403: {"description": "Not an address or a method that is relayed.", **PROBLEM},
    404: {"description": "No such upstream or path; also what the upstream says.", **PROBLEM},
    413: {"description": "It is larger than may be relayed.", **PROBLEM},
    502: {"description": "The upstream is away, or its answer cannot be relayed.", **PROBLEM},
    503: {"description": "Busy or draining: see Retry-After.", **PROBLEM},
    504: {"description": "The upstream took too long.", **PROBLEM},
}
