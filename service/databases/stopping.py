"""Calls of a driver that end their statement in the database when they are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from service.errors import TailraceError

SETTLE_TIMEOUT = 1.0  # seconds
STOP_INTERVAL = 0.1  # seconds

Result = TypeVar("Result")


class Stoppable(Protocol):
    async def stop(self) -> None: ...
    def abort(self) -> None: ...


async def stoppable(running: Stoppable, call: Awaitable[Result]) -> Result:
    """The result of ``call``; cancelled, the database is told before the driver is given up.

    Drivers that run in threads go on with a cancelled call, and others drop the connection
    while the server goes on.
    """
    calling = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        if not calling.done():
            await _stopped(running, calling)
        raise


async def _stopped(running: Stoppable, calling: asyncio.Future[Any]) -> None:
    try:
        async with asyncio.timeout(SETTLE_TIMEOUT):
            # Once is not enough: a call that waits for its thread has no statement yet.
            while not calling.done():
                await running.stop()
                await asyncio.wait({calling}, timeout=STOP_INTERVAL)
    except (TimeoutError, TailraceError):
        running.abort()
    if calling.done() and not calling.cancelled():
        calling.exception()  # nobody else will ask for it
