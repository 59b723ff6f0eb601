"""GET /v1/rows/{dataset}: the direct stream."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import uuid_utils.compat as uuid_utils
from fastapi import Request
from starlette.responses import Response

from service.api.datasets import readable_dataset
from service.api.openapi import ROWS_PARAMETERS, ROWS_RESPONSES
from service.api.query_string import query_parameters
from service.api.records import announced
from service.api.responses import HeadResponse
from service.api.router import Router
from service.database import utcnow
from service.dataset import Dataset
from service.export.assembly import Asked, assemble
from service.export.encode import FORMATS
from service.grammar.query import RowsQuery, parse_query
from service.jobs.direct import CountOnly, DirectStream
from service.jobs.model import Kind, Record
from service.jobs.telling import Telling
from service.preferences import preferred_count
from service.representation import (
    PARAMETERS,
    Representation,
    negotiate_format,
    parse_representation,
)
from service.runtime import caller_of, service_of
from service.streaming import Stream, StreamResponse

router = Router(tags=["rows"])


PATH = "/v1/rows/{dataset:path}"
DOCUMENTED: dict[str, Any] = {
    "summary": "The rows of a dataset as CSV, NDJSON or JSON",
    "openapi_extra": {"parameters": ROWS_PARAMETERS},
    "responses": ROWS_RESPONSES,
    "response_class": Response,
}


@router.get(PATH, **DOCUMENTED)
async def read_rows(request: Request, dataset: str) -> Response:
    """Streams the rows at the database's own speed, in constant memory, with a receipt."""
    created = time.monotonic()
    service = service_of(request)
    name, suffix = split_suffix(dataset)
    found = await readable_dataset(request, name)
    parameters = query_parameters(request)
    representation = parse_representation(
        negotiate_format(suffix, request.headers.get("accept", "")),
        [item for item in parameters if item[0] in PARAMETERS],
        accept_encoding=request.headers.get("accept-encoding", ""),
        chunk_size=service.settings.limits.chunk_size,
    )
    query = parse_query(
        found,
        [item for item in parameters if item[0] not in PARAMETERS],
        cursors=service.cursors,
    )
    count = preferred_count(",".join(request.headers.getlist("prefer")))
    asked = Asked(found, query, representation, count)
    export_id = str(uuid_utils.uuid7())
    headers = stream_headers(request, found, representation, export_id)
    source, limits = service.sources[found.source], service.settings.limits
    head = request.method == "HEAD"
    export = assemble(asked, source, service.cursors, limits, export_id, unread=head)
    if head:
        del headers["X-Export-Id"], headers["Link"]
        if count is None:
            return HeadResponse(headers=headers)
        stream: Stream = CountOnly(export, query)
    else:
        record = Record(
            id=export_id,
            kind=Kind.STREAM,
            owner=caller_of(request).subject,
            dataset=found.name,
            source=found.source,
            lane=export.lane,
            format=representation.format.name,
            compression=representation.compression,
            profile=representation.profile,
            request={"query": parameters, "format": representation.format.name},
            created_at=utcnow(),
            **_total(found, query),
        )
        changed = partial(service.catalog.forget, found.source)
        telling = Telling(record, service.recorder, service.observe, created)
        stream = DirectStream(export, telling, changed, query)
    response = StreamResponse(
        stream, service.active, headers=headers, max_duration=limits.max_duration
    )
    if isinstance(stream, DirectStream):
        stream.telling.break_off = response.break_off
    return response


def split_suffix(path: str) -> tuple[str, str | None]:
    """``flights.csv`` → the dataset and its format; the suffix wins over Accept."""
    name, dot, suffix = path.rpartition(".")
    return (name, suffix) if dot and suffix in FORMATS else (path, None)


def stream_headers(
    request: Request, dataset: Dataset, representation: Representation, export_id: str
) -> dict[str, str]:
    """Everything that a client may want to know before the first byte."""
    return representation.headers(dataset.name, "Accept") | announced(request, export_id)


def _total(dataset: Dataset, query: RowsQuery) -> dict[str, Any]:
    """How many rows are to be expected, where anything is known of that."""
    if dataset.estimated_rows is None or query.where or query.offset or query.after:
        return {}
    rows = dataset.estimated_rows
    return {
        "total_rows": rows if query.limit is None else min(rows, query.limit),
        "total_kind": "estimate",
    }
