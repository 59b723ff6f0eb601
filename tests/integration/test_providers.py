"""The providers' SDKs against a server of raw bytes: every API alike."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.chat.provider import (
    ChatMessage,
    ChatRequest,
    Delta,
    Failure,
    Finished,
    FinishReason,
    Piece,
    ProviderFailed,
)
from tests import llm_wire as wire
from tests.llm_clients import KEY, REQUEST, asking, collected
from tests.llm_server import End, LlmServer, Step, llm_server
from tests.llm_wire import APIS, LAST_CHUNK, TRANSCRIPTS, Api, Transcript, chunked, head
from tests.waiting import eventually

# Closing is what is tested here, so that what is left open is no accident of somebody else.
pytestmark = pytest.mark.filterwarnings("error::ResourceWarning")

WITHIN = 5.0  # seconds: a server that has not heard of the end by then never will

each_api = pytest.mark.parametrize("api", APIS)


@pytest.fixture(scope="module", autouse=True)
def _collected_here() -> Iterator[None]:
    """What is left to the garbage collector warns now, and not in another module."""
    yield
    gc.collect()


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with llm_server() as found:
        yield found


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda each: each.name)
async def test_transcripts(transcript: Transcript, server: LlmServer) -> None:
    server.answer(*wire.whole(transcript.body))
    async with asking(transcript.api, server.base) as provider:
        text, end = await collected(provider.stream(REQUEST))
    assert text == transcript.text
    if isinstance(end, ProviderFailed):
        assert end.failure is transcript.failure, end.detail
    else:
        assert (None, end) == (transcript.failure, Finished(transcript.reason, transcript.usage))


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda each: each.name)
async def test_transcripts_byte_by_byte(transcript: Transcript, server: LlmServer) -> None:
    pieces = [bytes([byte]) for byte in transcript.body]
    server.answer(head(), b"".join(chunked(*pieces)), LAST_CHUNK)
    async with asking(transcript.api, server.base) as provider:
        text, end = await collected(provider.stream(REQUEST))
    assert text == transcript.text
    assert getattr(end, "failure", None) is transcript.failure


@each_api
@given(
    texts=st.lists(st.text(), max_size=6),
    cuts=st.lists(st.integers(0, 2_000), max_size=12),
    segments=st.integers(1, 50),
)
@example(texts=[wire.TEXT], cuts=list(range(2_000)), segments=1)
@settings(max_examples=40, deadline=None)
def test_any_text_in_any_pieces(api: Api, texts: list[str], cuts: list[int], segments: int) -> None:
    body = wire.usual(api, texts)
    sent = b"".join([head(), *chunked(*_cut(body, cuts)), LAST_CHUNK])
    steps = [sent[start : start + segments * 20] for start in range(0, len(sent), segments * 20)]

    async def ask(server: LlmServer) -> tuple[str, Finished | ProviderFailed]:
        async with asking(api, server.base) as provider:
            return await collected(provider.stream(REQUEST))

    with llm_server() as server:
        server.answer(*steps)
        assert asyncio.run(ask(server)) == (
            "".join(texts),
            Finished(FinishReason.STOP, wire.COUNTED),
        )


@each_api
async def test_tokens_come_when_they_are_sent(api: Api, server: LlmServer) -> None:
    server.answer(head(), *chunked(wire.opening(api), wire.token(api, "Hi")), End.STALL)
    async with (
        asking(api, server.base) as provider,
        aclosing(provider.stream(REQUEST)) as pieces,
        asyncio.timeout(WITHIN),
    ):
        assert await anext(pieces) == Delta("Hi")


@each_api
async def test_a_connection_is_used_again(api: Api, server: LlmServer) -> None:
    async with asking(api, server.base) as provider:
        for _ in range(3):
            server.answer(*wire.whole(wire.usual(api, ["a"])))
            assert (await collected(provider.stream(REQUEST)))[0] == "a"
    assert len(server.connections) == 1


@each_api
async def test_answers_at_once_keep_apart(api: Api, server: LlmServer) -> None:
    texts = ["a", "b", "c"]
    for text in texts:
        server.answer(*wire.whole(wire.usual(api, [text] * 50)))
    async with asking(api, server.base) as provider:
        found = await asyncio.gather(*(collected(provider.stream(REQUEST)) for _ in texts))
    assert sorted(text for text, _ in found) == [text * 50 for text in texts]


# Where a provider stalls: what it has sent by then, and the text that has come of it.
def _phases(api: Api) -> dict[str, tuple[list[bytes], str]]:
    opening, token = wire.opening(api), wire.token(api, "Hi")
    return {
        "before the head": ([], ""),
        "in the head": ([head()[:20]], ""),
        "after the head": ([head()], ""),
        "before the first token": ([head(), *chunked(opening)], ""),
        "in the first token": ([head(), *chunked(opening, token[:-9])], ""),
        "after a token": ([head(), *chunked(opening, token)], "Hi"),
        "in the second token": ([head(), *chunked(opening, token, token[:-9])], "Hi"),
        "in a chunk": ([head(), *chunked(opening, token), b"1000\r\ndata"], "Hi"),
        "among comments": ([head(), *chunked(opening, token, wire.KEEP_ALIVE * 3)], "Hi"),
        "in an error's body": ([head(500), b"10\r\n{"], ""),
    }


PHASES = list(_phases("openai"))


@each_api
@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancelled_task_closes_the_connection(
    api: Api, phase: str, server: LlmServer
) -> None:
    steps, text = _phases(api)[phase]
    async with _stalled(api, server, steps, text) as (pieces, waiting):
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await _closed(server)
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


@each_api
@pytest.mark.parametrize("phase", ["after a token", "in the second token", "in a chunk"])
async def test_a_closed_stream_closes_the_connection(
    api: Api, phase: str, server: LlmServer
) -> None:
    steps, _ = _phases(api)[phase]
    server.answer(*steps, End.STALL)
    async with asking(api, server.base) as provider:
        pieces = provider.stream(REQUEST)
        assert await anext(pieces) == Delta("Hi")
        await pieces.aclose()
        await _closed(server)


@each_api
async def test_a_deadline_closes_the_connection(api: Api, server: LlmServer) -> None:
    server.answer(End.STALL)
    async with asking(api, server.base) as provider:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await collected(provider.stream(REQUEST))
        await _closed(server)


@each_api
async def test_a_handshake_can_be_cancelled(api: Api, server: LlmServer) -> None:
    """The server takes TLS's first message for the beginning of a head, and waits for its end."""
    async with asking(api, server.base.replace("http:", "https:")) as provider:
        waiting = asyncio.create_task(collected(provider.stream(REQUEST)))
        await eventually(_connected(server), within=WITHIN, what="a connection")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await _closed(server)


