"""Iterators as a source of rows: bounded ahead, closed at once, and never in anybody's way."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from service.database import utcnow
from service.errors import Busy, DeadlineExceeded, TailraceError
from service.export.encode import FORMATS, FrameOptions, Rows
from service.export.held import HELD_BYTES
from service.export.items import values, whole_lines
from service.export.iterate import AsyncRows, IteratorLane, ThreadRows
from service.export.pipeline import BLOCK, Description, Export, Patience, Stages
from service.export.receipt import Outcome
from service.slots import Slots
from tests.waiting import eventually

LABELS = ("n", "text")
Made = Callable[[], Iterator[Any]]
KINDS = ("async", "thread")
CLOSE = 0.3  # seconds
PROMPTLY = 5.0  # seconds, far below what the iterators would last
each_kind = pytest.mark.parametrize("kind", KINDS)


def lane_of(kind: str, make: Made, slots: Slots | None = None) -> IteratorLane:
    """The same rows, stepped in a task or in a thread."""
    text, free = values(Rows.NDJSON, LABELS), slots or Slots("tests", 1, 0.1)
    if kind == "thread":
        return ThreadRows("thread", make, text, free)

    async def asynchronous() -> AsyncIterator[Any]:
        iterator = make()
        try:
            for row in iterator:
                yield row
        finally:
            iterator.close()  # type: ignore[attr-defined]  # they are generators

    return AsyncRows("async", asynchronous, text, free)


@asynccontextmanager
async def exporting(lane: IteratorLane, max_duration: float = 60.0) -> AsyncIterator[Export]:
    export = Export(
        Description("an export", "ndjson", "none", utcnow()),
        lane,
        Stages(FORMATS["ndjson"].frame(FrameOptions(LABELS)), trailer=True),
        4096,
        Patience(prime=0.1, max_duration=max_duration, flush=0.05, close=CLOSE),
    )
    try:
        await export.open()
        yield export
    finally:
        await export.close()


async def rest(export: Export, read: bytearray | None = None) -> bytes:
    """Everything to the end; ``read`` has what came if that raises."""
    taken = bytearray() if read is None else read
    while (chunk := await export.read()) is not None:
        taken += chunk
    return bytes(taken)


class Numbers:
    """Rows that count how many were made; ``closed`` is set by the generator's own finally."""

    def __init__(self, rows: int | None = None, width: int = 10) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.thread: threading.Thread | None = None
        self._rows, self._text = rows, "x" * width

    def __call__(self) -> Iterator[tuple[int, str]]:
        self.thread = threading.current_thread()
        numbers = itertools.count() if self._rows is None else range(self._rows)
        try:
            for number in numbers:
                self.made += 1
                yield number, self._text
        finally:
            self.closed.set()


async def no_thread(made: Numbers) -> None:
    async def ended() -> bool:
        return made.thread is threading.main_thread() or not (
            made.thread and made.thread.is_alive()
        )

    await eventually(ended, within=PROMPTLY, what="the thread has ended")


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
        # The pipe, what is being put into it, what is held, and what is stepped into.
        assert ahead <= 2 * BLOCK + 3 * HELD_BYTES + 6 * row
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
@pytest.mark.parametrize("row", [(1,), (1, 2, 3), "ab", (1, object()), (1, "\ud800")], ids=repr)
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


async def test_an_iterator_that_never_waits_lets_others_run() -> None:
    """Nobody takes its rows for granted: another task runs all the time while they are made."""
    made = Numbers(200_000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def drops(_: bytes) -> None:
        """A sink that never waits either."""

    beside = asyncio.create_task(other())
    async with lane_of("async", made).reading(max_seconds=60, lock_seconds=60) as reading:
        assert await reading.carry(drops) == 200_000
    beside.cancel()
    assert turns > 10


async def test_an_empty_step_that_takes_long_is_let_others_run_too() -> None:
    """Rows are rare here, so that nothing is ever full."""
    longest = 0.0

    async def other() -> None:
        nonlocal longest
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - begun)

    def busy() -> Iterator[Any]:
        for number in range(100):
            until = time.monotonic() + 0.01
            while time.monotonic() < until:
                pass
            yield number, ""

    async def drops(_: bytes) -> None:
        pass

    beside = asyncio.create_task(other())
    async with lane_of("async", busy).reading(max_seconds=60, lock_seconds=60) as reading:
        assert await reading.carry(drops) == 100
    beside.cancel()
    assert 0 < longest < 0.5  # the whole lasts a second


async def test_a_thread_that_blocks_is_let_go_and_keeps_its_slot() -> None:
    blocking, entered = threading.Event(), threading.Event()
    slots = Slots("tests", 1, 0.05)
    closed = threading.Event()

    def stuck() -> Iterator[Any]:
        try:
            yield 1, "x"
            entered.set()
            blocking.wait(60)
            yield 2, "y"
        finally:
            closed.set()

    lane = lane_of("thread", stuck, slots)
    async with exporting(lane) as export:
        await export.read()
        assert entered.wait(PROMPTLY)
        left = time.monotonic()
    assert CLOSE <= time.monotonic() - left < CLOSE + PROMPTLY
    assert not closed.is_set()
    with pytest.raises(Busy):
        await slots.acquire()
    blocking.set()

    async def free() -> bool:
        return slots.taken == 0

    await eventually(free, within=PROMPTLY, what="the slot is free")
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "rows of thread"]


def test_a_thread_that_never_ends_does_not_keep_the_loop() -> None:
    """As when a process stops."""
    blocking = threading.Event()

    def stuck() -> Iterator[Any]:
        yield 1, "x"
        blocking.wait(60)

    async def main() -> None:
        async with exporting(lane_of("thread", stuck)) as export:
            await export.read()

    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < PROMPTLY
    blocking.set()


async def test_a_deadline_does_not_wait_for_a_thread_that_blocks() -> None:
    blocking = threading.Event()
    slots = Slots("tests", 1, 0.05)

    def stuck() -> Iterator[Any]:
        yield 1, "x"
        blocking.wait(60)

    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), exporting(lane_of("thread", stuck, slots), 0.2) as export:
            await rest(export)
    assert time.monotonic() - begun < PROMPTLY
    assert slots.taken == 1
    blocking.set()


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
