"""create_app: wiring only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service import __version__
from service.api import (
    chat,
    content,
    datasets,
    drafts,
    events,
    exports,
    files,
    jobs,
    operations,
    relays,
    rows,
)
from service.api.context import RequestContext
from service.api.openapi import ERROR_RESPONSES
from service.api.problems import handlers
from service.artifacts.folder import artifact_folder
from service.artifacts.growth import Growth
from service.catalog import Catalog
from service.chat.opening import open_desk
from service.chat.store import GENERATIONS, STOP
from service.database import service_engine
from service.databases.opening import open_sources
from service.download.share import open_shares
from service.download.upstreams import open_upstreams
from service.grammar.cursor import Cursors
from service.jobs.content import Shelf
from service.jobs.hub import Hub
from service.jobs.ledger import Ledger
from service.jobs.log import CANCEL, DELETED, EVENTS
from service.jobs.outbox import Readers
from service.jobs.queue import Queue
from service.jobs.store import Recorder
from service.jobs.watching import export_event
from service.listening import Listener
from service.observe import Metrics, log, observer
from service.runtime import Service
from service.secret import kept_secret
from service.settings import Settings
from service.streaming import ActiveStreams
from service.web import pages, reference

EXPOSED_HEADERS = [
    "X-Export-Id",
    "X-Export-Joined",
    "X-Generation-Id",
    "X-Request-Id",
    "ETag",
    "Content-Range",
    "Content-Disposition",
    "Link",
    "X-Total-Count",
    "X-Total-Count-Kind",
    "Repr-Digest",
    "Retry-After",
]
DESCRIPTION = """
Large exports over plain HTTP: fast, watchable and provably complete.

A stream either ends with its proof (a receipt with rows, bytes and SHA-256) or visibly breaks.
Every error is `application/problem+json` (RFC 9457) with a stable `code`.

HEAD is answered wherever GET is.
"""


def create_app(settings: Settings, database_url: str) -> FastAPI:
    """The application for ``settings``; ``database_url`` is where Tailrace's own tables are."""
    service = build_service(settings, database_url)
    app = FastAPI(
        title="Tailrace",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        root_path=settings.server.root_path,
        openapi_url=None,  # it is a route of ours
        docs_url=None,
        redoc_url=None,
        middleware=_middleware(service),
        exception_handlers=handlers(service.observe),
        responses=ERROR_RESPONSES,
    )
    app.state.service = service
    for router in (
        datasets.router,
        chat.router,
        drafts.router,
        rows.router,
        exports.router,
        jobs.router,
        events.router,
        content.router,
        files.router,
        relays.router,
        operations.router,
        pages.router,
        reference.router,
    ):
        app.include_router(router)
    return app


def build_service(settings: Settings, database_url: str) -> Service:
    """Everything that the routes use, built once from ``settings``."""
    metrics = Metrics()
    observe = observer([log, metrics])
    sources = open_sources(settings, database_url)
    engine = service_engine(database_url)
    queue, hub = Queue(engine), Hub(engine, observe, export_event)
    recorder = Recorder(engine, observe)
    active = ActiveStreams()
    desk = open_desk(settings, engine, active, observe)
    heard = {
        EVENTS: hub.hint,
        DELETED: hub.deleted,
        CANCEL: recorder.cancel_named,
        GENERATIONS: desk.tails.hint,
        STOP: desk.journal.stop_named,
    }
    return Service(
        settings=settings,
        engine=engine,
        sources=sources,
        shares=open_shares(settings.files, settings.limits.slot_timeout),
        upstreams=open_upstreams(settings),
        catalog=Catalog(sources, settings.sources, settings.datasets, observe),
        recorder=recorder,
        cursors=Cursors(settings.server.secret or kept_secret(settings.data_dir)),
        active=active,
        desk=desk,
        queue=queue,
        ledger=Ledger(engine, queue),
        shelf=Shelf(artifact_folder(settings.data_dir), Growth(), hub),
        readers=Readers(settings.limits.ping_interval),
        listener=Listener(database_url, heard),
        metrics=metrics,
        observe=observe,
    )


def _middleware(service: Service) -> list[Middleware]:
    # Pure ASGI only: BaseHTTPMiddleware ends a broken stream as if it were complete.
    stack = [Middleware(RequestContext, observe=service.observe)]
    origins = service.settings.server.cors_origins
    if origins:
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=EXPOSED_HEADERS,
            )
        )
    return stack


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.start()
    try:
        yield
    finally:
        await service.stop()
