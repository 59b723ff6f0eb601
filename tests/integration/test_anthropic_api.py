"""Anthropic's Messages: what is asked, and llmock's server."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from llmock.scenarios import Fail, Reply, StreamFault, ToolCall
from llmock.testing import LLMockServer

from service.chat.anthropic_api import BASE_URL, Anthropic
from service.chat.provider import (
    ChatMessage,
    ChatRequest,
    Failure,
    Finished,
    FinishReason,
    ProviderFailed,
)
from service.chat.sdk import missing_sdk
from tests import llm_wire as wire
from tests.llm_clients import KEY, REQUEST, asking, collected
from tests.llm_server import LlmServer, llm_server

pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")

ANSWER = wire.whole(wire.anthropic(["Hello"]))


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with llm_server() as found:
        yield found


@pytest.fixture(scope="module")
def llmock_server() -> Iterator[LLMockServer]:
    with LLMockServer() as found:
        yield found


async def test_what_is_asked(server: LlmServer) -> None:
    messages = [
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "Hi"),
        ChatMessage("user", "Grüße"),
        ChatMessage("system", "Be kind."),
        ChatMessage("user", "!"),
        ChatMessage("assistant", "Hello"),
        ChatMessage("user", "Bye"),
    ]
    server.answer(*ANSWER)
    async with asking("anthropic", server.base) as provider:
        await collected(provider.stream(ChatRequest("m", messages, 50, temperature=1.5)))
    (asked,) = server.asked
    assert asked.path == "/v1/messages"
    assert asked.fields["authorization"] == f"Bearer {KEY}"
    assert asked.fields["x-api-key"] == KEY
    assert "anthropic-version" in asked.fields
    assert asked.body == {
        "model": "m",
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": "Hi\n\nGrüße\n\n!"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Bye"},
        ],
        "stream": True,
        "max_tokens": 50,
        "temperature": 1.0,
    }


async def test_what_is_not_said_is_not_sent(server: LlmServer) -> None:
    server.answer(*ANSWER)
    async with asking("anthropic", server.base) as provider:
        await collected(provider.stream(REQUEST))
    assert set(server.asked[0].body) == {"model", "messages", "stream", "max_tokens"}


def test_its_address_is_its_makers_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    provider = Anthropic(api_key=KEY)
    assert str(provider._client.base_url).rstrip("/") == BASE_URL
    assert not provider._learnt["m"].temperature, "its API refuses one"


def test_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_sdk("anthropic") is None
    monkeypatch.setitem(sys.modules, "anthropic", None)
    assert "pip install 'tailrace[llm]'" in (missing_sdk("anthropic") or "")
    with pytest.raises(ImportError):
        Anthropic()


async def test_llmock_answers(llmock_server: LLMockServer) -> None:
    text = "Straße 世界 " * 40
    llmock_server.state.scenarios.add(Reply(text=text))
    found, end = await _ask(llmock_server)
    assert found == text
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.STOP
    assert (end.usage.completion_tokens or 0) > 1


async def test_llmock_calls_a_tool(llmock_server: LLMockServer) -> None:
    llmock_server.state.scenarios.add(Reply(text="I look.", tool_calls=(ToolCall("f", {"a": 1}),)))
    found, end = await _ask(llmock_server)
    assert found == "I look."
    assert getattr(end, "reason", None) is FinishReason.TOOL_USE


@pytest.mark.parametrize(
    ("fault", "failure", "text"),
    [
        (Fail(401), Failure.AUTHENTICATION, ""),
        (Fail(429, retry_after=2.0), Failure.RATE_LIMITED, ""),
        (Fail(529, retry_after=2.0), Failure.UPSTREAM_UNAVAILABLE, ""),
        (Fail(400, message="prompt is too long: 9 > 8"), Failure.CONTEXT_TOO_LONG, ""),
        (StreamFault("disconnect", after_chunks=5), Failure.UPSTREAM_UNAVAILABLE, "one two "),
        (StreamFault("truncate", after_chunks=5), Failure.UPSTREAM_UNAVAILABLE, "one two "),
        (StreamFault("malformed", after_chunks=5), Failure.UNKNOWN, "one two "),
    ],
    ids=lambda value: getattr(value, "kind", getattr(value, "status", "")) if value else "",
)
async def test_llmock_fails(
    fault: Fail | StreamFault, failure: Failure, text: str, llmock_server: LLMockServer
) -> None:
    llmock_server.state.scenarios.add(fault, Reply(text="one two three four"))
    found, failed = await _ask(llmock_server)
    llmock_server.state.scenarios.clear()
    assert isinstance(failed, ProviderFailed), found
    assert (failed.failure, found) == (failure, text)
    assert failed.retry_after == getattr(fault, "retry_after", None)


async def _ask(server: LLMockServer) -> tuple[str, Finished | ProviderFailed]:
    async with asking("anthropic", f"{server.url}/anthropic") as provider:
        return await collected(provider.stream(REQUEST))
