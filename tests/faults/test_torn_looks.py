"""Events that are written in the middle of a look at the tables, and readers who come just then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from service.jobs.hub import Happening, Hub
from service.jobs.model import Record
from tests.exporting import ignored
from tests.job_desk import Desk, desk


class Reader:
    """What it was told, in order."""

    events = True

    def __init__(self) -> None:
        self.seen: list[int] = []

    def told(self, record: Record | None, happened: Sequence[Happening]) -> None:
        del record
        self.seen += [event.seq for event in happened]

    def deleted(self) -> None:
        raise AssertionError("nobody deletes it")


class Torn:
    """A connection on which something happens behind its ``number``-th statement.

    A stand-in, since the moment between two statements of a look is too short to be met.
    """

    def __init__(
        self, connection: AsyncConnection, number: int, then: Callable[[], Awaitable[object]]
    ) -> None:
        self._connection = connection
        self._left = number
        self._then = then

    async def execute(self, *arguments: Any) -> Any:
        result = await self._connection.execute(*arguments)
        self._left -= 1
        if self._left == 0:
            await self._then()
        return result


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Desk]:
    async with desk(database_url) as opened:
        yield opened


async def torn_look(
    hub: Hub, here: Desk, number: int, then: Callable[[], Awaitable[object]]
) -> None:
    connection: Any
    async with here.engine.connect() as whole:
        connection = Torn(whole, number, then)
        await hub._look_at_topics(connection, dict(hub._topics))


async def test_who_comes_behind_a_torn_look_is_told_of_the_rest(here: Desk) -> None:
    """The look knew the row as it was before the event, and the log as it was behind it."""
    hub = Hub(here.engine, ignored, lambda *_: b"")
    record = await here.waiting()
    first, newcomer = Reader(), Reader()
    with hub.watch(record, first):
        await torn_look(hub, here, 1, lambda: here.claimed(record))
        assert first.seen == [2]
        known = hub.known(record.id)
        assert known is not None
        with hub.watch(known, newcomer):
            await hub._look(None)
            assert newcomer.seen == list(range((known.event_seq or 0) + 1, 3))
    assert sorted(set(first.seen)) == [2]


@pytest.mark.parametrize("number", [1, 2])
async def test_who_comes_during_a_look_is_told_of_the_rest(here: Desk, number: int) -> None:
    """It knows less than those for whom the look was taken."""
    hub = Hub(here.engine, ignored, lambda *_: b"")
    record = await here.waiting()
    claimed = await here.claimed(record)
    first, newcomer = Reader(), Reader()
    with ExitStack() as stack:
        stack.enter_context(hub.watch(claimed, first))
        await here.beat(claimed)

        async def come() -> None:
            stack.enter_context(hub.watch(record, newcomer))

        await torn_look(hub, here, number, come)
        await hub._look(None)
    assert newcomer.seen == [2, 3]
    assert sorted(set(first.seen) - {2}) == [3]
