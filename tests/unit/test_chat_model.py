"""How the API shows a generation, and what may be asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from service.chat.asking import MOST_MESSAGES, ChatBody
from service.chat.model import Generation, State, describe
from service.chat.provider import ChatMessage, ChatRequest
from service.errors import InvalidParameter

BEGAN = datetime(2026, 11, 25, 3, 31, 7, 500_000, tzinfo=UTC)
RUNNING = Generation(
    id="an-id",
    owner="anonymous",
    provider="default",
    model="m",
    asked={"messages": 1},
    created_at=BEGAN,
    text="secret text",
    tokens=2,
    chars=11,
    seq=3,
)
SAID = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("state", State)
def test_only_what_runs_is_not_final(state: State) -> None:
    assert state.final == (state is not State.RUNNING)


def test_what_runs_has_neither_end_nor_usage() -> None:
    here = "http://here/v1/generations/an-id"
    assert describe(RUNNING, "http://here") == {
        "id": "an-id",
        "owner": "anonymous",
        "provider": "default",
        "model": "m",
        "request": {"messages": 1},
        "state": "running",
        "text": "secret text",
        "tokens": 2,
        "chars": 11,
        "finish_reason": None,
        "usage": None,
        "error": None,
        "created_at": "2026-11-25T03:31:07.500000Z",
        "first_token_at": None,
        "finished_at": None,
        "links": {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"},
    }


def test_what_has_ended_has_its_times() -> None:
    ended = Generation(
        **{name: getattr(RUNNING, name) for name in RUNNING.__slots__}
        | {
            "state": State.FAILED,
            "error": {"code": "timeout"},
            "first_token_at": BEGAN + timedelta(seconds=1),
            "finished_at": BEGAN + timedelta(seconds=2),
        }
    )
    shown = describe(ended, "")
    assert (shown["state"], shown["error"]) == ("failed", {"code": "timeout"})
    assert shown["first_token_at"] == "2026-11-25T03:31:08.500000Z"
    assert shown["finished_at"] == "2026-11-25T03:31:09.500000Z"


def test_what_it_says_is_in_no_log() -> None:
    assert "secret text" not in repr(RUNNING)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ChatRequest("its model", [ChatMessage("user", "Hi")], 2048, 0.7)),
        (
            {"model": "another", "max_tokens": 1, "temperature": None},
            ChatRequest("another", [ChatMessage("user", "Hi")], 1, None),
        ),
        (
            {"messages": [{"role": "system", "content": ""}, *SAID]},
            ChatRequest(
                "its model", [ChatMessage("system", ""), ChatMessage("user", "Hi")], 2048, 0.7
            ),
        ),
    ],
    ids=["least", "all", "system"],
)
def test_what_a_provider_is_asked(given: dict[str, Any], expected: ChatRequest) -> None:
    body = ChatBody.model_validate({"messages": SAID, **given})
    assert body.request("its model", 8192) == expected


def test_more_tokens_than_a_provider_may_give_are_refused() -> None:
    body = ChatBody.model_validate({"messages": SAID, "max_tokens": 11})
    assert body.request("m", 11).max_tokens == 11
    with pytest.raises(InvalidParameter, match="max_tokens: this provider gives at most 10"):
        body.request("m", 10)


def test_who_names_no_number_gets_what_the_provider_gives() -> None:
    body = ChatBody.model_validate({"messages": SAID})
    assert body.request("m", 100).max_tokens == 100
    assert body.request("m", 1_000_000).max_tokens == 2048


def test_what_was_said_is_not_kept() -> None:
    body = ChatBody.model_validate({"messages": SAID, "on_disconnect": "continue"})
    assert body.shown() == {
        "messages": 1,
        "max_tokens": 2048,
        "temperature": 0.7,
        "on_disconnect": "continue",
    }


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"messages": []}, ("messages",)),
        ({"messages": SAID * (MOST_MESSAGES + 1)}, ("messages",)),
        ({"messages": [{"role": "tool", "content": ""}]}, ("messages", 0, "role")),
        ({"messages": [{"role": "user", "content": None}]}, ("messages", 0, "content")),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            ("messages", 0, "content"),
        ),
        ({"messages": [{"role": "user"}]}, ("messages", 0, "content")),
        ({"max_tokens": 0}, ("max_tokens",)),
        ({"temperature": 2.1}, ("temperature",)),
        ({"temperature": float("nan")}, ("temperature",)),
        ({"model": ""}, ("model",)),
        ({"model": "x" * 201}, ("model",)),
        ({"model": "a\0b"}, ("model",)),
        ({"model": "a\n"}, ("model",)),
        ({"model": "\ud800"}, ("model",)),
        ({"provider": ""}, ("provider",)),
        ({"provider": "a\x7f"}, ("provider",)),
        ({"on_disconnect": "stay"}, ("on_disconnect",)),
        ({"stream": True}, ("stream",)),
    ],
    ids=[
        "no messages",
        "too many messages",
        "role",
        "no text",
        "parts",
        "nothing said",
        "no tokens",
        "too hot",
        "not a number",
        "empty model",
        "long model",
        "NUL in the model",
        "line in the model",
        "half a character in the model",
        "empty provider",
        "control in the provider",
        "on_disconnect",
        "unknown",
    ],
)
def test_each_mistake_has_its_place(given: dict[str, Any], place: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatBody.model_validate({"messages": SAID, **given})
    first, *_ = caught.value.errors(include_input=False)
    assert first["loc"] == place
