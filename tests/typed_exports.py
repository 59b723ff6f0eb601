"""A database with its source, kept open for many exports on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg

from service.databases.postgresql.source import PostgresSource
from service.export.encode import Rows
from tests.exporting import carried, catalog_of, open_source
from tests.postgres import libpq_url

Result = TypeVar("Result")
LANES = ("copy",)
# What an export pins, so that whoever reads sees the same texts.
SESSION = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
}


@dataclass(frozen=True, slots=True)
class Workshop:
    """``connection`` makes tables and looks at them; ``source`` is what exports read."""

    runner: asyncio.Runner
    connection: asyncpg.Connection
    source: PostgresSource

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    async def exported(
        self, name: str, rows: Rows, *parameters: tuple[str, str], order: str = "id"
    ) -> bytes:
        """The file of a table, ordered by its key; every lane gives the same."""
        dataset = await catalog_of(self.source).dataset(name)
        asked = (("order", order), *parameters)
        return await carried(self.source, dataset, *asked, rows=rows)


@contextmanager
def workshop(url: str) -> Iterator[Workshop]:
    """A workshop in the database ``url``; ``SESSION`` is what its connection has set."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> Workshop:
            connection = await asyncpg.connect(libpq_url(url), server_settings=SESSION)
            stack.push_async_callback(connection.close)
            source = await stack.enter_async_context(open_source(url))
            return Workshop(runner, connection, source)

        try:
            yield runner.run(opened())
        finally:
            runner.run(stack.aclose())
