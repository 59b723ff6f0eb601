"""Those who oversee every export of an owner are told of each change once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from service.jobs import hub as module
from service.jobs.transitions import cancelled
from tests.hubs import WITHIN, Oversight, hub_at, listening
from tests.job_desk import Desk, desk
from tests.waiting import eventually


@pytest.fixture
async def here(module_database_url: str) -> AsyncIterator[Desk]:
    async with desk(module_database_url) as opened:
        await opened.empty()
        yield opened


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a notification makes it look."""
    monkeypatch.setattr(module, "POLL_SECONDS", 3_600.0)


@pytest.fixture
def fast_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)


async def test_all_of_an_owner_are_overseen(
    here: Desk, module_database_url: str, no_poll: None
) -> None:
    mine, others = Oversight(), Oversight(owner="bert")
    async with hub_at(module_database_url) as hub, listening(module_database_url, hub):
        with hub.oversee(mine), hub.oversee(others):
            waiting = await here.waiting()
            await mine.reach((waiting.id, "queued"))
            theirs = await here.waiting(owner="bert")
            await others.reach((theirs.id, "queued"))
            running = await here.claimed(waiting)
            await mine.reach((waiting.id, "queued"), (waiting.id, "running"))
            done = await here.ended(running)
            states = [(waiting.id, state) for state in ("queued", "running", "succeeded")]
            await mine.reach(*states)
            assert not await here.ledger.delete(theirs)
            assert await here.ledger.delete(done)
            await eventually(
                lambda: asyncio.sleep(0, mine.deleted), within=WITHIN, what="the deletion is told"
            )
    assert mine.deleted == [waiting.id]
    assert others.deleted == []
    assert others.seen == [(theirs.id, "queued")]


async def test_all_are_overseen_without_notifications(
    here: Desk, module_database_url: str, fast_poll: None
) -> None:
    mine = Oversight()
    async with hub_at(module_database_url) as hub:
        with hub.oversee(mine):
            waiting = await here.waiting()
            await mine.reach((waiting.id, "queued"))
            await here.ledger.apply(waiting, cancelled(None, None, datetime.now(UTC)))
            await mine.reach((waiting.id, "queued"), (waiting.id, "cancelled"))
