"""Health, readiness, metrics and status, for those who run the service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, cast

import sqlalchemy as sa
from fastapi import Request
from prometheus_client import generate_latest
from sqlalchemy.pool import QueuePool
from starlette.responses import Response

from service.api.json import json_response
from service.api.router import Router
from service.database import AWAY
from service.databases.source import Source
from service.errors import StorageFailed, TailraceError
from service.export.receipt import rfc3339
from service.jobs.overview import overview
from service.runtime import Service, service_of
from service.schema import at_head
from service.slots import Slots

router = Router(tags=["operations"])

CHECK_SECONDS = 3.0


@router.get("/livez", summary="The process answers")
async def livez() -> Response:
    """200 as long as the event loop turns; never limited."""
    return json_response({"status": "ok"})


@router.get("/readyz", summary="The process can take requests")
async def readyz(request: Request) -> Response:
    """200 when database, schema, artifacts, queue and sources are there, and it is not stopping."""
    service = service_of(request)
    checks = {
        "database": _database(service),
        "schema": _schema(service),
        "artifacts": asyncio.to_thread(service.folder.require_writable),
        "queue": _queue(service),
        **{f"source {name}": source.ping() for name, source in service.sources.items()},
    }
    results = await asyncio.gather(*(_check(check) for check in checks.values()))
    found = dict(zip(checks, results, strict=True))
    found["draining"] = "draining" if service.active.draining else "ok"
    ready = all(result == "ok" for result in found.values())
    body = {"status": "ok" if ready else "unavailable", "checks": found}
    return json_response(body, status=200 if ready else 503)


@router.get(
    "/metrics",
    summary="Prometheus metrics of this process, and of the queue",
    response_class=Response,
)
async def metrics(request: Request) -> Response:
    """The text format of Prometheus, version 0.0.4."""
    service = service_of(request)
    jobs = await _jobs(service)
    service.metrics.looked_at(
        queued=jobs.get("queued"),
        running=jobs.get("running"),
        workers=len(jobs["workers"]) if "workers" in jobs else None,
        readers=len(service.readers),
    )
    return Response(
        generate_latest(service.metrics.registry),
        media_type="text/plain; version=0.0.4; charset=utf-8",
    )


@router.get("/v1/status", summary="Queue, workers, streams, pools, limits and the oldest snapshot")
async def status(request: Request) -> Response:
    """What the exports cost right now."""
    service = service_of(request)
    sources = {name: await _source(source) for name, source in service.sources.items()}
    limits = service.settings.limits
    return json_response(
        {
            "draining": service.active.draining,
            "streams": len(service.active),
            "event_readers": len(service.readers),
            "queue": await _jobs(service),
            "artifacts": await asyncio.to_thread(_artifacts, service),
            "sources": sources,
            "roots": _slots({name: share.slots for name, share in service.shares.items()}),
            "upstreams": _slots(service.upstreams.slots()),
            "datasets_unusable": service.catalog.problems,
            "limits": limits.model_dump(),
        }
    )


async def _source(source: Source) -> dict[str, Any]:
    pool = cast(QueuePool, source.engine.pool)
    body: dict[str, Any] = {
        "slots": {"total": source.slots.total, "taken": source.slots.taken},
        "pool": {"open": pool.checkedin() + pool.checkedout(), "in_use": pool.checkedout()},
        "oldest_snapshot": None,
        "backends": None,
    }
    try:
        async with asyncio.timeout(CHECK_SECONDS), source.engine.connect() as connection:
            found = await source.activity(connection)
    except AWAY:
        return body | {"error": "The database does not answer."}
    oldest = rfc3339(found.oldest) if found.oldest else None
    return body | {"oldest_snapshot": oldest, "backends": found.backends}


def _slots(named: Mapping[str, Slots]) -> dict[str, Any]:
    return {
        name: {"slots": {"total": slots.total, "taken": slots.taken}}
        for name, slots in named.items()
    }


async def _jobs(service: Service) -> dict[str, Any]:
    """What waits, what runs, and the workers that have been heard of lately."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await overview(service.engine)
    except AWAY:
        return {"error": "The database does not answer."}


def _artifacts(service: Service) -> dict[str, Any]:
    try:
        return {
            "free_bytes": service.folder.free_bytes(),
            "used_bytes": service.folder.used_bytes(),
        }
    except StorageFailed as error:
        return {"error": error.detail}


async def _queue(service: Service) -> None:
    await service.queue.depth()


async def _database(service: Service) -> None:
    async with service.engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))


async def _schema(service: Service) -> None:
    if not await at_head(service.engine):
        raise TailraceError("The schema is not at head: run tailrace migrate.")


async def _check(check: Awaitable[None]) -> str:
    """``ok``, or why not: what a driver says stays in the log, since it may name hosts."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check
    except TailraceError as error:
        return error.detail
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except AWAY:
        return "cannot be reached"
    return "ok"
