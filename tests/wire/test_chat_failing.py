"""Providers that fail or are late, slots that come free, and who is told: log and metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.chatting import (
    CHAT,
    KEY,
    MORE,
    OPENING,
    PLACES,
    answers,
    asking,
    body,
    cancel,
    chat_service,
    id_of,
    path,
    plain,
    reach,
    send,
    shown,
    started,
    text_of,
    told,
)
from tests.clients import ask
from tests.curl import CUT_SHORT, download
from tests.event_stream import names
from tests.jobs import post
from tests.llm_server import End, LlmServer, llm_server
from tests.llm_wire import chunked, error, head, token
from tests.outage import away
from tests.peer import connected
from tests.postgres import Databases
from tests.serving import Served
from tests.wire.problems import check_problem

LONG = "word " * 90
LIMITED = error(429, {"error": {"message": f"Slower, {KEY}", "type": "rate"}}, retry_after="7")
REFUSED = error(401, {"error": {"message": f"Incorrect API key: {KEY}"}})
LONGER = error(400, {"error": {"message": "Too long", "code": "context_length_exceeded"}})
FAILURES = [
    (LIMITED, "rate_limited", True, 429),
    (REFUSED, "authentication", False, 502),
    (LONGER, "context_too_long", False, 413),
    ([End.RST], "upstream_unavailable", True, 502),
]


@pytest.fixture(scope="module")
def llm() -> Iterator[LlmServer]:
    with llm_server() as found:
        yield found


@pytest.fixture(scope="module")
def served(
    module_database_url: str, llm: LlmServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    config = MORE.format(base=llm.base)
    with chat_service(folder, module_database_url, llm=llm, config=config) as found:
        yield found


@pytest.mark.parametrize(
    ("steps", "code", "retry", "status"), FAILURES, ids=[item[1] for item in FAILURES]
)
def test_a_failure_has_its_code_and_no_secrets(
    served: Served,
    llm: LlmServer,
    steps: list[Any],
    code: str,
    retry: object,
    status: int,
) -> None:
    llm.answer(*steps)
    with asking(served.base, body(provider="fake")) as stream:
        events = stream.rest()
    assert names(events) == ["start", "error", "close"]
    failed = events[1].data
    assert (failed["code"], failed["retry"], set(failed)) == (
        code,
        retry,
        {"code", "message", "retry"},
    )
    found = shown(served.base, id_of(events))
    assert (found["state"], found["error"]) == ("failed", failed)
    llm.answer(*steps)
    answer = plain(served.base, body(provider="fake"))
    check_problem(answer, status, "provider_failed")
    assert (answer.json()["failure"], answer.json()["retry"]) == (code, retry)
    assert answer.headers["Retry-After"] == ("7" if status == 429 else None)
    assert KEY not in f"{failed}{found}{answer.body!r}"


def test_text_that_fails_behind_its_first_token_breaks_off(
    served: Served, llm: LlmServer, tmp_path: Path
) -> None:
    llm.answer(head(), *chunked(token("openai", "Hel")), 0.05, End.FIN)
    found = download(
        f"{served.base}{CHAT}",
        tmp_path,
        "--json",
        '{"messages":[{"role":"user","content":"Hi"}],"provider":"fake"}',
        "-H",
        "Accept: text/plain",
    )
    assert (found.exit_code(), found.body) == (CUT_SHORT, b"Hel")
    failed = shown(served.base, found.headers["x-generation-id"])
    assert (failed["state"], failed["text"]) == ("failed", "Hel")
    assert failed["error"]["code"] == "upstream_unavailable"


def finish(served: Served, generation: str) -> None:
    reach(served.base, generation, "succeeded")


def stop(served: Served, generation: str) -> None:
    assert cancel(served.base, generation).json() == {"cancelled": True}


@pytest.mark.parametrize("end", [finish, stop], ids=["done", "cancelled"])
def test_a_slot_is_free_behind_an_end(served: Served, end: Any) -> None:
    generation = started(served.base, body(LONG, provider="narrow"))
    busy = post(served.base, CHAT, body(provider="narrow"))
    check_problem(busy, 503, "busy")
    assert busy.headers["Retry-After"]
    end(served, generation)
    assert names(told(served.base, body(provider="narrow", max_tokens=1)))[-2:] == ["done", "close"]


def test_a_slot_is_free_behind_a_client_that_left(served: Served) -> None:
    for accept in ("text/event-stream", "text/plain"):
        with connected(served.base) as peer:
            send(peer, body(LONG, provider="narrow"), f"Accept: {accept}")
            assert b"200 OK" in peer.read_head()
        assert names(told(served.base, body(provider="narrow", max_tokens=1)))[-2] == "done"


def test_a_client_that_leaves_while_it_waits_for_a_slot_keeps_none(served: Served) -> None:
    generation = started(served.base, body(LONG, provider="narrow"))
    peers = [connected(served.base) for _ in range(3)]
    for context in peers:
        with context as peer:
            send(peer, body(LONG, provider="narrow"))
    stop(served, generation)
    assert names(told(served.base, body(provider="narrow", max_tokens=1)))[-2] == "done"


@pytest.mark.parametrize("place", PLACES)
def test_a_provider_that_is_late_is_given_up_and_its_slot_is_free(
    served: Served, llm: LlmServer, place: str
) -> None:
    steps, tokens = PLACES[place]
    if place == "in the middle":
        steps = [*steps[:20], End.STALL]
    llm.answer(*steps)
    events = told(served.base, body(provider="impatient"))
    assert names(events)[-2:] == ["error", "close"]
    assert events[-2].data["code"] == "timeout"
    assert events[-2].data["retry"] is True
    assert bool(text_of(events)) == bool(tokens)
    assert llm.connections[-1].closed.wait(1)
    answers(llm, "a")
    assert names(told(served.base, body(provider="impatient")))[-2] == "done"


def test_the_log_and_the_metrics_tell_of_them(served: Served, llm: LlmServer) -> None:
    before = metrics(served)
    answers(llm, "a", "b")
    events = told(served.base, body(provider="fake"))
    llm.answer(*LIMITED)
    told(served.base, body(provider="fake"))
    after = metrics(served)
    ended = ('code="",outcome="succeeded"', 'code="rate_limited",outcome="failed"')
    for labels in ended:
        name = f'tailrace_generations_total{{{labels},provider="fake"}}'
        assert after[name] == before.get(name, 0) + 1
    tokens = 'tailrace_generation_tokens_total{provider="fake"}'
    assert after[tokens] == before.get(tokens, 0) + 2
    counted = 'tailrace_first_token_seconds_count{provider="fake"}'
    assert after[counted] == before.get(counted, 0) + 1
    mine = [
        [
            line
            for line in served.events(f"generation {name}")
            if line["generation_id"] == id_of(events)
        ]
        for name in ("started", "ended")
    ]
    (begun,), (over,) = mine
    assert 0 <= begun["first_token_seconds"] <= over["seconds"]
    assert (over["outcome"], over["tokens"], over["chars"], over["code"]) == (
        "succeeded",
        2,
        2,
        None,
    )
    assert KEY not in served.log.read_text()


def metrics(served: Served) -> dict[str, float]:
    lines = ask(served.base, "/metrics").body.decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_without_the_database_tokens_come_all_the_same(
    databases: Databases, module_database_url: str, served: Served
) -> None:
    with away(databases, module_database_url):
        began = time.monotonic()
        with asking(served.base, body("one", provider="slow")) as stream:
            stream.until("token")
            # A connection to the database that is away would be waited for longer.
            assert time.monotonic() - began < 5
            generation = stream.headers["X-Generation-Id"]
            assert shown(served.base, generation)["state"] == "running"
            assert names(stream.rest())[-2:] == ["done", "close"]
        assert plain(served.base, body("one")).body.decode() == f"{OPENING}one"
        assert shown(served.base, generation)["text"] == f"{OPENING}one"
        check_problem(ask(served.base, path(str(uuid4()))), 503, "records_unavailable")
    assert reach(served.base, generation, "succeeded")["text"] == f"{OPENING}one"
