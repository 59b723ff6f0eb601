"""One open connection to a database, for tests without an event loop: fast looks, and a gate."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from tests.postgres import libpq_url

GATE = 4711  # the advisory lock at which gated queries wait
EXPORTING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'tailrace export' AND state <> 'idle'
      AND datname = current_database()
"""


class Session:
    """Every call is one round trip, so that short deadlines can be looked at closely."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(libpq_url(url)))

    def execute(self, sql: str) -> None:
        self._runner.run(self._connection.execute(sql))

    def value(self, sql: str, *arguments: object) -> object:
        """The first column of the first row."""
        return self._runner.run(self._connection.fetchval(sql, *arguments))

    def exporting(self) -> int:
        """How many backends of this database run an export now."""
        count = self.value(EXPORTING)
        assert isinstance(count, int)
        return count

    def close_gate(self) -> None:
        """From now on the queries of ``gated`` wait at their gate."""
        self.execute(f"SELECT pg_advisory_lock({GATE})")

    def open_gate(self) -> None:
        self.execute("SELECT pg_advisory_unlock_all()")

    def end(self) -> None:
        with contextlib.suppress(OSError):  # where the server has gone before
            self._runner.run(self._connection.close())
        self._runner.close()


@contextmanager
def session(url: str) -> Iterator[Session]:
    opened = Session(url)
    try:
        yield opened
    finally:
        opened.end()


def gated(before: int, after: int) -> str:
    """SQL: ``before`` rows of about a kilobyte, the gate, and ``after`` more rows."""
    wait = f"pg_advisory_xact_lock_shared({GATE})::text"
    return f"""
        select i as id,
               case when i = {before + 1} then {wait} else '' end || repeat(md5(i::text), 30) as word
        from (select generate_series(1, {before + after}) as i) s
    """
