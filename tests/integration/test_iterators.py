"""Iterators as a source of rows: bounded ahead, closed at once, and never in anybody's way."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog

from service.database import utcnow
from service.errors import DeadlineExceeded, TailraceError
from service.export.encode import Rows
from service.export.held import HELD_BYTES, Held
from service.export.items import values, whole_lines
from service.export.iterate import AsyncRows, IteratorLane, ThreadRows
from service.export.pipeline import BLOCK
from service.export.receipt import Outcome
from service.slots import Slots
from tests.iterators import (
    LABELS,
    PROMPTLY,
    Numbers,
    each_kind,
    exporting,
    lane_of,
    no_thread,
    rest,
)
from tests.waiting import eventually


@each_kind
@pytest.mark.parametrize("rows", [0, 1, 3, 50_000])
async def test_every_row_leaves_with_its_proof(kind: str, rows: int) -> None:
    made = Numbers(rows)
    async with exporting(lane_of(kind, made)) as export:
        data = await rest(export)
    *lines, end = data.splitlines()
    assert lines == [b'{"n":%d,"text":"xxxxxxxxxx"}' % n for n in range(rows)]
    assert b'"status":"complete","rows":%d,' % rows in end
    assert export.receipt(Outcome.COMPLETE, utcnow()).snapshot is None
    assert made.closed.is_set()
    await no_thread(made)


@each_kind
async def test_a_row_leaves_when_it_is_there(kind: str) -> None:
    """And does not wait until there are more."""
    go_on = threading.Event()

    def two() -> Iterator[Any]:
        yield 1, "first"
        go_on.wait(30)
        yield 2, "second"

    async def two_later() -> AsyncIterator[Any]:
        yield 1, "first"
        await asyncio.to_thread(go_on.wait, 30)
        yield 2, "second"

    text, slots = values(Rows.NDJSON, LABELS), Slots("tests", 1, 0.1)
    lane: IteratorLane = ThreadRows("thread", two, text, slots)
    if kind == "async":
        lane = AsyncRows("async", two_later, text, slots)
    async with exporting(lane) as export:
        async with asyncio.timeout(PROMPTLY):
            assert await export.read() == b'{"n":1,"text":"first"}\n'
        go_on.set()
        assert (await rest(export)).startswith(b'{"n":2,"text":"second"}\n')


@each_kind
@pytest.mark.parametrize("width", [0, 10, 1_000_000])
async def test_a_reader_that_waits_makes_the_iterator_wait(kind: str, width: int) -> None:
    made = Numbers(width=width)
    async with exporting(lane_of(kind, made)) as export:
        await export.read()
        seen = -1

        async def still() -> bool:
            nonlocal seen
            before, seen = seen, made.made
            await asyncio.sleep(0.1)
            return before == made.made

        await eventually(still, within=30, what="nothing more is made")
        ahead = made.made * (width + 15)
        row = width + 100
        # What was read, the pipe, what is being put into it, what is held and being made.
        assert ahead <= 4 * BLOCK + 4 * HELD_BYTES + 8 * row
    assert made.closed.is_set()
    await no_thread(made)


@each_kind
@pytest.mark.parametrize("reads", [0, 1, 500])
async def test_leaving_closes_it_at_once(kind: str, reads: int) -> None:
    made = Numbers()
    slots = Slots("tests", 1, 0.1)
    async with exporting(lane_of(kind, made, slots)) as export:
        for _ in range(reads):
            await export.read()
        assert slots.taken == 1
        left = time.monotonic()
    assert made.closed.is_set()
    assert slots.taken == 0
    assert time.monotonic() - left < PROMPTLY
    await no_thread(made)


@each_kind
async def test_a_deadline_closes_it(kind: str) -> None:
    made = Numbers()
    with pytest.raises(DeadlineExceeded):
        async with exporting(lane_of(kind, made), max_duration=0.3) as export:
            await rest(export)
    assert made.closed.is_set()
    await no_thread(made)


class Unlucky(Exception):
    pass


@pytest.mark.parametrize(
    ("kind", "error"),
    [("async", Unlucky("13")), ("thread", Unlucky("13")), ("thread", SystemExit(1))],
    ids=["async", "thread", "exit"],  # asyncio itself ends its loop at a SystemExit
)
async def test_an_error_in_the_middle_is_the_reader_s(kind: str, error: BaseException) -> None:
    closed = threading.Event()

    def failing() -> Iterator[Any]:
        try:
            yield from ((n, "x" * 100) for n in range(20_000))
            raise error
        finally:
            closed.set()

    read = bytearray()
    async with exporting(lane_of(kind, failing)) as export:
        with pytest.raises((Unlucky, TailraceError)):
            await rest(export, read)
    assert closed.is_set()
    assert read
    assert b"_end" not in read


@each_kind
async def test_an_error_before_the_first_row_is_raised_by_open(kind: str) -> None:
    def failing() -> Iterator[Any]:
        yield from (1 / 0 for _ in range(1))

    with pytest.raises(ZeroDivisionError):
        async with exporting(lane_of(kind, failing)):
            pass


@each_kind
@pytest.mark.parametrize(
    "row",
    [(1,), (1, 2, 3), "ab", (1, object()), (1, "\ud800")],
    ids=["short", "long", "text", "no cell", "no character"],
)
async def test_a_row_that_is_none_ends_it(kind: str, row: Any) -> None:
    closed = threading.Event()

    def wrong() -> Iterator[Any]:
        try:
            yield row
            yield from Numbers()()
        finally:
            closed.set()

    with pytest.raises((TypeError, ValueError)):
        async with exporting(lane_of(kind, wrong)) as export:
            await rest(export)
    assert closed.is_set()


async def test_a_cancellation_from_within_is_no_end() -> None:
    async def cancelled() -> AsyncIterator[Any]:
        yield 1, "x"
        raise asyncio.CancelledError

    lane = AsyncRows("async", cancelled, values(Rows.NDJSON, LABELS), Slots("tests", 1, 1))
    with pytest.raises(TailraceError, match="cancelled"):
        async with exporting(lane) as export:
            await rest(export)


async def test_an_asynchronous_cleanup_is_waited_for() -> None:
    closed = False

    async def slow() -> AsyncIterator[Any]:
        nonlocal closed
        try:
            for number in itertools.count():
                yield number, "x"
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0.05)
            closed = True

    lane = AsyncRows("async", slow, values(Rows.NDJSON, LABELS), Slots("tests", 1, 1))
    async with exporting(lane) as export:
        await export.read()
    assert closed


async def test_iterators_that_are_no_generators() -> None:
    class Three:
        def __init__(self) -> None:
            self._rows = iter([(1, "a"), (2, "b"), (3, "c")])

        def __aiter__(self) -> AsyncIterator[Any]:
            return self

        async def __anext__(self) -> Any:
            for row in self._rows:
                return row
            raise StopAsyncIteration

    text, slots = values(Rows.NDJSON, LABELS), Slots("tests", 2, 1)
    for lane in (
        AsyncRows("async", Three, text, slots),
        ThreadRows("thread", lambda: [(1, "a"), (2, "b"), (3, "c")], text, slots),
    ):
        async with exporting(lane) as export:
            assert (await rest(export)).count(b"\n") == 4


async def test_whole_lines_are_counted_and_a_torn_one_breaks_the_stream() -> None:
    slots = Slots("tests", 2, 1)
    whole = ThreadRows("thread", lambda: [b'{"n":1}', b'{"n":2}'], whole_lines(), slots)
    async with exporting(whole) as export:
        assert (await rest(export)).startswith(b'{"n":1}\n{"n":2}\n{"_end"')
    torn = ThreadRows("thread", lambda: [b'{"n":\n1}'], whole_lines(), slots)
    async with exporting(torn) as export:
        with pytest.raises(TailraceError, match="2 rows were sent, the source says 1"):
            await rest(export)


async def test_the_thread_knows_the_request() -> None:
    """What the log binds to a request is bound in its thread as well."""
    found: dict[str, Any] = {}

    def telling() -> Iterator[Any]:
        found.update(structlog.contextvars.get_contextvars())
        yield 1, "x"

    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        async with exporting(lane_of("thread", telling)) as export:
            await rest(export)
    assert found == {"request_id": "r-1"}


async def test_rows_of_nothing_are_bounded_too() -> None:
    held = Held(asyncio.Event())
    assert not all(held.add([None]) for _ in range(HELD_BYTES))
