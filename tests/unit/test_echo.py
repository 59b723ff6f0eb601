"""The stand-in: plain answers, in words, and scripts for other tests."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.chat.echo import OPENING, Echo, tokens
from service.chat.provider import (
    ChatMessage,
    ChatRequest,
    Delta,
    Failure,
    Finished,
    FinishReason,
    Piece,
    Provider,
    ProviderFailed,
    Usage,
)


async def _pieces(provider: Provider, request: ChatRequest) -> list[Piece]:
    return [piece async for piece in provider.stream(request)]


def _asking(*contents: str, max_tokens: int = 1_000) -> ChatRequest:
    messages = [ChatMessage("user", content) for content in contents]
    return ChatRequest("echo", messages, max_tokens)


def _text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta))


async def test_it_repeats_what_the_user_said_last() -> None:
    request = ChatRequest(
        "echo",
        [
            ChatMessage("system", "Be brief."),
            ChatMessage("user", "one"),
            ChatMessage("assistant", "two"),
            ChatMessage("user", "three  four\n"),
            ChatMessage("assistant", "five"),
        ],
        max_tokens=100,
    )
    pieces = await _pieces(Echo(), request)
    opening = len(tokens(OPENING))
    assert _text(pieces) == f"{OPENING}three  four\n"
    assert len(pieces) == opening + 2 + 1
    assert pieces[-1] == Finished(FinishReason.STOP, Usage(7, opening + 2))
    assert pieces == await _pieces(Echo(), request)


@pytest.mark.parametrize("messages", [(), ("",)])
async def test_nothing_was_said(messages: tuple[str, ...]) -> None:
    pieces = await _pieces(Echo(), _asking(*messages))
    assert _text(pieces) == OPENING


@given(st.text())
def test_tokens_are_the_text(text: str) -> None:
    found = tokens(text)
    assert "".join(found) == text
    assert all(found)
    assert all(len(token.split()) <= 1 for token in found)


@given(st.text(max_size=50), st.integers(1, 30))
def test_it_ends_at_the_limit(text: str, most: int) -> None:
    pieces = asyncio.run(_pieces(Echo(), _asking(text, max_tokens=most)))
    whole = tokens(OPENING + text)
    *deltas, end = pieces
    assert deltas == [Delta(token) for token in whole[:most]]
    assert isinstance(end, Finished)
    assert end.reason is (FinishReason.STOP if len(whole) <= most else FinishReason.LENGTH)
    assert end.usage.completion_tokens == len(deltas)


async def test_others_have_their_turn_between_tokens() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    pieces = await _pieces(Echo(), _asking("a b c"))
    counting.cancel()
    assert turns >= len(pieces) - 1


async def test_the_pace_is_before_each_token() -> None:
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(delay: float, *args: object, **kwargs: object) -> asyncio.TimerHandle:
        waits.append(delay)
        return call_later(0, *args, **kwargs)  # type: ignore[arg-type]

    loop.call_later = noted  # type: ignore[method-assign] # a clock that does not have to be waited for
    pieces = await _pieces(Echo(pace=30.0), _asking("a"))
    assert waits == [30.0] * (len(pieces) - 1)


async def test_it_can_be_stopped_while_it_waits() -> None:
    stream = Echo(pace=3_600.0).stream(_asking("a"))
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_script_is_played_each_time() -> None:
    failed = ProviderFailed(Failure.TIMEOUT, "Late.", retry=True)
    provider = Echo(script=[Delta("a"), 0.001, 0, Delta("b"), failed])
    for _ in range(2):
        stream = provider.stream(_asking("ignored"))
        assert [await anext(stream), await anext(stream)] == [Delta("a"), Delta("b")]
        with pytest.raises(ProviderFailed) as raised:
            await anext(stream)
        assert raised.value is failed
    await provider.close()
