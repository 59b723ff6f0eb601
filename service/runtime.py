"""What the routes share: settings, sources, catalogue, records, streams. One a process."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from service.access import ANONYMOUS, Caller
from service.artifacts.folder import ArtifactFolder
from service.catalog import Catalog
from service.chat.desk import Desk
from service.databases.source import Source
from service.download.share import Share
from service.download.upstreams import Upstreams
from service.errors import TailraceError
from service.grammar.cursor import Cursors
from service.jobs.content import Shelf
from service.jobs.hub import Hub
from service.jobs.ledger import Ledger
from service.jobs.outbox import Readers
from service.jobs.queue import Queue
from service.jobs.store import Recorder
from service.listening import Listener
from service.observe import Metrics, Observer
from service.settings import Settings
from service.streaming import ActiveStreams


@dataclass(frozen=True, slots=True)
class Service:
    """Built once by ``create_app`` and handed to the routes."""

    settings: Settings
    engine: AsyncEngine
    sources: dict[str, Source]
    shares: dict[str, Share]
    upstreams: Upstreams
    desk: Desk
    catalog: Catalog
    recorder: Recorder
    cursors: Cursors
    active: ActiveStreams
    queue: Queue
    ledger: Ledger
    shelf: Shelf
    readers: Readers
    listener: Listener
    metrics: Metrics
    observe: Observer

    @property
    def hub(self) -> Hub:
        return self.shelf.hub

    @property
    def folder(self) -> ArtifactFolder:
        return self.shelf.folder

    async def start(self) -> None:
        """Begin the background work. A source that is away is looked at on its first use."""
        await self.recorder.start()
        self.hub.start()
        self.readers.start()
        self.desk.start()
        self.listener.start()
        self.active.when_draining(self.readers.close)
        with contextlib.suppress(TailraceError):
            await self.catalog.datasets()

    async def stop(self) -> None:
        """Write what is pending, then let every connection go."""
        await self.listener.stop()
        await self.readers.stop()
        await self.hub.stop()
        await self.desk.stop()
        await self.recorder.stop()
        await asyncio.gather(*(source.close() for source in self.sources.values()))
        await self.upstreams.close()
        for share in self.shares.values():
            share.close()
        await self.engine.dispose()


def service_of(request: Request) -> Service:
    """The service that answers ``request``."""
    service: Service = request.app.state.service
    return service


def caller_of(request: Request) -> Caller:
    """Who asks. Without keys everybody is the same anonymous caller."""
    return Caller(ANONYMOUS, request.client.host if request.client else None)
