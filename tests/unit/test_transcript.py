"""The events of a generation, in their order and with their numbers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.chat.model import Event, Generation, State
from service.chat.provider import Failure, Finished, FinishReason, ProviderFailed, Usage
from service.chat.transcript import Transcript, storable

BEGAN = datetime(2026, 11, 25, 3, 31, tzinfo=UTC)
NOW = BEGAN + timedelta(seconds=2)
ASKED = {"messages": 1, "max_tokens": 10}
MOST = 2**53 - 1
LIMITED = ProviderFailed(Failure.RATE_LIMITED, "Too often.", retry=True, retry_after=3)
STOPPED = Finished(FinishReason.STOP, Usage(4, 9))
DONE = {
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 4, "completion_tokens": 9},
    "tokens": 2,
    "chars": 3,
}
ERROR = {"code": "rate_limited", "message": "Too often.", "retry": True}
ENDS = [
    ("done", DONE, State.SUCCEEDED, lambda made: made.done(STOPPED, NOW)),
    ("error", ERROR, State.FAILED, lambda made: made.failed(LIMITED, NOW)),
    ("cancelled", {}, State.CANCELLED, lambda made: made.cancelled(NOW)),
]


def transcript() -> Transcript:
    return Transcript(
        Generation(
            id="an id",
            owner="anonymous",
            provider="default",
            model="m",
            asked=ASKED,
            created_at=BEGAN,
        )
    )


def test_it_begins_with_what_it_is() -> None:
    made = transcript()
    start = Event(1, "start", {"id": "an id", "provider": "default", "model": "m"})
    assert made.events == [start]
    assert (made.state, made.seq, made.tokens, made.chars) == (State.RUNNING, 1, 0, 0)
    assert made.generation.first_token_at is None


def test_a_token_has_its_text_and_its_number() -> None:
    made = transcript()
    assert made.token("Grüße, ", NOW) == [Event(2, "token", {"t": "Grüße, ", "n": 1})]
    assert made.token("世界😀", NOW) == [Event(3, "token", {"t": "世界😀", "n": 2})]
    assert (made.tokens, made.chars, made.generation.text) == (2, 10, "Grüße, 世界😀")


def test_the_first_token_has_its_time() -> None:
    made = transcript()
    made.token("a", NOW)
    made.token("b", NOW + timedelta(seconds=1))
    assert made.generation.first_token_at == NOW


def test_progress_comes_with_every_tenth_token() -> None:
    made = transcript()
    for _ in range(25):
        made.token("ab", NOW)
    found = [(event.seq, event.data) for event in made.events if event.name == "progress"]
    assert found == [(12, {"tokens": 10, "chars": 20}), (23, {"tokens": 20, "chars": 40})]


@pytest.mark.parametrize(("name", "data", "state", "end"), ENDS, ids=["done", "error", "cancelled"])
@pytest.mark.parametrize("tokens", [("a", "bc"), ()], ids=["tokens", "nothing"])
def test_every_end_has_close_behind_it(
    name: str,
    data: dict[str, object],
    state: State,
    end: Callable[[Transcript], list[Event]],
    tokens: tuple[str, ...],
) -> None:
    made = transcript()
    for token in tokens:
        made.token(token, NOW)
    told = end(made)
    counts = {"tokens": 0, "chars": 0} if name == "done" and not tokens else {}
    last = made.seq
    assert told == [Event(last - 1, name, {**data, **counts}), Event(last, "close", {})]
    generation = made.generation
    assert (generation.state, generation.finished_at) == (state, NOW)
    assert (generation.text, generation.seq) == ("".join(tokens), last)
    assert generation.error == (ERROR if name == "error" else None)
    assert (generation.finish_reason, generation.usage) == (
        ("stop", DONE["usage"]) if name == "done" else (None, None)
    )


def test_what_is_behind_a_number() -> None:
    made = transcript()
    made.token("a", NOW)
    made.cancelled(NOW)
    assert [event.seq for event in made.behind(0)] == [1, 2, 3, 4]
    assert [event.seq for event in made.behind(3)] == [4]
    assert made.behind(4) == []


def test_the_summary_is_all_but_the_text() -> None:
    made = transcript()
    made.token("a", NOW)
    summary, whole = made.summary, made.generation
    assert (summary.text, whole.text) == ("", "a")
    assert (summary.seq, summary.tokens, summary.id) == (whole.seq, whole.tokens, whole.id)
    assert summary.seq == 2


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ("\0", "\ufffd"),
        ("\ud83d", "\ufffd"),
        ("\udc00a", "\ufffda"),
        ("😀 \u2028\r\n\t\x7f\ufffe", "😀 \u2028\r\n\t\x7f\ufffe"),
        ("", ""),
    ],
)
def test_what_cannot_be_stored_is_told_as_it_is_kept(text: str, kept: str) -> None:
    assert storable(text) == kept
    made = transcript()
    (token, *_) = made.token(text, NOW)
    assert (token.data["t"], made.generation.text, made.chars) == (kept, kept, len(kept))
    made.failed(ProviderFailed(Failure.UNKNOWN, f"It says: {text}", retry=False), NOW)
    assert made.generation.error == {
        "code": "unknown",
        "message": f"It says: {kept}",
        "retry": False,
    }


@pytest.mark.parametrize(
    ("counted", "told"),
    [(None, None), (0, 0), (MOST, MOST), (MOST + 1, None), (10**30, None), (-1, None)],
)
def test_a_count_that_no_client_could_read_is_none(counted: int | None, told: int | None) -> None:
    made = transcript()
    (done, _) = made.done(Finished(FinishReason.LENGTH, Usage(counted, counted)), NOW)
    assert done.data["usage"] == {"prompt_tokens": told, "completion_tokens": told}
    assert orjson.loads(orjson.dumps(done.data)) == done.data


@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1), max_size=60))
def test_any_pieces_make_one_gapless_story(pieces: list[str]) -> None:
    made = transcript()
    told = list(made.events)
    for piece in pieces:
        told += made.token(piece, NOW)
    told += made.done(STOPPED, NOW)
    assert told == made.events == made.behind(0)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert [event.name for event in told[-2:]] == ["done", "close"]
    tokens = [event.data for event in told if event.name == "token"]
    assert [token["n"] for token in tokens] == list(range(1, len(pieces) + 1))
    text = "".join(token["t"] for token in tokens)
    assert text == storable("".join(pieces)) == made.generation.text
    assert told[-2].data["tokens"] == len(pieces)
    assert told[-2].data["chars"] == len(text)
    assert sum(event.name == "progress" for event in told) == len(pieces) // 10
    orjson.dumps([event.data for event in told])
    text.encode()
