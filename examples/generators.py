"""An application of its own whose generators leave through Tailrace's stream.

    uvicorn examples.generators:app
    curl -sS 'http://127.0.0.1:8000/squares.ndjson?rows=3&end=1'

``python -m examples.generators`` also drops clients that read nothing, which needs our protocol.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response

from service.api.problems import handlers
from service.embedding import RowStreams
from service.export.receipt import Receipt
from service.observe import log
from service.protocol import with_timeouts
from service.settings import LimitSettings

logger = structlog.get_logger("examples")


def keep(receipt: Receipt) -> None:
    """Where an application would store the proof of what it has sent."""
    logger.info("receipt", **receipt.as_dict())


limits = LimitSettings(slot_timeout=1.0, stall_timeout=30.0, max_duration=3600.0)
streams = RowStreams(limits, at_once=4, prove=keep)
app = FastAPI(title="Generators", exception_handlers=handlers(log))


def squares(rows: int | None, fail_at: int | None) -> Iterator[tuple[int, int]]:
    """An ordinary generator: it may block, for it runs in a thread. None is without an end."""
    numbers = itertools.count(1) if rows is None else range(1, rows + 1)
    try:
        for number in numbers:
            if number == fail_at:
                raise RuntimeError(f"row {number} cannot be made")
            yield number, number * number
    finally:
        logger.info("squares closed")


async def ticks(rows: int, seconds: float) -> AsyncIterator[dict[str, object]]:
    """An asynchronous generator; its rows are dicts, and each leaves as soon as it is there."""
    try:
        for number in range(1, rows + 1):
            yield {"number": number, "at": datetime.now(UTC)}
            await asyncio.sleep(seconds)
    finally:
        logger.info("ticks closed")


@app.get("/squares.{suffix}")
async def read_squares(
    request: Request, suffix: str, rows: int | None = None, fail_at: int | None = None
) -> Response:
    make = partial(squares, rows, fail_at)
    return streams.threaded(request, "squares", suffix, ("number", "square"), make)


@app.get("/ticks.{suffix}")
async def read_ticks(
    request: Request, suffix: str, rows: int = 10, seconds: float = 1.0
) -> Response:
    make = partial(ticks, rows, seconds)
    return streams.asynchronous(request, "ticks", suffix, ("number", "at"), make)


if __name__ == "__main__":
    timeouts = with_timeouts(
        header_timeout=limits.header_timeout, stall_timeout=limits.stall_timeout
    )
    uvicorn.run(app, http=timeouts)
