"""What is asked of an export's snapshot beside its rows: totals before, the place to go on after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from service.databases.source import Snapshot
from service.dataset import Dataset
from service.grammar.cursor import Cursor, Cursors
from service.grammar.query import RowsQuery, build_last, build_select
from service.grammar.scanner import mistake
from service.preferences import Count, Total


class Survey:
    """``count`` is what the caller asked for, ``most`` the rows that the profile can hold.

    ``total`` is known after ``before``; ``next_cursor`` after ``after``: the place behind the
    last row, read by a query of its own. No statement holds other values than that of the rows.
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

    async def before(self, snapshot: Snapshot) -> None:
        """Count what has to be counted. Raises InvalidParameter when there are too many rows."""
        if self._most is not None:
            sent = self._one_column(self._query).limit(self._most + 1)
            rows = await _counted(snapshot, sent)
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
        whole = replace(self._query, limit=None, offset=None, after=None)
        filtered = self._one_column(whole)
        if count is Count.ESTIMATE:
            estimated = await snapshot.estimate(filtered)
            if estimated is not None:
                return Total(estimated, Count.ESTIMATE)
        return Total(await _counted(snapshot, filtered), Count.EXACT)

    def _one_column(self, query: RowsQuery) -> sa.Select[Any]:
        narrow = replace(query, select=query.select[:1])
        return build_select(self._dataset, narrow).order_by(None)


async def _counted(snapshot: Snapshot, statement: sa.Select[Any]) -> int:
    counting = sa.select(sa.func.count()).select_from(statement.subquery("counted"))
    return int((await snapshot.fetch(counting))[0][0])
