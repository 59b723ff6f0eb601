"""What OpenAPI says: the rows' query string, which ``service.grammar.query`` parses, and examples."""

from __future__ import annotations

from typing import Any

from service.errors import PROBLEM_MEDIA_TYPE
from service.export.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from service.export.compress import COMPRESSIONS
from service.export.encode import FORMATS

Responses = dict[int | str, dict[str, Any]]


def parameter(
    name: str, description: str, schema: dict[str, Any], example: Any, place: str = "query"
) -> dict[str, Any]:
    """One that may be left out; ``place`` is where it stands, query or header."""
    return {
        "name": name,
        "in": place,
        "required": False,
        "description": description,
        "schema": schema,
        "example": example,
    }


def header(name: str, description: str, example: str) -> dict[str, Any]:
    """A field of the request's head."""
    return parameter(name, description, TEXT, example, "header")


def problems(**told: str) -> Responses:
    """Problem documents by their status: ``_404="There is none."``."""
    return {int(code[1:]): {"description": text, **PROBLEM} for code, text in told.items()}


TEXT = {"type": "string"}
SWITCH = {"type": "string", "enum": ["0", "1"]}

ROWS_PARAMETERS: list[dict[str, Any]] = [
    parameter("select", "Columns in output order, `alias:column` renames.", TEXT, "id,name"),
    {
        "name": "filters",
        "in": "query",
        "required": False,
        "description": (
            "`column=operator.value`, any number of them, joined by AND. Operators: "
            "`eq neq gt gte lt lte isdistinct`, `like ilike` (`*` is any text), `match imatch` "
            "(regular expressions), `in.(a,b)`, `is.null|not_null|true|false|unknown`; "
            "`not.` in front negates."
        ),
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        "style": "form",
        "explode": True,
        "example": {"id": "lte.100"},
    },
    parameter(
        "or",
        "Conditions of which one must hold, `column.operator.value` or nested `and(…)`, `or(…)`; "
        "`and=(…)`, `not.and=(…)` and `not.or=(…)` likewise.",
        TEXT,
        "(id.lte.10,and(id.gte.90,id.lt.100))",
    ),
    parameter("order", "`column[.asc|.desc][.nullsfirst|.nullslast]`, …", TEXT, "id.desc"),
    parameter(
        "after",
        "A cursor, `next_cursor` of a receipt or of an `_end` line: the rows behind it, with the "
        "same filters and order.",
        TEXT,
        "WyJzY29yZXMi…",
    ),
    parameter("limit", "Rows at most.", {"type": "integer", "minimum": 0}, 5),
    parameter("offset", "Rows to skip.", {"type": "integer", "minimum": 0}, 0),
    parameter(
        "compression",
        "Makes a compressed file.",
        {"type": "string", "enum": ["none", "gzip", "zstd"]},
        "zstd",
    ),
    parameter("delimiter", "CSV: the character between cells.", TEXT, ";"),
    parameter("header", "CSV: whether the first line names the columns.", SWITCH, "1"),
    parameter(
        "profile",
        "CSV: `excel` is for spreadsheets (byte order mark, CRLF, no formulas, 1,048,575 rows).",
        {"type": "string", "enum": ["machine", "excel"]},
        "excel",
    ),
    parameter("end", "NDJSON: a last line with rows and digest proves the end.", SWITCH, "1"),
    parameter(
        "chunk_size",
        "Bytes a chunk.",
        {"type": "integer", "minimum": MIN_CHUNK_SIZE, "maximum": MAX_CHUNK_SIZE},
        262144,
    ),
    header("Accept", "The format, where the path has no suffix.", "text/csv"),
    header(
        "Prefer",
        "`count=exact` or `count=estimated` (the planner's guess): `X-Total-Count`, "
        "`X-Total-Count-Kind` and `Content-Range` tell how many rows the filters let through.",
        "count=exact",
    ),
]

