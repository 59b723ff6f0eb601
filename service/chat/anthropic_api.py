"""Anthropic's Messages, through its SDK."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from service.chat.answer import Answer, pieces
from service.chat.parameters import Learnt, Parameters
from service.chat.provider import ChatMessage, ChatRequest, FinishReason, Piece
from service.chat.sdk import NO_KEY, http_client

if TYPE_CHECKING:
    from anthropic import AsyncMessageStream
    from anthropic.lib.streaming import ParsedMessageStreamEvent

BASE_URL = "https://api.anthropic.com"
HOTTEST = 1.0  # the highest temperature of this API; that of the other is 2
BETWEEN = "\n\n"  # what parts those that are made one
REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_USE,
    "refusal": FinishReason.CONTENT_FILTER,
}


class Anthropic:
    """Asks ``base_url``, None for Anthropic itself; without an ``api_key`` none is sent.

    Raises ImportError where the SDK is missing, of which ``missing_sdk`` tells.
    """

    kind = "anthropic"

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        import anthropic

        self._sdk = anthropic
        self._key = api_key
        # The API refuses one (since its version 2026-10-21); others that speak it take it.
        self._learnt = Learnt(Parameters(temperature=base_url is not None))
        self._client = anthropic.AsyncAnthropic(
            base_url=base_url or BASE_URL,
            api_key=api_key or NO_KEY,
            http_client=http_client(api_key, trust),
            max_retries=0,
            timeout=None,
            open_telemetry=False,
            # The SDK sends Authorization, which servers made for its earlier versions do not read.
            default_headers={"X-Api-Key": api_key} if base_url and api_key else None,
        )

    def stream(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        answer = Answer()
        return pieces(answer, self._texts(request, answer), self._sdk, self._key)

    async def close(self) -> None:
        await self._client.close()

    async def _texts(self, request: ChatRequest, answer: Answer) -> AsyncGenerator[str, None]:
        stream = await self._learnt.until_taken(
            request.model, self._sdk.APIStatusError, partial(self._asked, request)
        )
        try:
            async for event in stream:
                yield _text(event, answer)
        finally:
            await stream.close()

    async def _asked(self, request: ChatRequest, sent: Parameters) -> AsyncMessageStream[None]:
        # Who gets the stream closes it.
        return await self._client.messages.stream(**_arguments(request, sent)).__aenter__()


def _arguments(request: ChatRequest, parameters: Parameters) -> dict[str, Any]:
    """System messages, wherever they stand, go first; consecutive ones of a role become one."""
    system = [turn.content for turn in request.messages if turn.role == "system"]
    turns = (turn for turn in request.messages if turn.role != "system")
    arguments: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": list(_alternating(turns)),
    }
    if system:
        arguments["system"] = BETWEEN.join(system)
    if parameters.temperature and request.temperature is not None:
        # It is no argument of the SDK any more.
        arguments["extra_body"] = {"temperature": min(request.temperature, HOTTEST)}
    return arguments


def _alternating(turns: Iterable[ChatMessage]) -> Iterable[dict[str, str]]:
    for role, group in groupby(turns, key=lambda turn: turn.role):
        yield {"role": role, "content": BETWEEN.join(turn.content for turn in group)}


def _text(event: ParsedMessageStreamEvent[None], answer: Answer) -> str:
    """The text in ``event``; the rest of it is noted in ``answer``."""
    if event.type == "message_start":
        answer.count(event.message.usage.input_tokens, event.message.usage.output_tokens)
    elif event.type == "message_delta":
        answer.count(event.usage.input_tokens, event.usage.output_tokens)
        if event.delta.stop_reason:
            answer.reason = REASONS.get(event.delta.stop_reason, FinishReason.UNKNOWN)
    elif event.type == "message_stop":
        answer.ended = True
    elif event.type == "content_block_delta" and event.delta.type == "text_delta":
        return event.delta.text
    elif event.type == "content_block_start" and event.content_block.type == "text":
        return event.content_block.text
    return ""
