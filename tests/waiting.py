"""Wait for a condition with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

PAUSE = 0.02  # seconds between two looks


def wait_until(predicate: Callable[[], object], *, within: float, what: str) -> None:
    """Return once ``predicate()`` is true; AssertionError naming ``what`` after ``within`` s."""
    deadline = time.monotonic() + within
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(PAUSE)


async def eventually(
    predicate: Callable[[], Awaitable[object]], *, within: float, what: str
) -> None:
    """The same for ``await predicate()``; a predicate that hangs fails, too."""
    try:
        async with asyncio.timeout(within):
            while not await predicate():  # noqa: ASYNC110 - what is waited for is elsewhere
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        raise AssertionError(f"not within {within} s: {what}") from None
