"""What OpenAPI says of relays."""

from __future__ import annotations

from typing import Any

from service.api.openapi import SWITCH, TEXT, Responses, header, parameter, problems
from service.export.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE

_MANNER = [
    parameter(
        "chunk_size",
        "Blocks of exactly so many bytes; the last may be smaller. Without it they pass as they "
        "come.",
        {"type": "integer", "minimum": MIN_CHUNK_SIZE, "maximum": MAX_CHUNK_SIZE},
        262144,
    ),
    parameter(
        "lines",
        "`1`: JSON lines are framed anew, so that every block ends with a whole one.",
        SWITCH,
        "1",
    ),
    parameter(
        "on_bad_line",
        "With `lines=1`: whether a line that is no JSON, or too long, breaks the stream or is left "
        "out and counted in the receipt.",
        {"type": "string", "enum": ["fail", "skip"]},
        "skip",
    ),
    header("Range", "Passed on, as are the conditions.", "bytes=0-99"),
]
RELAY_PARAMETERS: list[dict[str, Any]] = _MANNER
FREE_PARAMETERS: list[dict[str, Any]] = [
    parameter(
        "url",
        "Where the download is: http or https, a public host, percent-encoded as a whole.",
        TEXT,
        "https://example.com/data.csv",
    )
    | {"required": True},
    *_MANNER,
]

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
RELAY_RESPONSES: Responses = {
    200: {
        "description": "The upstream's bytes. One that breaks off, breaks the connection here, too.",
        "content": _BYTES,
    },
    206: {"description": "The part that the upstream gave.", "content": _BYTES},
    304: {"description": "The upstream says that the client has it; there is no body."},
    **problems(
        _400="A parameter is wrong; the problem names it.",
        _403="Not an address or a method that is relayed.",
        _404="No such upstream or path; also what the upstream says.",
        _413="It is larger than may be relayed.",
        _502="The upstream is away, or its answer cannot be relayed.",
        _503="Busy or draining: see Retry-After.",
        _504="The upstream took too long.",
    ),
}
