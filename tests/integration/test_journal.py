"""What generations say, in real tables: batches, outages, several processes, and the lost ones."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import uuid_utils.compat as uuid_utils

from service.chat import following, journal
from service.chat.model import State
from service.chat.provider import Failure, ProviderFailed
from service.errors import RecordsUnavailable
from service.observe import RecordsDropped, RecordsNotWritten
from tests.generations import (
    END,
    FOREVER,
    WITHIN,
    Reader,
    Scripted,
    ended,
    talks,
    words,
)
from tests.journals import Process, away_meanwhile, process
from tests.postgres import Databases, run_sql
from tests.waiting import eventually

ODD = 'Grüße, 世界! 👩‍👩‍👧 a\u2028b\r\n\t\\ "\x7f\x01\ufffe $1 :a %s {}'
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens for notifications here."""
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.05)


@pytest.fixture
def database_url(module_database_url: str) -> str:
    """The database of this module, in which no generation is left."""
    run_sql(module_database_url, "TRUNCATE tailrace.generations CASCADE")
    return module_database_url


@pytest.fixture
async def one(database_url: str) -> AsyncIterator[Process]:
    async with process(database_url) as made:
        yield made


@pytest.fixture
async def another(database_url: str) -> AsyncIterator[Process]:
    async with process(database_url) as made:
        yield made


async def test_a_token_costs_no_transaction(one: Process) -> None:
    live, reader = one.begin(Scripted([[*words("a ") * 1_000, END]]))
    await one.written(live)
    assert one.commits < 100
    assert await one.events(live) == reader.seen
    assert len(reader.seen) == 1_000 + 100 + 3
    assert not one.told


async def test_what_is_written_is_what_was_told(one: Process) -> None:
    live, reader = one.begin(talks(50, *words(ODD, "", " "), END))
    stored = await one.written(live)
    assert await one.events(live) == reader.seen
    assert stored == live.transcript.generation
    assert stored.text == "a" * 50 + ODD + " "
    first, *_, last = await one.batches(live)
    assert (first[0], last[1]) == (1, len(reader.seen))
    assert one.journal.live(live.id) is None


async def test_while_it_runs_everybody_has_the_text_so_far(one: Process, another: Process) -> None:
    live, _ = one.begin(Scripted([[*words("ab", "c"), FOREVER]]))
    stored = await one.written(live, 3)
    assert (stored.text, stored.tokens, stored.chars, stored.state) == (
        "abc",
        2,
        3,
        State.RUNNING,
    )
    assert stored == await another.journal.get(live.id) == live.transcript.generation
    assert one.journal.running() == [live]
    assert another.journal.running() == []


async def test_its_own_process_knows_it_before_it_is_written(one: Process) -> None:
    one.store.dead = True
    live, _ = one.begin(Scripted([[*words("ab"), END]]))
    await ended(live)
    assert await one.journal.get(live.id) == live.transcript.generation
    assert [await one.journal.has(live.transcript.generation, seq) for seq in range(-1, 6)] == [
        False,
        *[True] * 5,
        False,
    ]
    one.store.dead = False


async def test_large_texts_are_kept_whole(one: Process) -> None:
    pieces = words(*(letter * 300_000 for letter in "abc世😀\0"))
    live, reader = one.begin(Scripted([[*pieces, END]]))
    stored = await one.written(live)
    assert stored.text == "".join(piece.text for piece in pieces).replace("\0", "\ufffd")
    assert await one.events(live) == reader.seen


@pytest.mark.parametrize("odd", ["a\0b", "\0", "\ud800", "a\udfff"])
async def test_what_postgresql_cannot_hold_is_replaced(one: Process, odd: str) -> None:
    failed = ProviderFailed(Failure.UNKNOWN, f"It says: {odd}", retry=False)
    live, reader = one.begin(Scripted([[*words(odd), failed]]))
    stored = await one.written(live)
    kept = "".join("\ufffd" if mark in "\0\ud800\udfff" else mark for mark in odd)
    assert stored.text == reader.text == kept
    assert stored.error == reader.error
    assert stored.error is not None
    assert stored.error["message"] == f"It says: {kept}"
    assert await one.events(live) == reader.seen


async def test_one_that_the_database_never_takes_holds_up_no_others(one: Process) -> None:
    one.store.dead = True
    bad, _ = one.begin(Scripted([[*words("a"), END]]), model="a\0b")
    good, reader = one.begin(Scripted([[*words("a"), END]]))
    await ended(bad)
    await ended(good)
    one.store.dead = False
    await one.written(good)
    assert await one.events(good) == reader.seen
    assert await one.store.get(bad.id) is None
    assert RecordsDropped(1) in one.told
    assert one.journal.live(bad.id) is None


