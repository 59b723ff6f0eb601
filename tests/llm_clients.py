"""The providers under test, and what comes of asking them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from service.chat.anthropic_api import Anthropic
from service.chat.openai_api import OpenAI
from service.chat.provider import ChatMessage, ChatRequest, Delta, Finished, Piece, ProviderFailed
from service.download.transport import trusting
from tests.llm_wire import Api

KEY = "sk-test-0123456789"
TRUST = trusting(None)  # made once, since it takes 30 ms
REQUEST = ChatRequest("m", [ChatMessage("user", "Hi")], max_tokens=50)


@asynccontextmanager
async def asking(api: Api, base: str, key: str | None = KEY) -> AsyncIterator[OpenAI | Anthropic]:
    """A provider of this API at ``base``, a server without a path."""
    if api == "openai":
        provider: OpenAI | Anthropic = OpenAI(f"{base}/v1", key, trust=TRUST)
    else:
        provider = Anthropic(base, key, trust=TRUST)
    try:
        yield provider
    finally:
        await provider.close()


async def collected(
    stream: AsyncGenerator[Piece, None],
) -> tuple[str, Finished | ProviderFailed]:
    """The text and the end; asserts that the end is the last of it."""
    texts, end = [], None
    async with aclosing(stream) as pieces:
        try:
            async for piece in pieces:
                assert end is None
                if isinstance(piece, Delta):
                    assert piece.text
                    texts.append(piece.text)
                else:
                    end = piece
        except ProviderFailed as failed:
            return "".join(texts), failed
    assert end is not None
    return "".join(texts), end
