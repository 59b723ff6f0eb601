"""Generations over providers that are late, fail, stall and lie, and whoever reads them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from service.chat.echo import Echo
from service.chat.live import LONGEST_PAUSE, MOST_PIECES, Live, Patience
from service.chat.model import OnDisconnect, State
from service.chat.provider import Delta, Failure, Finished, FinishReason, ProviderFailed
from service.errors import Draining
from tests.generations import (
    AT_ONCE,
    END,
    FOREVER,
    PATIENT,
    Reader,
    Scripted,
    Step,
    ended,
    live_of,
    started,
    words,
)

AGAIN = ProviderFailed(Failure.UPSTREAM_UNAVAILABLE, "Overloaded.", retry=True, retry_after=0.01)
NEVER = ProviderFailed(Failure.AUTHENTICATION, "Not with this key.", retry=False)
THREE = replace(PATIENT, retries=3)
CANCEL, CONTINUE = OnDisconnect.CANCEL, OnDisconnect.CONTINUE


async def told(provider: Scripted, live: Live) -> Reader:
    """All that is told of a generation that is let run."""
    reader = started(live)
    again = await ended(live)
    assert reader.seen == again.seen
    assert provider.open == 0
    return reader


async def test_what_a_model_says_is_told_in_its_order() -> None:
    provider = Scripted([[*words("Grü", "ße, ", "世界"), END]])
    reader = await told(provider, live_of(provider))
    assert reader.names == ["start", "token", "token", "token", "done", "close"]
    assert reader.text == "Grüße, 世界"
    assert reader.end.data == {
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        "tokens": 3,
        "chars": 9,
    }


async def test_the_stand_in_is_read_like_any_other() -> None:
    live = live_of(Echo(script=[*words("a", "b"), 0.01, *words("c"), END]))
    started(live)
    assert (await ended(live)).text == "abc"


async def test_an_answer_of_nothing_is_done() -> None:
    provider = Scripted([[END]])
    assert (await told(provider, live_of(provider))).names == ["start", "done", "close"]


@pytest.mark.parametrize("said", [words("a", "b"), []], ids=["text", "nothing"])
async def test_a_provider_that_says_no_end_has_come_to_one(said: list[Delta]) -> None:
    provider = Scripted([said])
    reader = await told(provider, live_of(provider))
    assert reader.end.name == "done"
    assert reader.end.data["finish_reason"] == "unknown"
    assert reader.end.data["usage"] == {"prompt_tokens": None, "completion_tokens": None}


@pytest.mark.parametrize(
    ("script", "patience", "tokens", "message"),
    [
        ([FOREVER], replace(PATIENT, first_token=0.1), 0, "The model sent nothing within 0.1 s."),
        (
            [*words("a"), FOREVER],
            replace(PATIENT, stall=0.1),
            1,
            "The model sent nothing for 0.1 s.",
        ),
        (
            [*words("a"), FOREVER],
            replace(PATIENT, max_duration=0.1),
            1,
            "The generation took longer than 0.1 s.",
        ),
        (
            [FOREVER],
            replace(PATIENT, max_duration=0.1),
            0,
            "The generation took longer than 0.1 s.",
        ),
        (
            [*words("a"), 0.05] * 100,
            replace(PATIENT, max_duration=0.3),
            None,
            "The generation took longer than 0.3 s.",
        ),
    ],
    ids=[
        "first token",
        "stall",
        "total in a stall",
        "total before the first",
        "total while it talks",
    ],
)
async def test_a_provider_that_is_late_is_let_go(
    script: list[Step], patience: Patience, tokens: int | None, message: str
) -> None:
    provider = Scripted([script])
    reader = await told(provider, live_of(provider, patience=patience))
    assert reader.error == {"code": "timeout", "message": message, "retry": True}
    assert tokens is None or reader.names.count("token") == tokens


async def test_the_wait_for_the_first_token_ends_with_it() -> None:
    slow: list[Step] = [*words("a"), 0.15, *words("b"), 0.15, *words("c"), END]
    provider = Scripted([slow])
    patience = replace(PATIENT, first_token=0.1, stall=5.0)
    assert (await told(provider, live_of(provider, patience=patience))).text == "abc"


async def test_the_wait_for_the_first_token_is_one_for_all_tries() -> None:
    provider = Scripted([[0.1, AGAIN]])
    patience = replace(PATIENT, first_token=0.35, retries=100)
    reader = await told(provider, live_of(provider, patience=patience))
    assert reader.error["code"] in ("timeout", "upstream_unavailable")
    assert 2 <= provider.opened <= 5


@pytest.mark.parametrize("failures", [1, 3])
async def test_a_failure_that_may_pass_is_tried_again(failures: int) -> None:
    provider = Scripted([*([AGAIN] for _ in range(failures)), [*words("a"), END]])
    reader = await told(provider, live_of(provider, patience=THREE))
    assert reader.names == ["start", "token", "done", "close"]
    assert provider.opened == failures + 1


@pytest.mark.parametrize(
    ("script", "patience", "calls", "error"),
    [
        ([AGAIN], THREE, 4, AGAIN),
        ([AGAIN], PATIENT, 1, AGAIN),
        ([NEVER], THREE, 1, NEVER),
        ([*words("a"), AGAIN], THREE, 1, AGAIN),
    ],
    ids=["too often", "no retries", "no use", "behind the first token"],
)
async def test_a_failure_is_told_as_it_is(
    script: list[Step], patience: Patience, calls: int, error: ProviderFailed
) -> None:
    provider = Scripted([script])
    live = live_of(provider, patience=patience)
    reader = await told(provider, live)
    assert provider.opened == calls
    assert live.failure is error
    assert reader.error == {
        "code": error.failure.value,
        "message": error.detail,
        "retry": error.retry,
    }


async def test_the_pause_is_the_one_that_the_provider_asks_for() -> None:
    asks = ProviderFailed(Failure.RATE_LIMITED, "Slower.", retry=True, retry_after=0.3)
    provider = Scripted([[asks], [*words("a"), END]])
    began = time.monotonic()
    reader = await told(provider, live_of(provider, patience=THREE))
    assert reader.text == "a"
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("pause", "first_token"),
    [(LONGEST_PAUSE + 1, 60.0), (3.0, 1.0), (None, 0.2)],
    ids=["longer than any", "longer than the wait", "our own, longer than the wait"],
)
async def test_a_pause_that_nobody_would_wait_for_is_not_begun(
    pause: float | None, first_token: float
) -> None:
    asks = ProviderFailed(Failure.RATE_LIMITED, "Slower.", retry=True, retry_after=pause)
    provider = Scripted([[asks]])
    live = live_of(provider, patience=replace(THREE, first_token=first_token))
    began = time.monotonic()
    reader = await told(provider, live)
    assert reader.error == {"code": "rate_limited", "message": "Slower.", "retry": True}
    assert time.monotonic() - began < first_token
    assert provider.opened == 1


PLACES = {
    "before the first token": ([FOREVER], 1),
    "in the middle": ([*words("a"), 0.01] * 10_000, 3),
    "while it stalls": ([*words("a"), FOREVER], 2),
    "without a pause": (words("a") * 1_000_000, 3),
    "between two tries": (
        [ProviderFailed(Failure.RATE_LIMITED, "", retry=True, retry_after=5.0)],
        1,
    ),
}
EVERYWHERE = pytest.mark.parametrize(("script", "events"), list(PLACES.values()), ids=list(PLACES))


@EVERYWHERE
async def test_a_cancellation_lets_the_provider_go_at_once(script: list[Step], events: int) -> None:
    provider = Scripted([script])
    live = live_of(provider, patience=THREE, max_tokens=1_000_000)
    reader = started(live)
    await reader.reach(events)
    live.cancel()
    assert await live.ended(AT_ONCE)
    assert provider.open == 0
    assert (reader.end.name, reader.end.data) == ("cancelled", {})
    assert live.transcript.state is State.CANCELLED


@EVERYWHERE
async def test_a_drain_ends_it_as_something_that_may_be_asked_again(
    script: list[Step], events: int
) -> None:
    provider = Scripted([script])
    live = live_of(provider, patience=THREE, max_tokens=1_000_000)
    reader = started(live)
    await reader.reach(events)
    live.break_off(Draining())
    assert await live.ended(AT_ONCE)
    assert provider.open == 0
    assert reader.error == {"code": "unknown", "message": Draining().detail, "retry": True}
    assert live.failure is not None


async def test_a_cancellation_before_its_first_step_is_told_too() -> None:
    provider = Scripted([[FOREVER]])
    changes: list[State] = []
    live = live_of(provider, changed=lambda live: changes.append(live.transcript.state))
    reader = started(live)
    live.cancel()
    assert (await ended(live)).names == reader.names == ["start", "cancelled", "close"]
    assert changes == [State.RUNNING, State.CANCELLED]
    assert provider.opened == 0


async def test_cancelling_twice_does_not_break_into_the_closing() -> None:
    provider = Scripted([[*words("a"), FOREVER]], closing=0.1)
    live = live_of(provider)
    reader = started(live)
    await reader.reach(2)
    live.cancel()
    await asyncio.sleep(0.02)
    live.cancel()
    live.break_off(Draining())
    await ended(live)
    assert (provider.open, provider.broken) == (0, 0)
    assert reader.end.name == "cancelled"


async def test_a_cancellation_behind_the_end_changes_nothing() -> None:
    provider = Scripted([[*words("a"), END]])
    live = live_of(provider)
    reader = await told(provider, live)
    live.cancel()
    live.break_off(Draining())
    await asyncio.sleep(0)
    assert reader.names == ["start", "token", "done", "close"]


@pytest.mark.parametrize(
    "script",
    [
        [ValueError("secret")],
        [*words("a"), ValueError("secret")],
        [TimeoutError("secret")],
        [*words("a"), KeyError("secret")],
    ],
    ids=["at once", "behind a token", "a time-out of its own", "a key"],
)
async def test_an_exception_that_nobody_expects_ends_it_all_the_same(script: list[Step]) -> None:
    provider = Scripted([script])
    live = live_of(provider, patience=THREE)
    reader = await told(provider, live)
    assert reader.error == {
        "code": "unknown",
        "message": "The generation failed unexpectedly.",
        "retry": False,
    }
    assert live.bug is script[-1]
    assert provider.opened == 1


async def test_a_provider_that_never_stops_is_stopped() -> None:
    provider = Scripted([words("a") * 1_000_000])
    reader = await told(provider, live_of(provider, max_tokens=3))
    assert reader.names.count("token") == 3 * MOST_PIECES
    assert reader.end.data["finish_reason"] == "length"


async def test_each_change_is_told_with_its_events_in_place() -> None:
    provider = Scripted([[*words(*"abcdefghijkl"), END]])
    seqs: list[int] = []
    live = live_of(provider, changed=lambda live: seqs.append(live.transcript.seq))
    await told(provider, live)
    assert seqs == [1, *range(2, 11), 12, 13, 14, 16]


@pytest.mark.parametrize("after", range(6))
async def test_who_comes_later_is_told_what_is_behind_its_number(after: int) -> None:
    provider = Scripted([[*words("a", "b"), END]])
    live = live_of(provider)
    whole = await told(provider, live)
    reader = Reader()
    live.attach(reader, after)
    assert reader.seen == whole.seen[after:]


async def test_who_comes_in_the_middle_misses_nothing() -> None:
    slow: list[Step] = [*words("a"), 0.02] * 20
    provider = Scripted([[*slow, END]])
    live = live_of(provider)
    first = started(live)
    await first.reach(5)
    second = Reader()
    live.attach(second, 3)
    await ended(live)
    assert second.seen == first.seen[3:]


@pytest.mark.parametrize(
    ("on_disconnect", "why", "others", "end"),
    [
        (CANCEL, "left", 0, "cancelled"),
        (CANCEL, "left", 1, "done"),
        (CANCEL, "sent away", 0, "done"),
        (CONTINUE, "left", 0, "done"),
        (CONTINUE, "sent away", 0, "done"),
    ],
    ids=["gone", "somebody else reads", "sent away", "continues", "continues, sent away"],
)
async def test_who_leaves_and_what_becomes_of_it(
    on_disconnect: OnDisconnect, why: str, others: int, end: str
) -> None:
    provider = Scripted([[*words("a"), 0.2, *words("b"), END]])
    live = live_of(provider, on_disconnect=on_disconnect)
    reader = started(live)
    for _ in range(others):
        live.attach(Reader(), 0)
    await reader.reach(2)
    live.detach(reader, left=why == "left")
    whole = await ended(live)
    assert whole.end.name == end
    assert reader.names == ["start", "token"]
    assert provider.open == 0


async def test_the_last_one_to_leave_ends_it() -> None:
    provider = Scripted([[*words("a"), FOREVER]])
    live = live_of(provider)
    readers = [started(live), Reader(), Reader()]
    for reader in readers[1:]:
        live.attach(reader, 0)
    await readers[0].reach(2)
    for reader in readers[:-1]:
        live.detach(reader, left=True)
    assert not await live.ended(0.05)
    live.detach(readers[-1], left=True)
    assert await live.ended(AT_ONCE)
    assert live.transcript.state is State.CANCELLED
    assert provider.open == 0


async def test_who_leaves_behind_the_end_cancels_nothing() -> None:
    provider = Scripted([[*words("a"), Finished(FinishReason.TOOL_USE)]])
    live = live_of(provider)
    reader = await told(provider, live)
    live.detach(reader, left=True)
    assert live.transcript.state is State.SUCCEEDED
    assert reader.end.data["finish_reason"] == "tool_use"
