"""A database with its source, kept open for many exports on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg

from service.databases.postgresql.source import PostgresSource
from service.export.encode import Rows
from tests.exporting import carried, catalog_of, open_source
from tests.postgres import libpq_url

Result = TypeVar("Result")
LANES = ("auto", "rows")
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
    """``connection`` makes tables and looks at them; each of ``sources`` exports another way."""

    runner: asyncio.Runner
    connection: asyncpg.Connection
    sources: tuple[PostgresSource, ...]

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    async def exported(
        self,
        name: str,
        rows: Rows,
        *parameters: tuple[str, str],
        delimiter: str = ",",
        excel: bool = False,
    ) -> bytes:
        """The file of a table with the key ``id``: byte for byte the same through every lane."""
        files = []
        for source in self.sources:
            dataset = await catalog_of(source).dataset(name)
            asked = (("order", "id"), *parameters)
            files.append(
                await carried(source, dataset, *asked, rows=rows, delimiter=delimiter, excel=excel)
            )
        assert all(file == files[0] for file in files), files
        return files[0]


@contextmanager
def workshop(url: str) -> Iterator[Workshop]:
    """A workshop in the database ``url``; ``SESSION`` is what its connection has set."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> Workshop:
            connection = await asyncpg.connect(libpq_url(url), server_settings=SESSION)
            stack.push_async_callback(connection.close)
            sources = [await stack.enter_async_context(open_source(url, 2, lane)) for lane in LANES]
            return Workshop(runner, connection, tuple(sources))

        try:
            yield runner.run(opened())
        finally:
            runner.run(stack.aclose())