@each_api
@pytest.mark.parametrize("end", [End.FIN, End.RST])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_connection_that_ends_is_a_failure(
    api: Api, phase: str, end: End, server: LlmServer
) -> None:
    steps, text = _phases(api)[phase]
    server.answer(*steps, end)
    async with asking(api, server.base) as provider:
        told, failed = await collected(provider.stream(REQUEST))
    assert told == text
    assert isinstance(failed, ProviderFailed)
    assert (failed.failure, failed.retry) == (Failure.UPSTREAM_UNAVAILABLE, True)


@each_api
@pytest.mark.parametrize("end", [End.FIN, End.RST])
async def test_an_answer_with_its_reason_is_whole(api: Api, end: End, server: LlmServer) -> None:
    """The connection breaks behind it."""
    usual = wire.usual(api, ["Hello"])
    last = {"openai": b"data: [DONE]", "anthropic": b"event: message_stop"}[api]
    server.answer(head(), *chunked(usual[: usual.index(last)]), end)
    async with asking(api, server.base) as provider:
        assert await collected(provider.stream(REQUEST)) == (
            "Hello",
            Finished(FinishReason.STOP, wire.COUNTED),
        )


@each_api
async def test_nobody_listens(api: Api) -> None:
    with llm_server() as server:
        base = server.base
    async with asking(api, base) as provider:
        _, failed = await collected(provider.stream(REQUEST))
    assert isinstance(failed, ProviderFailed)
    assert failed.failure is Failure.UPSTREAM_UNAVAILABLE
    assert failed.detail == "The provider cannot be reached."


@each_api
async def test_an_error_is_told_with_its_pause(api: Api, server: LlmServer) -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": f"No {KEY}. More."}}
    server.answer(*wire.error(429, body, retry_after="7"))
    async with asking(api, server.base) as provider:
        _, failed = await collected(provider.stream(REQUEST))
    assert isinstance(failed, ProviderFailed)
    assert failed.failure is Failure.RATE_LIMITED
    assert (failed.retry, failed.retry_after) == (True, 7.0)
    assert failed.detail == ("The provider limits how often it is asked. It says: No [masked].")
    assert len(server.asked) == 1, "it is not for the provider to ask again"


