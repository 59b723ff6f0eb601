"""Generations that are stopped, by whoever asks or by leaving: the provider is let go at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.chatting import (
    AT_ONCE,
    PLACES,
    WITHIN,
    answers,
    asking,
    body,
    cancel,
    chat_service,
    gapless,
    id_of,
    let_go,
    path,
    plain,
    reach,
    send,
    shown,
    started,
    told,
)
from tests.event_stream import events_of, names
from tests.llm_server import End, LlmServer, llm_server
from tests.llm_wire import LAST_CHUNK, chunked, head, token, usual
from tests.peer import Peer, connected
from tests.serving import Served
from tests.session import Session, session
from tests.waiting import wait_until

FAKE = body(provider="fake")
CONTINUE = FAKE | {"on_disconnect": "continue"}
EVERYWHERE = pytest.mark.parametrize("place", PLACES)
LEAVING = pytest.mark.parametrize("leave", [Peer.finish, Peer.reset], ids=["FIN", "RST"])
NAMED = "SELECT id::text FROM tailrace.generations WHERE model = 'stopped early'"
Leave = Callable[[Peer], None]


@pytest.fixture(scope="module")
def llm() -> Iterator[LlmServer]:
    with llm_server() as found:
        yield found


@pytest.fixture(scope="module")
def served(
    module_database_url: str, llm: LlmServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with chat_service(folder, module_database_url, llm=llm) as found:
        yield found


@pytest.fixture(scope="module")
def other(
    served: Served,
    module_database_url: str,
    llm: LlmServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """Another server on the same database."""
    with chat_service(tmp_path_factory.mktemp("other"), module_database_url, llm=llm) as found:
        yield found


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


def arrive(llm: LlmServer, place: str) -> int:
    """What the next request will get; how many tokens there are to wait for."""
    steps, tokens = PLACES[place]
    llm.answer(*steps)
    return tokens


def asked_for(llm: LlmServer, before: int) -> None:
    """Wait until the provider has one more request."""
    wait_until(lambda: len(llm.asked) > before, within=WITHIN, what="the provider is asked")


@EVERYWHERE
@pytest.mark.parametrize("where", ["its own process", "another one"])
def test_a_cancellation_by_anybody_lets_the_provider_go(
    served: Served, other: Served, llm: LlmServer, place: str, where: str
) -> None:
    before, tokens = len(llm.asked), arrive(llm, place)
    with asking(served.base, FAKE) as stream:
        seen = stream.until("start")
        while names(seen).count("token") < tokens:
            seen += stream.until("token")
        asked_for(llm, before)
        base = served.base if where == "its own process" else other.base
        began = time.monotonic()
        answer = cancel(base, id_of(seen))
        took = time.monotonic() - began
        assert (answer.status, answer.json()) == (200, {"cancelled": True})
        let_go(llm)
        seen += stream.rest()
    assert took < AT_ONCE
    assert gapless(seen)
    assert (seen[-2].name, seen[-2].data, seen[-1].name) == ("cancelled", {}, "close")
    again = cancel(base, id_of(seen))
    assert again.json() == {"cancelled": False, "reason": "finished"}
    assert shown(base, id_of(seen))["state"] == "cancelled"


def test_what_has_ended_is_not_cancelled(served: Served, other: Served, llm: LlmServer) -> None:
    answers(llm, "a")
    generation = id_of(told(served.base, FAKE))
    for base in (served.base, other.base):
        answer = cancel(base, generation)
        assert (answer.status, answer.json()) == (200, {"cancelled": False, "reason": "finished"})
    assert shown(served.base, generation)["state"] == "succeeded"


def test_one_that_has_just_begun_is_known_to_everybody(
    served: Served, other: Served, llm: LlmServer
) -> None:
    """What the other process is asked for has not been written then."""
    llm.answer(End.STALL)
    with asking(served.base, FAKE) as stream:
        generation = str(stream.headers["X-Generation-Id"])
        assert cancel(other.base, generation).json() == {"cancelled": True}
        assert names(stream.rest()) == ["start", "cancelled", "close"]
    let_go(llm)


@EVERYWHERE
@LEAVING
@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain"])
def test_a_client_that_leaves_takes_the_provider_with_it(
    served: Served, llm: LlmServer, place: str, leave: Leave, accept: str
) -> None:
    before, tokens = len(llm.asked), arrive(llm, place)
    with connected(served.base) as peer:
        send(peer, FAKE, f"Accept: {accept}")
        asked_for(llm, before)
        head_ = peer.read_head() if tokens or accept != "text/plain" else b""
        if tokens:
            peer.read_at_least(tokens)
        leave(peer)
        let_go(llm)
    if head_:
        assert reach(served.base, identified(head_), "cancelled")["tokens"] >= 0


def identified(head_: bytes) -> str:
    """The generation that the head of an answer names."""
    lines = (line.partition(b": ") for line in head_.split(b"\r\n"))
    return next(value.decode() for name, _, value in lines if name.lower() == b"x-generation-id")


@LEAVING
@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain"])
def test_one_that_is_to_continue_goes_on_without_its_client(
    served: Served, llm: LlmServer, leave: Leave, accept: str
) -> None:
    llm.answer(
        head(), *chunked(token("openai", "a")), 0.3, *chunked(usual("openai", ["b"])), LAST_CHUNK
    )
    with connected(served.base) as peer:
        send(peer, CONTINUE, f"Accept: {accept}")
        head_ = peer.read_head()
        peer.read_at_least(1)
        leave(peer)
    found = reach(served.base, identified(head_), "succeeded", "cancelled", "failed")
    assert (found["state"], found["text"]) == ("succeeded", "ab")


def test_one_that_is_to_continue_can_be_cancelled(
    served: Served, other: Served, llm: LlmServer
) -> None:
    for base in (served.base, other.base):
        llm.answer(head(), *chunked(token("openai", "a")), End.STALL)
        generation = started(served.base, FAKE)
        assert cancel(base, generation).json() == {"cancelled": True}
        let_go(llm)


@LEAVING
def test_while_somebody_reads_it_goes_on(served: Served, llm: LlmServer, leave: Leave) -> None:
    llm.answer(head(), *chunked(token("openai", "a")), End.STALL)
    with connected(served.base) as first:
        send(first, FAKE)
        generation = identified(first.read_head())
        first.read_at_least(1)
        with events_of(served.base, path(generation, "/events")) as second:
            assert names(second.until("token")) == ["start", "token"]
            leave(first)
            assert not llm.connections[-1].closed.wait(0.3)
            assert shown(served.base, generation)["state"] == "running"
        let_go(llm)
    assert reach(served.base, generation, "cancelled")["text"] == "a"


def test_who_came_only_to_watch_may_leave(served: Served, llm: LlmServer) -> None:
    llm.answer(
        head(), *chunked(token("openai", "a")), 0.3, *chunked(usual("openai", ["b"])), LAST_CHUNK
    )
    with asking(served.base, FAKE) as stream:
        seen = stream.until("token")
        with events_of(served.base, path(id_of(seen), "/events")) as watching:
            watching.until("token")
        seen += stream.rest()
    assert names(seen)[-2:] == ["done", "close"]


def test_text_that_somebody_else_stops_breaks_off(served: Served, llm: LlmServer) -> None:
    llm.answer(head(), *chunked(token("openai", "a")), End.STALL)
    with connected(served.base) as peer:
        send(peer, FAKE, "Accept: text/plain")
        generation = identified(peer.read_head())
        seen = peer.read_at_least(1)
        assert cancel(served.base, generation).json() == {"cancelled": True}
        seen += peer.read_all()
    assert seen == b"1\r\na\r\n"  # and no last chunk
    let_go(llm)


def test_text_that_is_stopped_before_its_first_token_is_a_conflict(
    served: Served, database: Session, llm: LlmServer
) -> None:
    before = len(llm.asked)
    llm.answer(End.STALL)
    with connected(served.base) as peer:
        send(peer, FAKE | {"model": "stopped early"}, "Accept: text/plain", "Connection: close")
        asked_for(llm, before)
        wait_until(lambda: database.value(NAMED), within=WITHIN, what="it is written")
        generation = str(database.value(NAMED))
        cancel(served.base, generation)
        answer = peer.read_all()
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "cancelled"
    let_go(llm)


def test_nothing_is_left_of_them(served: Served, other: Served, llm: LlmServer) -> None:
    def nothing() -> bool:
        return all(
            service.get("/v1/status")["streams"] == 0
            and service.get("/v1/status")["event_readers"] == 0
            for service in (served, other)
        )

    wait_until(nothing, within=WITHIN, what="nobody reads and nothing runs")
    answers(llm, "a")
    assert plain(served.base, FAKE).body == b"a"
    assert not served.events("unexpected error")
    assert not other.events("unexpected error")