_MEMBERS = ("type", "title", "detail", "code", "request_id")
_SCHEMA = {
    "type": "object",
    "required": [*_MEMBERS, "status"],
    "properties": {**dict.fromkeys(_MEMBERS, TEXT), "status": {"type": "integer"}},
}
PROBLEM: dict[str, Any] = {"content": {PROBLEM_MEDIA_TYPE: {"schema": _SCHEMA}}}

# For every operation, in place of FastAPI's own 422, which is not what we answer.
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "Every error is a problem document (RFC 9457).", **PROBLEM}
}

ROWS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The stream. A connection that ends without the last chunk is a failure.",
        "content": {
            media_type: {"schema": TEXT}
            for media_type in (
                *(item.media_type for item in FORMATS.values()),
                *(item.media_type for item in COMPRESSIONS.values()),
            )
        },
    },
    400: {"description": "A parameter is wrong; the problem names it.", **PROBLEM},
    404: {"description": "There is no such dataset.", **PROBLEM},
    406: {"description": "No offered format is acceptable.", **PROBLEM},
    502: {"description": "The source database answered with an error.", **PROBLEM},
    503: {"description": "Busy, draining, or the source is away: see Retry-After.", **PROBLEM},
    504: {"description": "The export took longer than it may.", **PROBLEM},
}


def answers(description: str, example: Any) -> dict[int | str, dict[str, Any]]:
    """A JSON answer of status 200 with an example of it."""
    return {
        200: {"description": description, "content": {"application/json": {"example": example}}}
    }


NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is none.", **PROBLEM}}
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is what `If-None-Match` names by its ETag; there is no body."}
}
EXPORT_ID = "01a203e2-617a-73c6-8b81-598ec9b633b7"
DATASET = {
    "name": "scores",
    "title": None,
    "description": "A million made-up rows, the same in every database.",
    "formats": ["json", "csv", "ndjson"],
    "estimated_rows": 1000000,
    "links": {"self": "…/v1/datasets/scores", "csv": "…/v1/rows/scores.csv"},
}
COLUMN = {"name": "id", "type": "integer", "nullable": False, "description": "Counts from 1."}
RECEIPT = {
    "export_id": EXPORT_ID,
    "outcome": "complete",
    "rows": 1000000,
    "bytes": 27247168,
    "sha256": "7dd92542692ba7db2055fd30f1fa8e00547caa02d266295c50b1de0d0d91ab9e",
    "encoded_bytes": None,
    "encoded_sha256": None,
    "format": "csv",
    "compression": "none",
    "query_sha256": "6dbaf3bab144706bbbd22b5ffee04984bf0d2d97739fce0d49cbd034481ffd6a",
    "snapshot": {"at": "2026-11-22T15:31:37.473156Z", "lsn": "0/882B240"},
    "next_cursor": None,
    "started_at": "2026-11-22T15:31:37.469612Z",
    "finished_at": "2026-11-22T15:31:37.939473Z",
    "db_seconds_held": 0.468215,
    "cancel": None,
}
EXPORT = {
    "id": EXPORT_ID,
    "kind": "stream",
    "owner": "anonymous",
    "dataset": "scores",
    "source": "main",
    "format": "csv",
    "compression": "none",
    "profile": "machine",
    "request": {"query": [], "format": "csv"},
    "state": "succeeded",
    "attempt": 1,
    "attempts": [],
    "created_at": "2026-11-22T15:31:37.470083Z",
    "started_at": "2026-11-22T15:31:37.476098Z",
    "finished_at": "2026-11-22T15:31:37.939473Z",
    "expires_at": None,
    "progress": {
        "rows": 1000000,
        "bytes": 27247168,
        "total_rows": 1000000,
        "total_kind": "exact",
        "total_bytes": 27247168,
        "fraction": 1.0,
        "rows_per_s": 2158079.3,
        "bytes_per_s": 58801549.5,
        "eta_s": None,
    },
    "error": None,
    "links": {
        "self": f"…/v1/exports/{EXPORT_ID}",
        "events": f"…/v1/exports/{EXPORT_ID}/events",
        "content": None,
        "receipt": f"…/v1/exports/{EXPORT_ID}/receipt",
        "cancel": f"…/v1/exports/{EXPORT_ID}/cancel",
    },
}
