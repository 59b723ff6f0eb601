"""Chat completions, as OpenAI, vLLM, Ollama, llama.cpp and many others offer them."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import httpx2

from service.chat.answer import Answer, pieces
from service.chat.parameters import Learnt, Parameters
from service.chat.provider import ChatRequest, FinishReason, Piece
from service.chat.sdk import NO_KEY, http_client

if TYPE_CHECKING:
    from openai import AsyncStream
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import Choice, ChoiceDelta

BASE_URL = "https://api.openai.com/v1"
DONE = re.compile(rb"[\r\n]data: ?\[DONE\]")
DONE_LENGTH = 13  # bytes
REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_USE,
    "function_call": FinishReason.TOOL_USE,
}


class OpenAI:
    """Asks ``base_url``, None for OpenAI itself; without an ``api_key`` none is sent.

    Raises ImportError where the SDK is missing, of which ``missing_sdk`` tells.
    """

    kind = "openai"

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        import openai

        self._sdk = openai
        self._key = api_key
        self._learnt = Learnt()
        self._client = openai.AsyncOpenAI(
            base_url=base_url or BASE_URL,
            api_key=api_key or NO_KEY,
            http_client=http_client(api_key, trust),
            max_retries=0,
            timeout=None,
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
        passing = stream.response.stream = Passing(stream.response.stream)
        async with aclosing(stream):
            async for chunk in stream:
                yield self._text(chunk, answer)
        answer.ended = passing.done

    async def _asked(
        self, request: ChatRequest, sent: Parameters
    ) -> AsyncStream[ChatCompletionChunk]:
        create = cast(Any, self._client.chat.completions.create)
        messages = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        stream = await create(
            model=request.model, messages=messages, stream=True, **sent.of(request)
        )
        return cast("AsyncStream[ChatCompletionChunk]", stream)

    def _text(self, chunk: ChatCompletionChunk, answer: Answer) -> str:
        """The text in ``chunk``; the rest of it is noted in ``answer``."""
        if getattr(chunk, "object", None) == "error":
            # vLLM's older way; of the usual one the SDK makes this error itself.
            raise self._sdk.APIError(
                "error", httpx2.Request("POST", self._client.base_url), body=chunk.to_dict()
            )
        if chunk.usage is not None:
            answer.count(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        # Only what was asked for; servers may leave out the number.
        choices = [choice for choice in chunk.choices or () if not choice.index]
        return "".join(_chosen(choice, answer) for choice in choices)


class Passing(httpx2.AsyncByteStream):
    """Bytes on their way to the SDK, which does not tell whether the last event was ``[DONE]``."""

    def __init__(self, stream: Any) -> None:
        self.done = False
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = b"\n"
        async with aclosing(aiter(self._stream)) as blocks:
            async for block in blocks:
                seen = seen[-DONE_LENGTH:] + block
                self.done = self.done or DONE.search(seen) is not None
                yield block

    async def aclose(self) -> None:
        await self._stream.aclose()


def _chosen(choice: Choice, answer: Answer) -> str:
    delta = cast("ChoiceDelta | None", choice.delta)
    if choice.finish_reason:
        answer.reason = REASONS.get(choice.finish_reason, FinishReason.UNKNOWN)
    if delta is None:
        return ""
    text = _plain(delta.content)
    if delta.refusal:
        answer.refused = True
        return text + delta.refusal
    return text


def _plain(content: object) -> str:
    """Text; of a list of parts (Mistral's models that reason) that of the parts that are text."""
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, Mapping))
        return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    return content if isinstance(content, str) else ""
