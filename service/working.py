"""The worker's process: everything that a worker uses, built from settings, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping

import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine

from service.artifacts.folder import artifact_folder
from service.catalog import Catalog
from service.database import service_engine
from service.databases.opening import open_sources
from service.databases.source import Source
from service.grammar.cursor import Cursors
from service.jobs.attempt import Tools
from service.jobs.ledger import Ledger
from service.jobs.log import CANCEL
from service.jobs.queue import CHANNEL, Queue
from service.jobs.upkeep import Upkeep
from service.jobs.worker import Worker
from service.listening import Listener
from service.observe import log
from service.secret import kept_secret
from service.settings import Settings


def work(settings: Settings, database_url: str) -> None:
    """Run a worker until SIGTERM or SIGINT; returns once its attempts have ended."""
    os.umask(0o077)  # what it writes is of one account alone
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(settings, database_url))


def build_worker(
    settings: Settings,
    engine: AsyncEngine,
    pulse: AsyncEngine,
    sources: Mapping[str, Source],
) -> Worker:
    """A worker that is not started."""
    queue, folder = Queue(engine), artifact_folder(settings.data_dir)
    ledger = Ledger(engine, queue)
    tools = Tools(
        ledger=ledger,
        folder=folder,
        sources=sources,
        catalog=Catalog(sources, settings.sources, settings.datasets, log),
        cursors=Cursors(settings.server.secret or kept_secret(settings.data_dir)),
        limits=settings.limits,
        observe=log,
    )
    return Worker(
        engine,
        pulse,
        queue,
        Upkeep(engine, ledger, queue, folder, settings.limits),
        tools,
        max_jobs={name: source.max_jobs for name, source in settings.sources.items()},
        concurrency=settings.worker.concurrency,
    )


async def _work(settings: Settings, database_url: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine, pulse = service_engine(database_url), service_engine(database_url, pool_size=1)
    sources = open_sources(settings, database_url)
    try:
        worker = build_worker(settings, engine, pulse, sources)
        listener = Listener(database_url, {CHANNEL: worker.hint, CANCEL: worker.cancel})
        listener.start()
        await worker.run(stop)
        await listener.stop()
    finally:
        await asyncio.gather(*(source.close() for source in sources.values()))
        await engine.dispose()
        await pulse.dispose()
