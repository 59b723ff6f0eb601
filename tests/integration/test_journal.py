"""What generations say, in real tables: batches, outages, several processes, and the lost ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
import uuid_utils.compat as uuid_utils

from service.chat import following, journal
from service.chat.model import Event, State
from service.chat.provider import Failure, ProviderFailed
from service.chat.store import LOST, MOST_UNWRITTEN
from service.errors import RecordsUnavailable
from service.observe import RecordsDropped, RecordsNotWritten
from tests.generations import (
    END,
    FOREVER,
    WITHIN,
    Reader,
    Scripted,
    Step,
    ended,
    words,
)
from tests.journals import Process, process
from tests.outage import away
from tests.postgres import Databases, run_sql
from tests.waiting import eventually

NOW = timedelta(0)
LATER = timedelta(hours=1)
ODD = 'Grüße, 世界! 👩‍👩‍👧 a\u2028b\r\n\t\\ "\x7f\x01\ufffe $1 :a %s {}'
TALKS: list[Step] = [*words("a"), 0.01]
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens for notifications here."""
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.05)


@asynccontextmanager
async def away_meanwhile(databases: Databases, url: str) -> AsyncIterator[None]:
    """``away`` in a thread: it runs an event loop of its own."""
    outage = away(databases, url)
    await asyncio.to_thread(outage.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(outage.__exit__, None, None, None)


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


def talks(times: int, *end: Step) -> Scripted:
    """A token every ten milliseconds."""
    return Scripted([[*(TALKS * times), *end]])


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


async def test_another_process_stops_it_where_no_notification_comes(
    database_url: str, another: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "HEARTBEAT_SECONDS", 0.05)
    provider = Scripted([[*words("a"), FOREVER]])
    async with process(database_url) as owner:
        live, reader = owner.begin(provider)
        await owner.written(live, 2)
        await another.tails.ask_to_stop(live.id, WITHIN)
        assert reader.end.name == "cancelled"
        stored = await another.journal.get(live.id)
        assert stored is not None
        assert (stored.state, stored.text, provider.open) == (State.CANCELLED, "a", 0)


async def test_a_notification_that_names_it_stops_it(one: Process) -> None:
    live, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    spared, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    for payload in (None, "*", "", str(uuid4())):
        one.journal.stop_named(payload)
    assert not await live.ended(0.05)
    one.journal.stop_named(live.id)
    assert (await ended(live)).end.name == "cancelled"
    assert spared.transcript.state is State.RUNNING


async def test_asking_to_stop_what_has_ended_changes_nothing(one: Process) -> None:
    live, _ = one.begin(Scripted([[*words("a"), END]]))
    stored = await one.written(live)
    await one.store.ask_to_stop(live.id)
    assert await one.store.get(live.id) == stored


async def test_one_whose_process_is_gone_ends_behind_what_it_had_written(
    one: Process, another: Process
) -> None:
    live, reader = one.begin(Scripted([[*words("a", "b"), 0.2, *words("c"), FOREVER]]))
    written = await one.written(live, 3)
    one.store.dead = True
    await reader.reach(4)
    follower = Reader()
    with another.tails.follow(live.id, follower):
        await follower.reach(3)
        assert await another.store.sweep(NOW, LATER, []) == 1
        another.tails.hint(live.id)
        await follower.reach(5)
    last = 3 + MOST_UNWRITTEN + 2
    assert follower.seen == [
        *reader.seen[:3],
        Event(last - 1, "error", LOST),
        Event(last, "close", {}),
    ]
    found = await another.journal.get(live.id)
    assert found is not None
    assert (found.state, found.error, found.seq) == (State.FAILED, LOST, last)
    assert (found.text, found.tokens) == ("ab", written.tokens)
    assert found.finished_at is not None
    # Who was told the third token has a number that nobody knows, and neither is it an end.
    assert [await another.journal.has(found, seq) for seq in (3, 4, 5, last - 1, last)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert await another.store.sweep(NOW, LATER, []) == 0
    assert await another.events(live) == follower.seen


async def test_what_was_given_up_stays_so(one: Process, another: Process) -> None:
    live, reader = one.begin(talks(10_000))
    await one.written(live, 3)
    assert await another.store.sweep(-LATER, LATER, []) == 1
    before = await another.events(live)
    live.cancel()
    await reader.reach(len(reader.seen))

    async def believed() -> bool:
        return one.journal.live(live.id) is None

    await eventually(believed, within=WITHIN, what="its process has tried to write it")
    assert await another.events(live) == before
    stored = await another.journal.get(live.id)
    assert stored is not None
    assert stored.error == LOST


async def test_a_process_does_not_give_up_its_own(one: Process) -> None:
    live, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    await one.written(live, 2)
    assert await one.store.sweep(-LATER, LATER, [live.id]) == 0


async def test_one_that_shows_signs_of_life_is_not_lost(one: Process, another: Process) -> None:
    live, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    await one.written(live, 2)
    age = "UPDATE tailrace.generations SET heartbeat_at = now() - interval '1 hour'"
    await one.execute(age)
    assert await one.store.alive([live.id]) == []
    assert await another.store.sweep(timedelta(seconds=30), LATER, []) == 0
    await one.execute(age)
    assert await another.store.sweep(timedelta(seconds=30), LATER, []) == 1


async def test_behind_an_outage_nobody_is_given_up_at_once(
    database_url: str, one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(journal, "LOST_AFTER", -LATER)
    lost: list[timedelta] = []

    live, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    await one.written(live, 2)
    async with process(database_url) as sweeper:
        sweeper.store.dead = True
        sweep = sweeper.store.sweep

        async def noted(lost_after: timedelta, keep: timedelta, own: list[str]) -> int:
            lost.append(lost_after)
            return await sweep(lost_after, keep, own)

        monkeypatch.setattr(sweeper.store, "sweep", noted)

        async def swept() -> bool:
            stored = await one.store.get(live.id)
            return stored is not None and stored.state.final

        async def tried() -> bool:
            return len(lost) >= 2

        await eventually(tried, within=WITHIN, what="a sweep has failed")
        sweeper.store.dead = False
        failed = len(lost)
        await eventually(swept, within=WITHIN, what="it is given up")
    assert lost[failed] == journal.NEVER
    assert lost[failed + 1] == -LATER


async def test_what_is_old_is_removed_with_its_events(one: Process) -> None:
    done, _ = one.begin(Scripted([[*words("a"), END]]))
    running, reader = one.begin(Scripted([[*words("a"), FOREVER]]))
    await one.written(done)
    await one.written(running, 2)
    assert await one.store.sweep(LATER, LATER, []) == 0
    assert await one.store.get(done.id) is not None
    assert await one.store.sweep(LATER, NOW, []) == 0
    assert await one.store.get(done.id) is None
    assert await one.events(done) == []
    assert await one.events(running) == reader.seen


async def test_no_more_wait_for_the_database_than_fit(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_ENDED", 3)
    one.store.dead = True
    running, _ = one.begin(Scripted([[*words("a"), FOREVER]]))
    lives = [one.begin(Scripted([[*words("a"), END]]))[0] for _ in range(8)]
    for live in lives:
        await ended(live)

    async def dropped() -> bool:
        return sum(item.count for item in one.told if isinstance(item, RecordsDropped)) == 5

    await eventually(dropped, within=WITHIN, what="five are given up")
    assert [one.journal.live(live.id) is not None for live in lives] == [False] * 5 + [True] * 3
    assert one.journal.live(running.id) is running
    one.store.dead = False
    for live in lives[-3:]:
        await one.written(live)


async def test_the_last_word_is_written_when_a_process_stops(
    database_url: str, another: Process
) -> None:
    async with process(database_url) as stopping:
        live, reader = stopping.begin(Scripted([[*words("a"), FOREVER]]))
        await reader.reach(2)
    stored = await another.store.get(live.id)
    assert stored is not None
    assert stored.state is State.CANCELLED
    assert await another.events(live) == reader.seen


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
