"""What OpenAPI says of the rows' query string, which is parsed by ``service.query``."""

from __future__ import annotations

from typing import Any

from service.errors import PROBLEM_MEDIA_TYPE
from service.export.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from service.export.encode import FORMATS


def _parameter(name: str, description: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema,
        "example": example,
    }


TEXT = {"type": "string"}
SWITCH = {"type": "string", "enum": ["0", "1"]}

ROWS_PARAMETERS: list[dict[str, Any]] = [
    _parameter("select", "Columns in output order, `alias:column` renames.", TEXT, "id,name"),
    {
        "name": "filters",
        "in": "query",
        "required": False,
        "description": (
            "`column=operator.value`, any number of them, joined by AND. Operators: "
            "`eq neq gt gte lt lte`, `in.(a,b)`, `is.null|not_null|true|false|unknown`; "
            "`not.` in front negates."
        ),
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        "style": "form",
        "explode": True,
        "example": {"id": "lte.100"},
    },
    _parameter("order", "`column[.asc|.desc][.nullsfirst|.nullslast]`, …", TEXT, "id.desc"),
    _parameter("limit", "Rows at most.", {"type": "integer", "minimum": 0}, 5),
    _parameter("offset", "Rows to skip.", {"type": "integer", "minimum": 0}, 0),
    _parameter(
        "compression",
        "Makes a compressed file.",
        {"type": "string", "enum": ["none", "gzip", "zstd"]},
        "zstd",
    ),
    _parameter("delimiter", "CSV: the character between cells.", TEXT, ";"),
    _parameter("header", "CSV: whether the first line names the columns.", SWITCH, "1"),
    _parameter("end", "NDJSON: a last line with rows and digest proves the end.", SWITCH, "1"),
    _parameter(
        "chunk_size",
        "Bytes a chunk.",
        {"type": "integer", "minimum": MIN_CHUNK_SIZE, "maximum": MAX_CHUNK_SIZE},
        262144,
    ),
    {
        "name": "Accept",
        "in": "header",
        "required": False,
        "description": "The format, where the path has no suffix.",
        "schema": TEXT,
        "example": "text/csv",
    },
]

_PROBLEM = {"content": {PROBLEM_MEDIA_TYPE: {"schema": {"type": "object"}}}}

ROWS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The stream. A connection that ends without the last chunk is a failure.",
        "content": {item.media_type: {"schema": {"type": "string"}} for item in FORMATS.values()},
    },
    400: {"description": "A parameter is wrong; the problem names it.", **_PROBLEM},
    404: {"description": "There is no such dataset.", **_PROBLEM},
    406: {"description": "No offered format is acceptable.", **_PROBLEM},
    502: {"description": "The source database answered with an error.", **_PROBLEM},
    503: {"description": "Busy, draining, or the source is away: see Retry-After.", **_PROBLEM},
    504: {"description": "The export took longer than it may.", **_PROBLEM},
}
