"""Iterators that block, or never wait: they are in nobody's way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import Busy
from service.slots import Slots
from tests.iterators import (
    CLOSE,
    PROMPTLY,
    Numbers,
    exporting,
    lane_of,
    rest,
)
from tests.waiting import eventually


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
