"""What OpenAPI says of the files of roots: parameters, answers, examples."""

from __future__ import annotations

from typing import Any

from service.api.openapi import (
    NOT_MODIFIED,
    SWITCH,
    Responses,
    answers,
    header,
    parameter,
    problems,
)
from service.export.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE

FILE_PARAMETERS: list[dict[str, Any]] = [
    parameter(
        "chunk_size",
        "Files: bytes of each block that is read and sent; the last may be smaller. Left out, the "
        "server sends as fast as it can.",
        {"type": "integer", "minimum": MIN_CHUNK_SIZE, "maximum": MAX_CHUNK_SIZE},
        262144,
    ),
    parameter(
        "receipt",
        "Files: `1` makes a record with a receipt, which tells the SHA-256 of what was sent.",
        SWITCH,
        "1",
    ),
    header(
        "Range",
        "`bytes=0-99`, several of them, or `bytes=-99` for the end; other units are ignored.",
        "bytes=0-99",
    ),
    header("If-Range", "The `ETag` of what the client has a part of.", '"9f86d081884c"'),
]
ROOTS_RESPONSES: Responses = (
    answers(
        "Every root, by name.",
        {"roots": [{"name": "reports", "links": {"self": "…/v1/files/reports/"}}]},
    )
    | NOT_MODIFIED
)
_FOLDER = {
    "root": "reports",
    "path": "2026/",
    "entries": [
        {
            "name": "november.csv",
            "kind": "file",
            "size": 27247168,
            "modified": "2026-11-22T15:31:37.939473Z",
            "links": {"self": "…/v1/files/reports/2026/november.csv"},
        }
    ],
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILES: Responses = {
    200: {
        "description": "The file; or, where the path ends in a slash, a page of the folder.",
        "content": {"application/octet-stream": _BYTES, "application/json": {"example": _FOLDER}},
    },
    206: {
        "description": "The ranges that were asked for; several come as `multipart/byteranges`.",
        "content": {"application/octet-stream": _BYTES, "multipart/byteranges": _BYTES},
    },
}
FILE_RESPONSES: Responses = (
    _FILES
    | NOT_MODIFIED
    | problems(
        _400="A parameter is wrong, or not one of these; the problem names it.",
        _404="There is nothing to be read at this path, whatever may be there.",
        _412="`If-Match` or `If-Unmodified-Since` does not hold.",
        _416="The range begins behind the end.",
        _503="Too many downloads, the file is being written, or the service stops: see Retry-After.",
    )
)
