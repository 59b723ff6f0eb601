"""The COPY lane: PostgreSQL builds the bytes, COPY carries them, Python moves blocks."""

from __future__ import annotations

import hashlib
import re
from contextlib import AbstractAsyncContextManager
from typing import Literal, TypedDict

import asyncpg

from service.databases.postgresql.blame import blaming
from service.databases.postgresql.projection import project
from service.databases.postgresql.source import PostgresSnapshot, PostgresSource
from service.dataset import Dataset
from service.errors import SourceError, TailraceError
from service.export.cells import TextOptions
from service.export.encode import Rows
from service.export.lane import Reading, Sink, reading_from
from service.export.literals import rendering
from service.grammar.query import RowsQuery, build_select
from service.slots import Slots


class CopyOptions(TypedDict, total=False):
    """What COPY is told (PostgreSQL's manual, COPY)."""

    format: Literal["csv"]
    delimiter: str
    quote: str
    null: str


# JSON text escapes every control character, so with these as quote and delimiter COPY's CSV
# writer finds nothing to quote and each line leaves as it was built.
NO_LINE = "\x03"
NDJSON_OPTIONS: CopyOptions = {
    "format": "csv",
    "quote": "\x01",
    "delimiter": "\x02",
    "null": NO_LINE,
}
STATUS = re.compile(r"COPY (\d+)")
COPY_PREFIX = len("COPY (")
SETTLE_TIMEOUT = 1.0  # seconds


class CopyLane:
    """One export through COPY: what to read, and as which text.

    ``texts`` are the values that the opening of the snapshot has to render as literals.
    """

    name = "copy"

    def __init__(
        self, source: PostgresSource, dataset: Dataset, query: RowsQuery, options: TextOptions
    ) -> None:
        self.source = source
        self.query = query
        self._rendering = rendering(project(build_select(dataset, query), query, options))
        self.texts = self._rendering.texts
        self.query_sha256 = ""
        csv_options: CopyOptions = {"format": "csv", "delimiter": options.delimiter}
        self._rows = options.rows
        self._options = csv_options if options.rows is Rows.CSV else NDJSON_OPTIONS

    @property
    def slots(self) -> Slots:
        return self.source.slots

    def reading(
        self, *, max_seconds: float, lock_seconds: float
    ) -> AbstractAsyncContextManager[Reading]:
        return reading_from(
            self.source,
            self.run,
            texts=self.texts,
            query=self.query,
            max_seconds=max_seconds,
            lock_seconds=lock_seconds,
        )

    async def run(self, snapshot: PostgresSnapshot, sink: Sink) -> int:
        """Carry every row into ``sink`` and give their number, as the server counted them.

        Raises SourceError, or InvalidParameter for a value that its column does not take.
        """
        output = sink if self._rows is Rows.CSV else _whole_lines(sink)
        text = self._rendering.filled(snapshot.literals)
        self.query_sha256 = hashlib.sha256(text.encode()).hexdigest()
        try:
            with blaming(self.query, text, snapshot.literals, COPY_PREFIX):
                # No arguments are passed: the driver would place them by a regular expression
                # over the whole text, literals and identifiers included.
                status = await snapshot.driver.copy_from_query(text, output=output, **self._options)
        except TailraceError:
            raise
        except BaseException:
            await _settled(snapshot)
            raise
        counted = STATUS.fullmatch(status)
        if counted is None:
            raise SourceError(f"The database ended the export with {status!r}.")
        return int(counted[1])


async def _settled(snapshot: PostgresSnapshot) -> None:
    """Wait until the driver has the answer to its request to cancel, or give up the connection.

    There is no answer when the whole COPY had arrived before its sink was stopped, and asyncpg
    0.32 would wait for it until the server ends the transaction.
    """
    try:
        await snapshot.driver.execute("SELECT 1", timeout=SETTLE_TIMEOUT)
    except TimeoutError:
        await snapshot.connection.invalidate()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        pass  # the transaction is aborted, as it should be, or the connection lost


def _whole_lines(sink: Sink) -> Sink:
    """``sink`` that is never given the marker of a line that is NULL as a whole.

    A NULL in a column that was NOT NULL when the catalogue was read would make one.
    """
    marker = NO_LINE.encode()

    async def checked_sink(data: bytes) -> None:
        if marker in data:
            raise SourceError("A column that was NOT NULL holds a NULL: the dataset has changed.")
        await sink(data)

    return checked_sink
