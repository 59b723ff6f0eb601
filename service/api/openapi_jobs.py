"""What OpenAPI says of jobs: the body that makes one, its content, its events, with examples."""

from __future__ import annotations

from typing import Any

from service.api.openapi import EXPORT, EXPORT_ID, TEXT, Responses, answers, header, problems
from service.jobs.request import ExportRequest
from service.representation import PROFILES

REQUEST = {
    "dataset": "flights",
    "format": "csv",
    "select": ["carrier", "flight", "dep_delay"],
    "where": {"origin": "eq.JFK", "dep_delay": ["gt.60", "lt.600"]},
    "order": ["dep_delay.desc"],
    "limit": 1000,
    "compression": "none",
    "profile": PROFILES[0],
}
EXPORT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": ExportRequest.model_json_schema(), "example": REQUEST}
        },
    }
}
JOB = {
    **EXPORT,
    "kind": "job",
    "request": REQUEST,
    "state": "queued",
    "started_at": None,
    "finished_at": None,
    "progress": {
        "rows": 0,
        "bytes": 0,
        "total_rows": 9912,
        "total_kind": "estimate",
        "total_bytes": None,
        "fraction": 0.0,
        "rows_per_s": None,
        "bytes_per_s": None,
        "eta_s": None,
    },
    "links": {
        "self": f"…/v1/exports/{EXPORT_ID}",
        "events": f"…/v1/exports/{EXPORT_ID}/events",
        "content": f"…/v1/exports/{EXPORT_ID}/content?attempt=1",
        "receipt": f"…/v1/exports/{EXPORT_ID}/receipt",
        "cancel": f"…/v1/exports/{EXPORT_ID}/cancel",
    },
}


def _accepted(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {
            "Location": {"description": "Where the export is.", "schema": TEXT},
            "Retry-After": {"description": "Seconds.", "schema": TEXT},
            "X-Export-Joined": {
                "description": "`true` where it was there already.",
                "schema": TEXT,
            },
        },
        "content": {"application/json": {"example": JOB}},
    }


JOB_PARAMETERS = [
    header(
        "Idempotency-Key",
        "Any text: the same key with the same body gets the same answer for 24 hours.",
        "nightly-2026-11-24",
    ),
    header(
        "Prefer",
        "`wait=30` answers 200 if the export has ended by then (60 seconds at most); "
        "`count=exact` counts the rows first, so that progress knows its end.",
        "wait=30",
    ),
]
_JOB: Responses = {
    202: _accepted("It is queued, or runs already."),
    200: {
        "description": "It has ended within the time of `Prefer: wait`.",
        "content": {"application/json": {"example": {**JOB, "state": "succeeded"}}},
    },
}
JOB_RESPONSES = _JOB | problems(
    _400="A column, operator or value does not fit; the problem names it.",
    _404="There is no such dataset.",
    _413="The body is too large.",
    _415="The body is not `application/json`.",
    _422="The body is not such a request, or the key came with another one.",
    _429="Too many exports of the caller are waiting.",
    _503="Too many exports are waiting, or the records cannot be reached.",
    _507="There is too little room for artifacts.",
)
ESTIMATE_RESPONSES = answers(
    "Rows and bytes, each with how sure it is.",
    {"rows": 9912, "rows_kind": "estimate", "bytes": 158592, "bytes_kind": "estimate"},
) | problems(_400="As for the export.", _404="There is no such dataset.")
PREVIEW_RESPONSES = answers(
    "The columns and up to 20 rows.",
    {"columns": [{"name": "carrier", "type": "text"}], "rows": [{"carrier": "UA"}]},
) | problems(_400="As for the export.", _404="There is no such dataset.")
CANCEL_RESPONSES: Responses = answers(
    "It has stopped, or had ended before.",
    {
        "cancelled": True,
        "proof": {"backend_gone": True, "latency_ms": 14.2, "rows_written": 183552},
    },
) | {202: {"description": "It was told to stop, and has not said yet that it did."}}
_RETRY: Responses = {202: _accepted("It is queued again.")}
RETRY_RESPONSES = _RETRY | problems(_409="It has not failed, or is no job.")

_DELETED: Responses = {204: {"description": "Nothing of it is left."}}
DELETE_RESPONSES = _DELETED | problems(_409="It is still being stopped: try again.")

CONTENT_PARAMETERS = [
    header("Range", "`bytes=N-` resumes, also while the file grows.", "bytes=1048576-"),
    header("If-Range", "The `ETag` of what the client has.", f'"{EXPORT_ID.replace("-", "")}.1"'),
]
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILE = {"content": {"text/csv": _BYTES, "application/x-ndjson": _BYTES}}
_CONTENT: Responses = {
    200: {
        "description": "The file; while it grows, chunks without a length. A connection that ends "
        "without the last chunk is a failure.",
        **_FILE,
    },
    206: {
        "description": "A part. Of a growing file `Content-Range` is "
        "`bytes N-9007199254740991/*` (RFC 8673).",
        **_FILE,
    },
    304: {"description": "The client has the finished file."},
}
CONTENT_RESPONSES = _CONTENT | problems(
    _404="There is no such export, or it keeps no file.",
    _409="The export has failed.",
    _410="Cancelled, expired, or another attempt counts.",
    _412="`If-Match` or `If-Unmodified-Since` does not hold.",
    _416="The range begins behind the end.",
    _503="No byte is made yet: see Retry-After.",
)
EVENTS_PARAMETERS = [
    header("Last-Event-ID", "The `id` of the last event that the client has.", "7"),
]
_STREAM: Responses = {
    200: {
        "description": "Server-Sent Events. An end without `close` is no end: connect again.",
        "content": {
            "text/event-stream": {
                "schema": TEXT,
                "example": 'event: progress\ndata: {"attempt":1,"rows":183552}\nid: 3\n\n',
            }
        },
    },
}
_DONE: Responses = {
    204: {"description": "The client has the last event: nothing more will come."},
}
EVENTS_RESPONSES = (
    _STREAM
    | _DONE
    | problems(_404="There is no such export.", _503="The records cannot be reached.")
)
ALL_EVENTS_RESPONSES = _STREAM | problems(_503="The records cannot be reached.")
