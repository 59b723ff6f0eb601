"""GET /v1/relay/{upstream}/{path} and /v1/relay?url=…: downloads of other services, passed on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
import uuid_utils.compat as uuid_utils
from fastapi import Request
from starlette.responses import Response

from service.access import Action, Common, authorize
from service.api.addresses import base_of, quoted
from service.api.json import stable_json
from service.api.openapi import NOT_MODIFIED, answers
from service.api.openapi_relays import FREE_PARAMETERS, RELAY_PARAMETERS, RELAY_RESPONSES
from service.api.query_string import query_parameters
from service.api.records import announced, download_record
from service.api.router import Router
from service.download.forwarding import query_of, query_without, request_fields
from service.download.relay import Manner, RelayStream
from service.download.upstream import Asked, Upstream
from service.errors import Forbidden, NotFound
from service.grammar.choices import given_once, one_of
from service.grammar.scanner import mistake
from service.jobs.model import Kind
from service.jobs.telling import Telling
from service.representation import parse_chunk_size
from service.runtime import caller_of, service_of
from service.streaming import StreamResponse

router = Router(tags=["downloads"])

OWN = frozenset({"chunk_size", "lines", "on_bad_line"})
PREFIX_SEGMENTS = 4  # of "/v1/relay/{upstream}/"


@router.get(
    "/v1/upstreams",
    summary="The upstreams whose downloads are relayed",
    responses=answers(
        "Every upstream, by name.",
        {"upstreams": [{"name": "archive", "methods": ["GET", "HEAD"], "paths": ["daily/"]}]},
    )
    | NOT_MODIFIED,
)
async def list_upstreams(request: Request) -> Response:
    """Their names, and which paths may be asked for: none means all. Addresses are not told."""
    service = service_of(request)
    authorize(caller_of(request), Action.READ, Common())
    base = base_of(request)
    found = [
        {
            "name": name,
            "methods": list(settings.methods),
            "paths": list(settings.paths),
            "links": {"relay": f"{base}/v1/relay/{quoted(name)}/"},
        }
        for name, settings in service.settings.upstreams.items()
    ]
    return stable_json(request, {"upstreams": found, "free": service.settings.relay.allow_urls})


@router.get(
    "/v1/relay/{upstream}/{path:path}",
    summary="A download of a configured upstream",
    responses=RELAY_RESPONSES,
    response_class=Response,
    openapi_extra={"parameters": RELAY_PARAMETERS},
)
async def relay(request: Request, upstream: str, path: str) -> Response:
    """Passes on its status, head and bytes as they come; parts and conditions pass, too."""
    authorize(caller_of(request), Action.READ, Common())
    found = service_of(request).upstreams.configured.get(upstream)
    if found is None:
        raise NotFound(f"There is no upstream {upstream!r}.")
    route, through = found
    query = request.scope["query_string"].decode("ascii")
    # The others are the upstream's, whatever they are.
    manner = _manner(request, parse_qsl(query_of(query, OWN), keep_blank_values=True))
    fields = _fields(request, manner, route.settings.forward)
    raw = _raw_path(request, path)
    asked = route.asked(request.method, raw, query_without(query, OWN), fields)
    return _response(request, through, asked, manner, {"upstream": upstream, "path": path})


@router.get(
    "/v1/relay",
    summary="A download of any public address",
    responses=RELAY_RESPONSES,
    response_class=Response,
    openapi_extra={"parameters": FREE_PARAMETERS},
)
async def relay_url(request: Request) -> Response:
    """Only where the configuration allows it, and only from public addresses, at every hop."""
    authorize(caller_of(request), Action.READ, Common())
    free = service_of(request).upstreams.free
    if free is None:
        raise Forbidden("Free addresses are not relayed here: the setting relay.allow_urls is off.")
    parameters = query_parameters(request)
    urls = [text for name, text in parameters if name == "url"]
    unknown = [name for name, _ in parameters if name not in OWN | {"url"}]
    if unknown:
        # Most likely a part of the URL, whose "&" has not been encoded.
        raise mistake(unknown[0], "this is no parameter; is the URL percent-encoded?", 1)
    if len(urls) != 1:
        raise mistake("url", "exactly one address is needed", 1)
    route, through = free
    manner = _manner(request, parameters)
    asked = route.asked(request.method, urls[0], _fields(request, manner, ()))
    shown = asked.url.partition("?")[0]  # a query may hold a signature
    return _response(request, through, asked, manner, {"url": shown})


def _response(
    request: Request, upstream: Upstream, asked: Asked, manner: Manner, shown: dict[str, Any]
) -> Response:
    service, export_id = service_of(request), str(uuid_utils.uuid7())
    wanted = {name: text for name, text in asked.fields if name == "range"}
    record = download_record(
        request,
        Kind.RELAY,
        export_id,
        upstream.name,
        shown | wanted,
        "ndjson" if manner.lines else None,
    )
    stream = RelayStream(
        upstream,
        asked,
        manner,
        Telling(record, service.recorder, service.observe, time.monotonic()),
        path=shown.get("path") or unquote(urlsplit(asked.url).path),
        announced=announced(request, export_id),
        query_sha256=hashlib.sha256(orjson.dumps([asked.method, asked.url, wanted])).hexdigest(),
    )
    response = StreamResponse(
        stream,
        service.active,
        headers={"Cache-Control": "private, no-cache"},
        max_duration=min(upstream.limits.max_duration, service.settings.limits.max_duration),
    )
    stream.telling.break_off = response.break_off
    return response


def _manner(request: Request, parameters: Iterable[tuple[str, str]]) -> Manner:
    given = given_once((name, text) for name, text in parameters if name in OWN)
    lines = one_of(given, "lines", ("0", "1")) == "1"
    if "on_bad_line" in given and not lines:
        raise mistake("on_bad_line", "this is for lines=1,", 1)
    size = given.get("chunk_size")
    return Manner(
        chunk_size=None if size is None else parse_chunk_size(size, 0),
        lines=lines,
        skip=one_of(given, "on_bad_line", ("fail", "skip")) == "skip",
        max_line=service_of(request).settings.limits.max_line,
    )


def _fields(request: Request, manner: Manner, extra: tuple[str, ...]) -> list[tuple[str, str]]:
    return request_fields(request.headers.items(), lines=manner.lines, extra=extra)


def _raw_path(request: Request, path: str) -> str:
    """``path`` as it stood in the request line, where an encoded slash is none."""
    prefix = request.scope.get("root_path", "").count("/") + PREFIX_SEGMENTS
    raw = "/".join(request.scope["raw_path"].decode("ascii").split("/")[prefix:])
    if unquote(raw) != path:
        # An encoded slash before it: what was routed is not what would be asked for.
        raise NotFound("There is nothing that may be relayed at this path.")
    return raw
