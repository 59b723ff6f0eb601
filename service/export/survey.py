"""What is asked of an export's snapshot beside its rows: totals before, the place to go on after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from service.cursor import Cursor, Cursors
from service.databases.source import Snapshot
from service.dataset import Dataset
from service.preferences import Count, Total
from service.query import RowsQuery, build_last, build_select
from service.scanner import mistake
from service.texts import text_values


class Survey:
    """``count`` is what the caller asked for, ``most`` the rows that the profile can hold.

    ``total`` is known after ``before``; ``next_cursor`` after ``after``: the place behind the
    last row, read by a query of its own.
    """

    def __init__(
        self,
        dataset: Dataset,
        query: RowsQuery,
        *,
        count: Count | None = None,
        most: int | None = None,
        cursors: Cursors | None = None,
    ) -> None:
        self.total: Total | None = None
        self.next_cursor: str | None = None
        self._count = count
        self._most = most
        self._dataset = dataset
        self._query = query
        self._cursors = cursors if query.continuable else None
        one = replace(query, select=query.select[:1])
        whole = replace(one, limit=None, offset=None, after=None)
        self._filtered = build_select(dataset, whole).order_by(None)
        self._sent = build_select(dataset, one).order_by(None)

    @property
    def texts(self) -> tuple[str, ...]:
        """The values of every statement that may be asked."""
        statements = [self._filtered, self._sent]
        if self._cursors is not None:
            statements.append(build_last(self._dataset, self._query, 1))
        return tuple(text for statement in statements for text in text_values(statement))

    async def before(self, snapshot: Snapshot) -> None:
        """Count what has to be counted. Raises InvalidParameter when there are too many rows."""
        if self._most is not None:
            rows = await _counted(snapshot, self._sent.limit(self._most + 1))
            if rows > self._most:
                message = f"excel holds {self._most} rows and there are more; set limit;"
                raise mistake("profile", message, 1)
        if self._count is not None:
            self.total = await self._totalled(snapshot, self._count)

    async def after(self, snapshot: Snapshot, rows: int) -> None:
        """Find the last of the ``rows`` that were sent."""
        if self._cursors is None:
            return
        values = self._query.after.values if self._query.after else None
        if rows:
            last = build_last(self._dataset, self._query, rows)
            values = tuple((await snapshot.fetch(last))[0])
        if values is not None:
            cursor = Cursor(self._dataset.name, self._query.digest, values)
            self.next_cursor = self._cursors.sign(cursor)

    async def _totalled(self, snapshot: Snapshot, count: Count) -> Total:
        if count is Count.ESTIMATE:
            estimated = await snapshot.estimate(self._filtered)
            if estimated is not None:
                return Total(estimated, Count.ESTIMATE)
        return Total(await _counted(snapshot, self._filtered), Count.EXACT)


async def _counted(snapshot: Snapshot, statement: sa.Select[Any]) -> int:
    counting = sa.select(sa.func.count()).select_from(statement.subquery("counted"))
    return int((await snapshot.fetch(counting))[0][0])
