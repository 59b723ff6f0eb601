"""Generations that are swept: those whose process was killed, and those that are too old."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chatting import (
    WITHIN,
    body,
    cancel,
    chat_service,
    gapless,
    id_of,
    path,
    reach,
    started,
    text_of,
    told,
)
from tests.clients import ask
from tests.event_stream import Sent, events_of
from tests.serving import Served
from tests.waiting import wait_until


@pytest.fixture
def other(database_url: str, tmp_path: Path) -> Iterator[Served]:
    with chat_service(tmp_path / "other", database_url) as found:
        yield found


def events(generation: str) -> str:
    return path(generation, "/events")


def last(seen: list[Sent]) -> int:
    number = seen[-1].id
    assert number is not None
    return number


@pytest.mark.slow
def test_one_whose_process_was_killed_ends_for_its_readers(
    other: Served, database_url: str, tmp_path: Path
) -> None:
    with chat_service(tmp_path / "killed", database_url) as killed:
        generation = started(killed.base, body("word " * 5_000, provider="slow"))
        with events_of(other.base, events(generation)) as stream:
            seen = stream.until("progress")
            killed.process.kill()
            killed.process.wait()
            seen += stream.until("close")
    tokens, (failed, close) = seen[:-2], seen[-2:]
    assert gapless(tokens)
    assert (failed.name, failed.data["code"], failed.data["retry"]) == ("error", "unknown", True)
    found = reach(other.base, generation, "failed")
    assert (found["text"], found["error"]) == (text_of(seen), failed.data)
    # What its own process may have told beyond that is known to nobody.
    with events_of(other.base, events(generation), last(tokens) + 1) as stream:
        again = stream.rest()
    assert again[0].name == "reset"
    assert again[1:] == seen
    assert failed.id is not None
    assert (
        ask(other.base, events(generation), headers={"Last-Event-ID": str(close.id)}).status == 204
    )
    assert cancel(other.base, generation).json() == {"cancelled": False, "reason": "finished"}


@pytest.mark.slow
def test_what_is_too_old_is_gone(database_url: str, tmp_path: Path) -> None:
    with chat_service(tmp_path, database_url, limits__generation_ttl="1s") as brief:
        generation = id_of(told(brief.base, body("a")))
        wait_until(
            lambda: ask(brief.base, path(generation)).status == 404,
            within=WITHIN,
            what="it is removed",
        )
        assert ask(brief.base, events(generation)).status == 404
