"""What happens while a stream of all exports begins: it is told, and only once."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import orjson
from sqlalchemy.ext.asyncio import create_async_engine

from service.jobs.hub import Hub
from service.jobs.outbox import Readers
from service.jobs.watching import AllEvents, export_event, export_frame
from service.line import chunk
from service.sse import frame, retry
from tests.exporting import ignored
from tests.job_desk import desk
from tests.waiting import eventually

BASE = "http://here"
WITHIN = 30.0  # seconds
HOUR = 3_600.0  # seconds


async def test_what_comes_while_it_begins_stands_behind_the_beginning(database_url: str) -> None:
    deleted = str(uuid4())
    narrow = create_async_engine(database_url, pool_size=1, max_overflow=0)
    async with desk(database_url) as here:
        waiting = await here.waiting()
        hub = Hub(here.engine, ignored, export_event)
        stream = AllEvents("anonymous", BASE, engine=narrow, hub=hub, readers=Readers(HOUR))
        async with narrow.connect():
            # Its query waits for this connection.
            beginning = asyncio.create_task(stream.begin())
            await eventually(
                lambda: asyncio.sleep(0, hub._overseers), within=WITHIN, what="it has begun"
            )
            running = await here.claimed(waiting)
            for record in (waiting, running):
                stream.told(record, export_event(record, BASE))
            stream.gone(deleted)
        first = await beginning
    await narrow.dispose()
    assert first == retry(3_000) + export_frame(running, BASE)
    assert stream.outbox._waiting == [chunk(frame("deleted", orjson.dumps({"id": deleted})))]
