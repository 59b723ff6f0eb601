"""The COPY lane: PostgreSQL builds the bytes, COPY carries them, Python moves blocks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal, TypedDict

import asyncpg

from service.database import Snapshot, Source, source_error
from service.dataset import Dataset
from service.errors import InvalidParameter, SourceError, TailraceError
from service.export.encode import Rows
from service.export.literals import checked, render
from service.export.projection import project
from service.query import RowsQuery, build_select
from service.texts import text_values

Sink = Callable[[bytes], Coroutine[Any, Any, None]]


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
# Class 22 is a value that its type does not take; 42883 an operator that the type lacks.
CALLERS_MISTAKES = ("22", "42883", "42725", "42804")
COPY_PREFIX = len("COPY (")
SETTLE_TIMEOUT = 1.0  # seconds


class CopyLane:
    """One export through COPY: what to read, and as which text.

    ``texts`` are the values that the opening of the snapshot has to render as literals.
    """

    name = "copy"

    def __init__(
        self, source: Source, dataset: Dataset, query: RowsQuery, rows: Rows, delimiter: str = ","
    ) -> None:
        self.source = source
        self.query = query
        self._statement = project(build_select(dataset, query), query, rows)
        self.texts = tuple(text_values(self._statement))
        self.query_sha256 = ""
        csv_options: CopyOptions = {"format": "csv", "delimiter": delimiter}
        self._rows = rows
        self._options = csv_options if rows is Rows.CSV else NDJSON_OPTIONS

    async def run(self, snapshot: Snapshot, sink: Sink) -> int:
        """Carry every row into ``sink`` and give their number, as the server counted them.

        Raises SourceError, or InvalidParameter for a value that its column does not take.
        """
        literals = checked(self.texts, snapshot.rendered)
        output = sink if self._rows is Rows.CSV else _whole_lines(sink)
        text = render(self._statement, literals)
        self.query_sha256 = hashlib.sha256(text.encode()).hexdigest()
        try:
            # No arguments are passed: the driver would place them by a regular expression over
            # the whole text, literals and identifiers included.
            status = await snapshot.driver.copy_from_query(text, output=output, **self._options)
        except asyncpg.PostgresError as error:
            raise self._blamed(error, text, literals) from error
        except BaseException:
            await _settled(snapshot)
            raise
        counted = STATUS.fullmatch(status)
        if counted is None:
            raise SourceError(f"The database ended the export with {status!r}.")
        return int(counted[1])

    def _blamed(
        self, error: asyncpg.PostgresError, text: str, literals: Mapping[str, str]
    ) -> TailraceError:
        """The caller's mistake if the error stands at one of the filters, else the source's.

        The server gives a position only for what it meets while it reads the statement: a
        value in the data that cannot be computed has none.
        """
        place = getattr(error, "position", None)
        if place is None or not (error.sqlstate or "").startswith(CALLERS_MISTAKES):
            return source_error(error)
        pointed = text[int(place) - 1 - COPY_PREFIX :]
        for condition in self.query.where:
            for value in condition.operand:
                # At the literal itself, or at the operator in front of it.
                if literals.get(value, "\x00") in pointed[: len(value) + 80]:
                    name = condition.column.name
                    return InvalidParameter(name, f"{name}: {error.args[0]}.", value=value)
        if self.query.order and int(place) - 1 - COPY_PREFIX > text.rfind("ORDER BY"):
            return InvalidParameter("order", f"order: {error.args[0]}.")
        return source_error(error)


async def _settled(snapshot: Snapshot) -> None:
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
