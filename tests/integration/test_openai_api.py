"""Chat completions: what is asked, in which parameters, and llmock's server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest
from llmock.scenarios import Fail, Match, Reply, StreamFault, ToolCall
from llmock.testing import LLMockServer

from service.chat.openai_api import BASE_URL, OpenAI
from service.chat.provider import (
    ChatMessage,
    ChatRequest,
    Delta,
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

USE_THE_OTHER = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    }
}
NO_OPTIONS = {
    "detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Forbidden"}]
}
ANSWER = wire.whole(wire.openai(["Hello"]))


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
    ]
    server.answer(*ANSWER)
    async with asking("openai", server.base) as provider:
        await collected(provider.stream(ChatRequest("m", messages, 50, temperature=1.5)))
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.fields["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "user", "content": "Grüße"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 50,
        "temperature": 1.5,
    }


async def test_parameters_that_are_refused(server: LlmServer) -> None:
    server.answer(*wire.error(400, USE_THE_OTHER))
    server.answer(*wire.error(422, NO_OPTIONS))
    for _ in range(2):
        server.answer(*ANSWER)
    async with asking("openai", server.base) as provider:
        for _ in range(2):
            assert (await collected(provider.stream(REQUEST)))[0] == "Hello"
    sent = [set(asked.body) - {"model", "messages", "stream"} for asked in server.asked]
    assert sent == [
        {"max_tokens", "stream_options"},
        {"max_completion_tokens", "stream_options"},
        {"max_completion_tokens"},
        {"max_completion_tokens"},
    ]


async def test_a_server_that_refuses_everything_is_not_asked_for_ever(server: LlmServer) -> None:
    for _ in range(9):
        server.answer(*wire.error(400, {"error": {"message": f"{USE_THE_OTHER} {NO_OPTIONS}"}}))
    async with asking("openai", server.base) as provider:
        _, failed = await collected(provider.stream(REQUEST))
    assert getattr(failed, "failure", None) is Failure.UNKNOWN
    assert len(server.asked) == 3


async def test_an_error_that_repeats_the_prompt_teaches_nothing(server: LlmServer) -> None:
    prompt = "max_completion_tokens stream_options temperature"
    for _ in range(4):
        server.answer(*wire.error(422, {"detail": [{"msg": "Bad role", "input": prompt}]}))
    server.answer(*ANSWER)
    async with asking("openai", server.base) as provider:
        request = ChatRequest("m", [ChatMessage("user", prompt)], 50, temperature=1.5)
        _, failed = await collected(provider.stream(request))
        assert getattr(failed, "failure", None) is Failure.UNKNOWN
        assert (await collected(provider.stream(REQUEST)))[0] == "Hello"
    assert "max_tokens" in server.asked[-1].body


async def test_asked_at_once_and_refused(server: LlmServer) -> None:
    for _ in range(2):
        server.answer(0.2, *wire.error(400, NO_OPTIONS))
    for _ in range(2):
        server.answer(*ANSWER)
    async with asking("openai", server.base) as provider:
        found = await asyncio.gather(*(collected(provider.stream(REQUEST)) for _ in range(2)))
    assert [text for text, _ in found] == ["Hello", "Hello"]


def test_its_address_is_its_makers_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    assert str(OpenAI()._client.base_url) == f"{BASE_URL}/"


def test_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_sdk("openai") is None
    assert missing_sdk("echo") is None
    monkeypatch.setitem(sys.modules, "openai", None)
    assert "pip install 'tailrace[llm]'" in (missing_sdk("openai") or "")
    with pytest.raises(ImportError):
        OpenAI()


async def test_llmock_answers(llmock_server: LLMockServer) -> None:
    text = "Straße 世界 " * 40
    llmock_server.state.scenarios.add(Reply(text=text))
    found, end = await _ask(llmock_server)
    assert found == text
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.STOP
    assert (end.usage.prompt_tokens or 0) >= 0
    assert (end.usage.completion_tokens or 0) > 0


async def test_llmock_calls_a_tool(llmock_server: LLMockServer) -> None:
    llmock_server.state.scenarios.add(Reply(text="I look.", tool_calls=(ToolCall("f", {"a": 1}),)))
    found, end = await _ask(llmock_server)
    assert found == "I look."
    assert getattr(end, "reason", None) is FinishReason.TOOL_USE


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fail(401), Failure.AUTHENTICATION),
        (Fail(429, retry_after=2.0), Failure.RATE_LIMITED),
        (Fail(503, retry_after=2.0), Failure.UPSTREAM_UNAVAILABLE),
        (Fail(400, code="context_length_exceeded"), Failure.CONTEXT_TOO_LONG),
        (StreamFault("disconnect", after_chunks=3), Failure.UPSTREAM_UNAVAILABLE),
        (StreamFault("truncate", after_chunks=3), Failure.UPSTREAM_UNAVAILABLE),
        (StreamFault("malformed", after_chunks=3), Failure.UNKNOWN),
    ],
    ids=lambda value: getattr(value, "kind", getattr(value, "status", "")) if value else "",
)
async def test_llmock_fails(
    fault: Fail | StreamFault, failure: Failure, llmock_server: LLMockServer
) -> None:
    llmock_server.state.scenarios.add(fault, Reply(text="one two three four", match=Match()))
    found, failed = await _ask(llmock_server)
    llmock_server.state.scenarios.clear()
    assert isinstance(failed, ProviderFailed), found
    assert failed.failure is failure
    assert failed.retry_after == getattr(fault, "retry_after", None)
    assert found == ("one two " if isinstance(fault, StreamFault) else "")


async def test_llmock_stalls(llmock_server: LLMockServer) -> None:
    llmock_server.state.scenarios.add(
        StreamFault("stall", after_chunks=2, stall_seconds=60.0), Reply(text="one two")
    )
    async with asking("openai", llmock_server.url) as provider:
        stream = provider.stream(REQUEST)
        assert await anext(stream) == Delta("one ")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(stream)
    records = await asyncio.to_thread(llmock_server.state.journal.records, wait=5.0)
    record = records[-1]
    assert record.fault == "stream:stall@2"
    assert record.stall_waited is not None
    assert record.stall_waited < 30.0


async def _ask(server: LLMockServer) -> tuple[str, Finished | ProviderFailed]:
    async with asking("openai", server.url) as provider:
        return await collected(provider.stream(REQUEST))
