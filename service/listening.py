"""One connection of its own that listens to PostgreSQL's notifications.

A notification is a hint to look into a table, and nothing more: it is lost while the connection
is, so whoever listens also looks by itself now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from service.database import AWAY, connect_args

CHECK_SECONDS = 5.0  # between looks whether the connection lives
ANSWER_SECONDS = 5.0
LONGEST_PAUSE = 5.0  # seconds between two tries to connect

Heard = Callable[[str | None], None]


class Listener:
    """``heard`` maps channels to what is called with each payload.

    With None it is called after every connect: anything may have happened before. The callbacks
    return at once.
    """

    def __init__(self, url: str, heard: Mapping[str, Heard]) -> None:
        self._engine = create_async_engine(
            url, poolclass=NullPool, connect_args=connect_args("tailrace listener")
        )
        self._heard = dict(heard)
        self._stopping = False
        self._over = asyncio.Event()  # the connection is lost, or no longer wanted
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="listener")

    async def stop(self) -> None:
        """Returns once its connection is closed, which a cancelled task would leave to chance."""
        self._stopping = True
        self._over.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=ANSWER_SECONDS)
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._engine.dispose()

    async def _run(self) -> None:
        pause = 0.1
        while not self._stopping:
            with contextlib.suppress(*AWAY):
                async with self._engine.connect() as connection:
                    await self._listen(connection)
                    pause = 0.1
                    await self._until_over(connection)
            if not self._stopping:
                self._over.clear()
                await self._over_within(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _listen(self, connection: AsyncConnection) -> None:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        for channel, heard in self._heard.items():
            await driver.add_listener(channel, _passing_on(heard))
        for heard in self._heard.values():
            heard(None)

    async def _until_over(self, connection: AsyncConnection) -> None:
        """Returns or raises when the connection is gone, also where only a question shows it."""
        driver: Any = (await connection.get_raw_connection()).driver_connection
        driver.add_termination_listener(lambda _: self._over.set())
        while not await self._over_within(CHECK_SECONDS):
            await driver.execute("SELECT 1", timeout=ANSWER_SECONDS)

    async def _over_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._over.wait()
        except TimeoutError:
            return False


def _passing_on(heard: Heard) -> Callable[[Any, int, str, str], None]:
    return lambda _connection, _pid, _channel, payload: heard(payload)
