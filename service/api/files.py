"""GET /v1/files/{root}/{path}: files from disk, and what is in their folders."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import uuid_utils.compat as uuid_utils
from fastapi import Query, Request
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from service.access import Action, Common, authorize
from service.api.addresses import base_of, quoted
from service.api.fields import field_values
from service.api.json import json_response, stable_json
from service.api.openapi_downloads import FILE_PARAMETERS, FILE_RESPONSES, ROOTS_RESPONSES
from service.api.query_string import query_parameters
from service.api.records import announced, download_record
from service.api.router import Router
from service.download.decision import FileRequest
from service.download.files import FileStream
from service.download.listing import Entry
from service.download.roots import NOTHING
from service.download.share import Share
from service.errors import InvalidParameter, NotFound
from service.export.receipt import rfc3339
from service.grammar.choices import given_once, switch
from service.grammar.scanner import mistake
from service.jobs.model import Kind
from service.jobs.telling import Telling
from service.representation import parse_chunk_size
from service.runtime import caller_of, service_of
from service.streaming import StreamResponse

router = Router(tags=["downloads"])

MAX_PAGE = 1000
OF_FILES = frozenset({"chunk_size", "receipt"})
OF_FOLDERS = frozenset({"limit", "cursor"})


class AnyText(Convertor[str]):
    """The rest of a path, whatever is in it; Starlette's own ends before a line break."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", AnyText())


@router.get("/v1/files", summary="The roots of files", responses=ROOTS_RESPONSES)
async def list_roots(request: Request) -> Response:
    """Their names, and where they begin."""
    authorize(caller_of(request), Action.READ, Common())
    base = base_of(request)
    roots = [
        {"name": name, "links": {"self": f"{base}/v1/files/{quoted(name)}/"}}
        for name in service_of(request).shares
    ]
    return stable_json(request, {"roots": roots})


@router.get(
    "/v1/files/{root}/{path:any}",
    summary="A file, whole or in part, or a page of a folder",
    responses=FILE_RESPONSES,
    response_class=Response,
    openapi_extra={"parameters": FILE_PARAMETERS},
)
async def get_file(
    request: Request,
    root: str,
    path: str,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Folders: entries a page.")] = 200,
    cursor: Annotated[str | None, Query(description="Folders: where the page begins.")] = None,
) -> Response:
    """A path that ends in a slash is a folder. Links lead nowhere, and nothing out of the root."""
    authorize(caller_of(request), Action.READ, Common())
    share = service_of(request).shares.get(root)
    if share is None:
        raise NotFound(NOTHING)
    if not path or path.endswith("/"):
        _given(request, OF_FOLDERS)
        return await _folder(request, share, path, limit, cursor)
    return _file(request, share, path, _given(request, OF_FILES))


def _file(request: Request, share: Share, path: str, given: dict[str, str]) -> Response:
    service, export_id = service_of(request), str(uuid_utils.uuid7())
    size, recorded = given.get("chunk_size"), switch(given, "receipt", "0")
    asked = FileRequest(
        path=path,
        headers=field_values(request),
        head=request.method == "HEAD",
        chunk_size=None if size is None else parse_chunk_size(size, 0),
    )
    recorder = service.recorder if recorded else None
    record_id, root = export_id if recorded else "", share.root.name
    telling = Telling(
        download_record(request, Kind.FILE, record_id, root, asked.shown(root)),
        recorder,
        service.observe,
        time.monotonic(),
    )
    stream = FileStream(share, asked, telling, announced(request, export_id) if recorded else {})
    response = StreamResponse(
        stream, service.active, headers={}, max_duration=service.settings.limits.max_duration
    )
    telling.break_off = response.break_off
    return response


async def _folder(
    request: Request, share: Share, path: str, limit: int, cursor: str | None
) -> Response:
    if not share.settings.listing:
        raise NotFound(NOTHING)
    after = None if cursor is None else _place(cursor)
    listing = await share.list_folder(path, after=after, limit=limit)
    segments = [share.root.name, *path.split("/")[:-1]]
    here = f"{base_of(request)}/v1/files/{'/'.join(map(quoted, segments))}/"
    headers = {}
    if listing.after is not None:
        following = f"{here}?limit={limit}&cursor={_cursor(listing.after)}"
        headers["Link"] = f'<{following}>; rel="next"'
    entries = [_shown(entry, here) for entry in listing.entries]
    page = {"root": share.root.name, "path": path, "entries": entries}
    return json_response(page, headers=headers)


def _shown(entry: Entry, folder: str) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": "folder" if entry.folder else "file",
        "size": entry.size,
        "modified": rfc3339(entry.modified),
        "links": {"self": f"{folder}{quoted(entry.name)}{'/' if entry.folder else ''}"},
    }


def _given(request: Request, offered: frozenset[str]) -> dict[str, str]:
    """The parameters, each once. Raises InvalidParameter for one that is not ``offered``."""
    return given_once(_offered(query_parameters(request), offered))


def _offered(
    parameters: Iterable[tuple[str, str]], offered: frozenset[str]
) -> Iterator[tuple[str, str]]:
    for name, text in parameters:
        if name not in offered:
            raise mistake(name, f"this is not one of {', '.join(sorted(offered))},", 1)
        yield name, text


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _place(cursor: str) -> str:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise InvalidParameter("cursor", "cursor: this is not one that a page gave.") from error
