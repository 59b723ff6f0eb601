"""POST /v1/chat/stream and what is told of a generation, as clients see it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.chatting import (
    CHAT,
    KEY,
    MORE,
    OPENING,
    WITHIN,
    answers,
    asking,
    body,
    cancel,
    chat_service,
    ends,
    gapless,
    id_of,
    path,
    send,
    shown,
    text_of,
    told,
)
from tests.clients import ask
from tests.curl import download
from tests.event_stream import events_in, names
from tests.jobs import post
from tests.llm_server import LlmServer, llm_server
from tests.llm_wire import chunked, head, token
from tests.peer import connected
from tests.serving import Served, serving
from tests.wire.problems import check_problem

LONG = "word " * 90
JSON = {"Content-Type": "application/json"}


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


def test_events_are_gapless_and_end_with_close(served: Served) -> None:
    with asking(served.base, body("one two three")) as stream:
        events = stream.rest()
        headers = stream.headers
    assert gapless(events)
    assert names(events) == ["start", *["token"] * 13, "done", "close"]
    assert text_of(events) == OPENING + "one two three"
    assert [event.data["n"] for event in events if event.name == "token"] == list(range(1, 14))
    assert (events[11].name, events[11].data) == ("progress", {"tokens": 10, "chars": 54})
    generation = headers["X-Generation-Id"]
    assert UUID(generation).version == 7
    assert events[0].data == {"id": generation, "provider": "default", "model": "echo"}
    assert events[-2].data == {
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 13},
        "tokens": 13,
        "chars": 67,
    }
    assert stream.retries == [3000]


def test_the_heads_forbid_to_keep_and_to_collect(served: Served) -> None:
    for accept, media_type in (
        ("text/event-stream", "text/event-stream"),
        ("text/plain", "text/plain"),
    ):
        answer = post(served.base, CHAT, body(), {"Accept": accept})
        assert answer.status == 200
        assert answer.headers["Content-Type"] == f"{media_type}; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Request-Id"]
        assert UUID(answer.headers["X-Generation-Id"]).version == 7


def test_curl_believes_that_the_text_is_whole(served: Served, tmp_path: Path) -> None:
    said = '{"messages":[{"role":"user","content":"Grüße, 世界"}]}'
    options = ("-H", "Content-Type: application/json", "-d", said)
    found = download(f"{served.base}{CHAT}", tmp_path, *options, "-H", "Accept: text/plain")
    assert found.exit_code() == 0
    assert found.body.decode() == f"{OPENING}Grüße, 世界"
    events = download(f"{served.base}{CHAT}", tmp_path, *options)
    assert events.exit_code() == 0
    assert text_of(events_in(events.body)) == f"{OPENING}Grüße, 世界"


def test_on_the_wire_every_event_is_whole(served: Served) -> None:
    with connected(served.base) as peer:
        send(peer, body("a\u2028b 😀\0"), "Connection: close")
        head_, _, rest = peer.read_all().partition(b"\r\n\r\n")
    assert head_.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding: chunked" in head_.lower()
    pieces = re.findall(rb"([0-9a-f]+)\r\n((?:(?!\r\n).|\n)*)\r\n", rest)
    assert all(int(size, 16) == len(data) for size, data in pieces)
    assert rest.endswith(b"\r\n0\r\n\r\n")
    # Nobody who reads lines takes the separator for the end of one.
    assert b"\\u2028" in rest
    assert text_of(events_in(b"".join(data for _, data in pieces))) == f"{OPENING}a\u2028b 😀\ufffd"


ACCEPTED = [
    ("", "text/event-stream"),
    ("*/*", "text/event-stream"),
    ("text/*", "text/event-stream"),
    ("text/event-stream", "text/event-stream"),
    ("text/plain", "text/plain"),
    ("text/plain;q=0.5, text/event-stream", "text/event-stream"),
    ("text/plain, text/event-stream;q=0.5", "text/plain"),
    ("text/plain, */*;q=0.1", "text/plain"),
    ("text/event-stream;q=0, text/*", "text/plain"),
    ("TEXT/PLAIN", "text/plain"),
    ("application/json, text/plain;q=0.2", "text/plain"),
    ("application/json", None),
    ("image/*", None),
    ("text/*;q=0", None),
    ("*/*;q=0", None),
]


@pytest.mark.parametrize(("accept", "media_type"), ACCEPTED, ids=[item[0] for item in ACCEPTED])
def test_accept_chooses(served: Served, accept: str, media_type: str | None) -> None:
    answer = post(served.base, CHAT, body(), {"Accept": accept} if accept else {})
    if media_type is None:
        check_problem(answer, 406, "not_acceptable")
    else:
        assert answer.status == 200
        assert answer.headers["Content-Type"].partition(";")[0] == media_type


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"messages": []}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ([], 422, "invalid_request"),
        (body(role="user"), 422, "invalid_request"),
        (body(model="a\0b"), 422, "invalid_request"),
        (body(max_tokens=0), 422, "invalid_request"),
        (body(provider="nobody"), 400, "invalid_parameter"),
        (body(max_tokens=8_193), 400, "invalid_parameter"),
        (body(provider="narrow", max_tokens=101), 400, "invalid_parameter"),
        (body(provider="keyless"), 503, "provider_missing"),
        (body("x" * 1_100_000), 413, "body_too_large"),
    ],
    ids=[
        "nothing said",
        "empty",
        "list",
        "unknown field",
        "NUL in a name",
        "no tokens",
        "unknown provider",
        "too many tokens",
        "too many for this one",
        "unusable",
        "too large",
    ],
)
@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain"])
def test_a_wrong_request_is_a_problem(
    served: Served, asked: Any, status: int, code: str, accept: str
) -> None:
    check_problem(post(served.base, CHAT, asked, {"Accept": accept}), status, code)


def test_what_is_not_json_is_refused(served: Served) -> None:
    form = post(served.base, CHAT, body(), {"Content-Type": "application/x-www-form-urlencoded"})
    check_problem(form, 415, form.json()["code"])
    assert ask(served.base, CHAT).status == 405


def test_providers_are_listed_without_their_secrets(served: Served, llm: LlmServer) -> None:
    answer = ask(served.base, "/v1/providers")
    found = {item["name"]: item for item in answer.json()["providers"]}
    assert list(found) == ["default", "slow", "fake", "keyless", "narrow", "impatient"]
    assert found["fake"] == {
        "name": "fake",
        "kind": "openai",
        "model": "m",
        "max_tokens": 8192,
        "usable": True,
        "missing": None,
    }
    assert (found["keyless"]["usable"], found["keyless"]["missing"]) == (
        False,
        "It needs an api_key.",
    )
    assert found["narrow"]["max_tokens"] == 100
    assert KEY.encode() not in answer.body
    assert str(llm.port).encode() not in answer.body
    assert ask(served.base, "/v1/providers", "HEAD").status == 200


def test_a_provider_is_asked_what_was_asked(served: Served, llm: LlmServer) -> None:
    answers(llm, "Hel", "lo")
    wanted = body("Hi", provider="fake", model="another", max_tokens=7, temperature=0)
    events = told(served.base, wanted)
    assert text_of(events) == "Hello"
    assert events[0].data["model"] == "another"
    assert events[-2].data["usage"] == {"prompt_tokens": 7, "completion_tokens": 5}
    asked = llm.asked[-1]
    assert asked.fields["authorization"] == f"Bearer {KEY}"
    assert asked.body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (asked.body["model"], asked.body["stream"]) == ("another", True)


@pytest.mark.parametrize(
    ("reason", "told_as"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_use"),
        ("eos", "unknown"),
    ],
)
def test_finish_reasons_have_our_names(
    served: Served, llm: LlmServer, reason: str, told_as: str
) -> None:
    llm.answer(head(), *chunked(token("openai", "a")), *ends(reason))
    events = told(served.base, body(provider="fake"))
    assert events[-2].data["finish_reason"] == told_as
    assert shown(served.base, id_of(events))["finish_reason"] == told_as


def test_a_generation_is_shown_while_it_runs_and_behind_its_end(served: Served) -> None:
    with asking(served.base, body(LONG, provider="slow", temperature=None)) as stream:
        generation = stream.headers["X-Generation-Id"]
        stream.until("progress")
        running = shown(served.base, generation)
        events = stream.rest()
    assert (running["state"], running["finished_at"]) == ("running", None)
    assert running["tokens"] >= 10
    assert running["chars"] == len(running["text"])
    assert (OPENING + LONG).startswith(running["text"])
    assert running["request"] == {
        "messages": 1,
        "max_tokens": 2048,
        "temperature": None,
        "on_disconnect": "cancel",
    }
    found = shown(served.base, generation)
    assert found["state"] == "succeeded"
    assert found["text"] == (OPENING + LONG)
    assert (found["tokens"], found["usage"]) == (
        events[-2].data["tokens"],
        events[-2].data["usage"],
    )
    times = [
        datetime.fromisoformat(found[f"{name}_at"])
        for name in ("created", "first_token", "finished")
    ]
    assert times == sorted(times)
    assert found["links"]["events"] == f"{served.base}{path(generation, '/events')}"
    head_ = ask(served.base, path(generation), "HEAD")
    assert (head_.status, head_.body) == (200, b"")
    again = ask(served.base, path(generation), headers={"If-None-Match": head_.headers["ETag"]})
    assert again.status == 304


@pytest.mark.parametrize("more", ["", "/events"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_unknown_generation_is_not_found(served: Served, more: str, method: str) -> None:
    answer = ask(served.base, path(str(uuid4()), more), method)
    assert answer.status == 404
    if method == "GET":
        check_problem(answer, 404, "not_found")
    assert ask(served.base, path("no-id", more)).status == 422
    assert cancel(served.base, str(uuid4())).json() == {"cancelled": False, "reason": "not found"}


def test_nothing_configured_is_said(module_database_url: str, tmp_path: Path) -> None:
    with serving(tmp_path, module_database_url, arguments=("--no-worker",)) as bare:
        check_problem(post(bare.base, CHAT, body()), 503, "provider_missing")
        assert ask(bare.base, "/v1/providers").json() == {"providers": []}


def test_two_requests_on_one_connection(served: Served) -> None:
    connection = http.client.HTTPConnection(served.base.removeprefix("http://"), timeout=WITHIN)
    texts = []
    for text in ("a", "b"):
        connection.request("POST", CHAT, json.dumps(body(text)), JSON | {"Accept": "text/plain"})
        with connection.getresponse() as response:
            texts.append(response.read().decode().removeprefix(OPENING))
    connection.close()
    assert texts == ["a", "b"]