async def test_an_outage_loses_nothing_and_repeats_nothing(
    databases: Databases, database_url: str, one: Process
) -> None:
    before, first = one.begin(talks(10_000))
    await one.written(before, 5)
    async with away_meanwhile(databases, database_url):
        during, second = one.begin(talks(20, END))
        await ended(during)
        seen = len(first.seen)
        await first.reach(seen + 20)
        with pytest.raises(RecordsUnavailable):
            await one.journal.get(str(uuid4()))

        async def noticed() -> bool:
            return RecordsNotWritten in one.kinds()

        await eventually(noticed, within=WITHIN, what="it is told")
    before.cancel()
    for live, reader in ((before, first), (during, second)):
        stored = await one.written(live)
        assert stored == live.transcript.generation
        assert await one.events(live) == reader.seen
    assert RecordsDropped not in one.kinds()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_commit_that_was_not_answered_is_not_told_twice(
    one: Process, another: Process, times: int
) -> None:
    follower = Reader()
    one.store.unanswered = times
    live, reader = one.begin(talks(40, END))
    with another.tails.follow(live.id, follower):
        stored = await one.written(live)
        await follower.reach(len(reader.seen))
    assert stored == live.transcript.generation
    assert await one.events(live) == follower.seen == reader.seen
    assert await one.store.behind(live.id, 7) == reader.seen[7:]
    assert RecordsNotWritten in one.kinds()


async def test_an_end_whose_commit_was_not_answered_is_one_end(one: Process) -> None:
    live, reader = one.begin(Scripted([[*words("a"), END]]))
    await ended(live)
    one.store.unanswered = 1
    await one.written(live)

    async def believed() -> bool:
        return one.journal.live(live.id) is None

    await eventually(believed, within=WITHIN, what="it is written again")
    assert await one.events(live) == reader.seen
    assert one.store.unanswered == 0


async def test_another_process_waits_for_what_is_about_to_be_written(
    one: Process, another: Process
) -> None:
    live, _ = one.begin(talks(10_000))
    found = await another.journal.get(live.id)
    assert found is not None
    seq = live.transcript.seq
    found = await another.journal.get(live.id, seq)
    assert found is not None
    assert found.seq >= seq
    assert await another.journal.has(found, seq)


async def test_what_nobody_has_ever_told_is_not_waited_for(one: Process) -> None:
    old = str(uuid_utils.uuid7(nanoseconds=time.time_ns() - 60 * 10**9))
    began = time.monotonic()
    assert await one.journal.get(old) is None
    assert await one.journal.get(str(uuid4())) is None
    assert time.monotonic() - began < journal.WRITTEN_SECONDS
    assert await one.journal.get(str(uuid_utils.uuid7())) is None
    assert time.monotonic() - began >= journal.WRITTEN_SECONDS


async def test_what_has_ended_is_not_waited_for(one: Process) -> None:
    live, reader = one.begin(Scripted([[*words("a"), END]]))
    await one.written(live)
    began = time.monotonic()
    found = await one.journal.get(live.id, 1_000)
    assert time.monotonic() - began < journal.WRITTEN_SECONDS
    assert found is not None
    assert [await one.journal.has(found, seq) for seq in (-1, 0, 1, 4, 5)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert len(reader.seen) == 4


async def test_followers_elsewhere_are_told_all_of_it(one: Process, another: Process) -> None:
    live, reader = one.begin(talks(60, END))
    early, late = Reader(), Reader(seq=5)
    with another.tails.follow(live.id, early):
        await early.reach(20)
        with another.tails.follow(live.id, late):
            await one.written(live)
            await early.reach(len(reader.seen))
            await late.reach(len(reader.seen) - 5)
    assert early.seen == reader.seen
    assert late.seen == reader.seen[5:]


async def test_followers_wait_through_an_outage(
    databases: Databases, database_url: str, one: Process, another: Process
) -> None:
    live, reader = one.begin(talks(10_000))
    follower = Reader()
    with another.tails.follow(live.id, follower):
        await follower.reach(5)
        async with away_meanwhile(databases, database_url):
            seen = len(reader.seen)
            await reader.reach(seen + 10)
        live.cancel()
        await reader.reach(len(reader.seen))
        await one.written(live)
        await follower.reach(len(reader.seen))
    assert follower.seen == reader.seen
    assert follower.end.name == "cancelled"


async def test_batches_and_heartbeats_do_not_wait_for_each_other(
    database_url: str, another: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "HEARTBEAT_SECONDS", 0.001)
    monkeypatch.setattr(journal, "BATCH_SECONDS", 0.001)
    async with process(database_url) as busy:
        lives = [busy.begin(talks(60, END))[0] for _ in range(60)]
        for live in reversed(lives):
            await busy.written(live)
        assert not busy.told
    assert [row.deadlocks for row in await another.rows(DEADLOCKS)] == [0]
