"""Generations read again from where a client was: here, by another process, behind an end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chatting import (
    OPENING,
    WITHIN,
    asking,
    body,
    cancel,
    chat_service,
    gapless,
    id_of,
    path,
    plain,
    send,
    shown,
    text_of,
    told,
)
from tests.clients import ask
from tests.event_stream import Sent, events_of, names
from tests.peer import connected
from tests.serving import Served

LONG = "word " * 100  # two seconds of the slow one
SLOW = body(LONG, provider="slow")
CONTINUE = SLOW | {"on_disconnect": "continue"}
WHOLE = OPENING + LONG


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with chat_service(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture(scope="module")
def other(
    served: Served, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Another server on the same database."""
    with chat_service(tmp_path_factory.mktemp("other"), module_database_url) as found:
        yield found


@pytest.fixture(scope="module")
def finished(served: Served) -> list[Sent]:
    """All events of a generation that has ended."""
    events = told(served.base, body("one two"))
    assert len(events) == 16
    return events


def events(generation: str) -> str:
    return path(generation, "/events")


def last(seen: list[Sent]) -> int:
    number = seen[-1].id
    assert number is not None
    return number


@pytest.mark.parametrize("where", ["its own process", "another one"])
@pytest.mark.parametrize("by", ["header", "query"])
def test_a_finished_one_is_read_from_any_number(
    served: Served, other: Served, finished: list[Sent], where: str, by: str
) -> None:
    base = served.base if where == "its own process" else other.base
    address = events(id_of(finished))
    for number in range(len(finished) - 1):
        query = f"?last_event_id={number}" if by == "query" else ""
        with events_of(base, address + query, number if by == "header" else None) as stream:
            assert stream.status == 200
            assert stream.rest() == finished[number:]
        assert stream.retries == [3000]
    for number in (len(finished) - 1, len(finished)):
        query = f"?last_event_id={number}" if by == "query" else ""
        headers = {"Last-Event-ID": str(number)} if by == "header" else {}
        answer = ask(base, address + query, headers=headers)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Cache-Control"] == "no-store"


def test_the_header_is_newer_than_the_address(served: Served, finished: list[Sent]) -> None:
    with events_of(served.base, f"{events(id_of(finished))}?last_event_id=2", 9) as stream:
        assert stream.rest() == finished[9:]


@pytest.mark.parametrize("number", ["17", "999999999999", "abc", "-1", "1.5", "٣", "9" * 40])
def test_an_unknown_number_begins_anew(
    served: Served, other: Served, finished: list[Sent], number: str
) -> None:
    for service in (served, other):
        header = number if number.isascii() else number.encode().decode("latin-1")
        with events_of(service.base, events(id_of(finished)), header) as stream:
            seen = stream.rest()
        assert (seen[0].name, seen[0].id, seen[0].data) == ("reset", None, {})
        assert seen[1:] == finished


@pytest.mark.parametrize("where", ["its own process", "another one"])
@pytest.mark.parametrize("known", [0, 1, 5, 12])
def test_one_that_goes_on_is_read_on(served: Served, other: Served, where: str, known: int) -> None:
    base = served.base if where == "its own process" else other.base
    with asking(served.base, body("word " * 30, provider="slow")) as stream:
        seen = stream.until("progress")
        with events_of(base, events(id_of(seen)), known) as resumed:
            again = resumed.rest()
        seen += stream.rest()
    assert gapless(seen)
    assert again == seen[known:]
    assert names(again)[-2:] == ["done", "close"]


def test_a_client_may_go_from_one_to_another_while_it_goes_on(
    served: Served, other: Served
) -> None:
    """What one process has told, the other one has to wait for."""
    with asking(served.base, CONTINUE) as stream:
        seen = stream.until("token")
    generation = id_of(seen)
    for place in range(6):
        base = (other, served)[place % 2].base
        with events_of(base, events(generation), last(seen)) as stream:
            for _ in range(3):
                seen += stream.until("token")
    with events_of(other.base, events(generation), last(seen)) as stream:
        seen += stream.rest()
    assert gapless(seen)
    assert text_of(seen) == WHOLE
    assert names(seen)[-2:] == ["done", "close"]


def test_another_process_shows_the_text_so_far(served: Served, other: Served) -> None:
    with asking(served.base, SLOW) as stream:
        seen = stream.until("progress")
        found = shown(other.base, id_of(seen))
        assert found["state"] == "running"
        assert WHOLE.startswith(found["text"])
        assert found["chars"] == len(found["text"])
        cancel(other.base, id_of(seen))
        seen += stream.rest()
    assert shown(other.base, id_of(seen))["text"] == text_of(seen)


def test_text_and_events_are_one_generation(served: Served) -> None:
    with connected(served.base) as peer:
        send(peer, CONTINUE, "Accept: text/plain")
        head = peer.read_head().decode().lower()
        generation = head.partition("x-generation-id: ")[2].partition("\r\n")[0]
        with events_of(served.base, events(generation)) as stream:
            seen = stream.rest()
    assert text_of(seen) == WHOLE
    assert plain(served.base, body("a")).body.decode() == f"{OPENING}a"


def test_a_drain_sends_readers_away_and_lets_it_end(
    other: Served, module_database_url: str, tmp_path: Path
) -> None:
    with chat_service(tmp_path, module_database_url, limits__drain_timeout="20s") as first:
        with asking(first.base, SLOW) as stream:
            seen = stream.until("progress")
            first.process.send_signal(signal.SIGTERM)
            seen += stream.rest()
        assert names(seen)[-1] == "token"
        with events_of(other.base, events(id_of(seen)), last(seen)) as stream:
            seen += stream.rest()
        assert first.process.wait(WITHIN) == 0
    assert gapless(seen)
    assert text_of(seen) == WHOLE
    assert names(seen)[-2:] == ["done", "close"]


def test_a_drain_does_not_wait_for_ever(
    other: Served, module_database_url: str, tmp_path: Path
) -> None:
    with chat_service(tmp_path, module_database_url, limits__drain_timeout="1s") as first:
        with asking(first.base, body("word " * 1_000, provider="slow")) as stream:
            seen = stream.until("token")
            first.process.send_signal(signal.SIGTERM)
            seen += stream.rest()
        with events_of(other.base, events(id_of(seen)), last(seen)) as stream:
            seen += stream.rest()
        assert first.process.wait(WITHIN) == 0
    assert gapless(seen)
    assert names(seen)[-2:] == ["error", "close"]
    assert seen[-2].data["retry"] is True
    assert shown(other.base, id_of(seen))["text"] == text_of(seen)