@each_api
async def test_an_error_in_the_stream_is_told(api: Api, server: LlmServer) -> None:
    told = {"message": f"Overloaded by {KEY}.", "type": "overloaded_error"}
    event = {"openai": wire.data({"error": told}), "anthropic": wire.event("error", error=told)}
    server.answer(*wire.whole(wire.opening(api) + wire.token(api, "Hi") + event[api]))
    async with asking(api, server.base) as provider:
        text, failed = await collected(provider.stream(REQUEST))
    assert text == "Hi"
    assert isinstance(failed, ProviderFailed)
    assert failed.detail == (
        "The provider is overloaded or out of order. It says: Overloaded by [masked]."
    )


@each_api
async def test_a_redirect_is_not_followed(api: Api, server: LlmServer) -> None:
    server.answer(*wire.error(307, {}, location=f"{server.base}/elsewhere"))
    async with asking(api, server.base) as provider:
        _, failed = await collected(provider.stream(REQUEST))
    assert getattr(failed, "failure", None) is Failure.UNKNOWN
    assert len(server.asked) == 1


@each_api
async def test_the_environment_has_no_say(
    api: Api, server: LlmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_API_KEY", "wrong-key")
        monkeypatch.setenv(f"{name}_AUTH_TOKEN", "wrong-token")
        monkeypatch.setenv(f"{name}_BASE_URL", "http://127.0.0.1:1")
        monkeypatch.setenv(f"{name}_CUSTOM_HEADERS", "X-Secret: s\nCookie: c")
        monkeypatch.setenv(f"{name}_ORG_ID", "org-1")
        monkeypatch.setenv(f"{name}_PROJECT_ID", "p-1")
        monkeypatch.setenv(f"{name}_ADMIN_KEY", "wrong-admin")
    for scheme in ("HTTP", "HTTPS", "ALL"):
        monkeypatch.setenv(f"{scheme}_PROXY", "http://127.0.0.1:1")
    for key in (KEY, None):
        server.answer(*wire.whole(wire.usual(api, ["a"])))
        async with asking(api, server.base, key) as provider:
            assert (await collected(provider.stream(REQUEST)))[0] == "a"
    with_key, without = (asked.fields for asked in server.asked)
    credentials = {"authorization", "x-api-key"}
    own = {name: value for name, value in with_key.items() if name in credentials}
    assert {value.removeprefix("Bearer ") for value in own.values()} == {KEY}
    assert not credentials & set(without)
    assert set(without) <= {
        "accept",
        "accept-encoding",
        "anthropic-version",
        "connection",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    }
    assert without["accept-encoding"] == "identity"


@each_api
async def test_a_cookie_is_not_sent_back(api: Api, server: LlmServer) -> None:
    async with asking(api, server.base) as provider:
        for _ in range(2):
            body = wire.usual(api, ["a"])
            server.answer(head(set_cookie="a=b"), *chunked(body), LAST_CHUNK)
            await collected(provider.stream(REQUEST))
    assert "cookie" not in server.asked[1].fields


@each_api
async def test_a_refused_temperature_is_left_out(api: Api, server: LlmServer) -> None:
    refusal = {"error": {"message": "'temperature' does not support 0.5 with this model."}}
    warm = ChatRequest("m", [ChatMessage("user", "Hi")], max_tokens=5, temperature=0.5)
    async with asking(api, server.base) as provider:
        for steps in [wire.error(400, refusal), *[wire.whole(wire.usual(api, ["a"]))] * 2]:
            server.answer(*steps)
        for _ in range(2):
            assert (await collected(provider.stream(warm)))[0] == "a"
    assert [asked.body.get("temperature") for asked in server.asked] == [0.5, None, None]


@asynccontextmanager
async def _stalled(
    api: Api, server: LlmServer, steps: Sequence[Step], text: str
) -> AsyncIterator[tuple[AsyncGenerator[Piece, None], asyncio.Task[Piece]]]:
    """A stream of which ``text`` has come, and somebody who waits for what never does."""
    server.answer(*steps, End.STALL)
    async with asking(api, server.base) as provider, aclosing(provider.stream(REQUEST)) as pieces:
        if text:
            assert await anext(pieces) == Delta(text)
        waiting = asyncio.create_task(_next(pieces))
        assert await asyncio.to_thread(server.sent.wait, WITHIN)
        yield pieces, waiting


async def _next(pieces: AsyncGenerator[Piece, None]) -> Piece:
    return await anext(pieces)


def _connected(server: LlmServer) -> Callable[[], Awaitable[object]]:
    async def connected() -> bool:
        return bool(server.connections)

    return connected


async def _closed(server: LlmServer) -> None:
    """Asserts that the server saw its connection closed."""
    (connection,) = server.connections
    assert await asyncio.to_thread(connection.closed.wait, WITHIN)


def _cut(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    return [body[a:b] for a, b in pairwise(places)]
