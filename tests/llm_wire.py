"""What providers of language models send, byte for byte, and what is to come of it.

Everything stands in the shape that it has on the wire; ``TRANSCRIPTS`` are bodies of answers with
status 200, each with the text, the reason and the usage that a client should get from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from service.chat.provider import Failure, FinishReason, Usage

Api = Literal["openai", "anthropic"]
APIS: tuple[Api, ...] = ("openai", "anthropic")

EVENT_STREAM = "text/event-stream; charset=utf-8"
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
TEXT = 'Grüße, 世界! 👩‍👩‍👧 a\u2028b\r\n\tdata: [DONE] \\ "\x7f'


@dataclass(frozen=True, slots=True)
class Transcript:
    """``failure`` where no answer comes of it; ``text`` is what has come by then."""

    name: str
    api: Api
    body: bytes
    text: str = ""
    reason: FinishReason = FinishReason.STOP
    usage: Usage = field(default_factory=Usage)
    failure: Failure | None = None


def head(status: int = 200, media_type: str = EVENT_STREAM, **fields: str) -> bytes:
    """The head of an answer in chunks; ``retry_after="3"`` is the field retry-after."""
    lines = [
        f"HTTP/1.1 {status} Status",
        f"Content-Type: {media_type}",
        "Transfer-Encoding: chunked",
        *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def chunked(*pieces: bytes) -> list[bytes]:
    """Each piece a chunk (RFC 9112, section 7.1), without the last one."""
    return [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]


LAST_CHUNK = b"0\r\n\r\n"


def whole(body: bytes) -> list[bytes]:
    return [head(), *chunked(body), LAST_CHUNK]


def error(status: int, body: Any, **fields: str) -> list[bytes]:
    """An answer that is an error in JSON."""
    return [
        head(status, "application/json", **fields),
        *chunked(json.dumps(body).encode()),
        LAST_CHUNK,
    ]


def data(value: Any, *, ascii_only: bool = False) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=ascii_only)}\n\n".encode()


def chunk(
    delta: dict[str, Any] | None = None, reason: str | None = None, index: int = 0, **more: Any
) -> bytes:
    """A chat.completion.chunk; without a delta it has no choices."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
    return data(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "m",
            "choices": [] if delta is None else [choice],
            **more,
        }
    )


def openai_usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def openai(texts: Iterable[str], reason: str = "stop") -> bytes:
    """A usual answer."""
    return b"".join(
        [
            chunk({"role": "assistant", "content": ""}),
            *(chunk({"content": text}) for text in texts),
            chunk({}, reason),
            chunk(usage=openai_usage(7, 5)),
            DONE,
        ]
    )


def event(kind: str, **fields: Any) -> bytes:
    """One of Anthropic's."""
    return f"event: {kind}\n".encode() + data({"type": kind, **fields})


MESSAGE_START = event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 1},
    },
)
MESSAGE_STOP = event("message_stop")


def block_start(index: int = 0, **block: Any) -> bytes:
    return event(
        "content_block_start", index=index, content_block=block or {"type": "text", "text": ""}
    )


def block_delta(index: int = 0, **delta: Any) -> bytes:
    return event("content_block_delta", index=index, delta=delta)


def text_delta(text: str, index: int = 0) -> bytes:
    return block_delta(index, type="text_delta", text=text)


def block_stop(index: int = 0) -> bytes:
    return event("content_block_stop", index=index)


def message_delta(reason: str | None) -> bytes:
    return event(
        "message_delta",
        delta={"stop_reason": reason, "stop_sequence": None},
        usage={"output_tokens": 5},
    )


def anthropic(texts: Iterable[str], reason: str = "end_turn") -> bytes:
    """A usual answer."""
    return b"".join(
        [
            MESSAGE_START,
            block_start(),
            PING,
            *(text_delta(text) for text in texts),
            block_stop(),
            message_delta(reason),
            MESSAGE_STOP,
        ]
    )


def usual(api: Api, texts: Iterable[str]) -> bytes:
    return openai(texts) if api == "openai" else anthropic(texts)


def token(api: Api, text: str) -> bytes:
    """One piece of text, as it stands in the middle of an answer."""
    return chunk({"content": text}) if api == "openai" else text_delta(text)


def opening(api: Api) -> bytes:
    """What comes before the first text."""
    return chunk({"role": "assistant"}) if api == "openai" else MESSAGE_START + block_start()


COUNTED = Usage(7, 5)
HELLO = chunk({"content": "Hel"}) + chunk({"content": "lo"})
STOPPED = chunk({}, "stop") + DONE
SAID = MESSAGE_START + block_start() + text_delta("Hel") + text_delta("lo")
ENDED = block_stop() + message_delta("end_turn") + MESSAGE_STOP


def _openai(name: str, body: bytes, text: str = "Hello", **expected: Any) -> Transcript:
    return Transcript(f"openai {name}", "openai", body, text, **expected)


def _anthropic(name: str, body: bytes, text: str = "Hello", **expected: Any) -> Transcript:
    return Transcript(f"anthropic {name}", "anthropic", body, text, **expected)


def _told(error: dict[str, Any]) -> bytes:
    return event("error", error=error)


OPENAI = [
    _openai("usual", openai(TEXT), TEXT, usage=COUNTED),
    _openai("length", openai(["Hello"], "length"), reason=FinishReason.LENGTH, usage=COUNTED),
    _openai(
        "content filter",
        openai(["Hello"], "content_filter"),
        reason=FinishReason.CONTENT_FILTER,
        usage=COUNTED,
    ),
    _openai("reason of its own", HELLO + chunk({}, "eos") + DONE, reason=FinishReason.UNKNOWN),
    _openai("no reason", HELLO + DONE, reason=FinishReason.UNKNOWN),
    _openai("nothing but the end", DONE, "", reason=FinishReason.UNKNOWN),
    _openai("no [DONE]", HELLO + chunk({}, "stop")),
    _openai("no space", (HELLO + STOPPED).replace(b"data: ", b"data:")),
    _openai("CRLF", (HELLO + STOPPED).replace(b"\n", b"\r\n")),
    _openai("CR", (HELLO + STOPPED).replace(b"\n", b"\r")),
    _openai("comments", KEEP_ALIVE + HELLO + KEEP_ALIVE + b":\n" + STOPPED + KEEP_ALIVE),
    _openai("empty deltas", chunk({}) + chunk({"content": ""}) + HELLO + chunk({}) + STOPPED),
    _openai("null content", chunk({"role": "assistant", "content": None}) + HELLO + STOPPED),
    _openai("no delta", data({"choices": [{"index": 0, "delta": None}]}) + HELLO + STOPPED),
    _openai("no choices", chunk() + HELLO + chunk() + STOPPED),
    _openai(
        "empty reasons", HELLO.replace(b'"finish_reason": null', b'"finish_reason": ""') + STOPPED
    ),
    _openai("no index", HELLO.replace(b'"index": 0, ', b"") + STOPPED),
    _openai(
        "several choices",
        chunk({"content": "No"}, index=1) + HELLO + chunk({}, "length", index=1) + STOPPED,
    ),
    _openai(
        "reasoning",
        chunk({"reasoning_content": "hm"}) + chunk({"reasoning": "hm"}) + HELLO + STOPPED,
    ),
    _openai(
        "parts",
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]})
        + chunk({"content": [{"type": "text", "text": "Hello"}]})
        + STOPPED,
    ),
    _openai(
        "tool calls",
        chunk({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f"}}]})
        + chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})
        + chunk({}, "tool_calls")
        + DONE,
        "",
        reason=FinishReason.TOOL_USE,
    ),
    _openai(
        "refusal",
        chunk({"refusal": "Hel"}) + chunk({"refusal": "lo"}) + STOPPED,
        reason=FinishReason.CONTENT_FILTER,
    ),
    _openai(
        "usage in every chunk",
        HELLO.replace(b'"model"', b'"usage": {"prompt_tokens": 1}, "model"')
        + chunk({}, "stop", usage=openai_usage(7, 5))
        + DONE,
        usage=COUNTED,
    ),
    _openai(
        "escaped halves of characters",
        b'data: {"choices": [{"index": 0, "delta": {"content": "Hello \\ud83d"}}]}\n\n'
        b'data: {"choices": [{"index": 0, "delta": {"content": "\\ude00 \\ude00 \\ud83d"}}]}\n\n'
        + STOPPED,
        "Hello 😀 \ufffd \ufffd",
    ),
    _openai("end of the connection", HELLO, failure=Failure.UPSTREAM_UNAVAILABLE),
    _openai("end in an event", HELLO + b'data: {"choi', failure=Failure.UPSTREAM_UNAVAILABLE),
    _openai("nothing", b"", "", failure=Failure.UPSTREAM_UNAVAILABLE),
    _openai("no JSON", HELLO + b"data: {no\n\n" + DONE, failure=Failure.UNKNOWN),
    _openai("no UTF-8", HELLO + b"data: \xff\n\n" + DONE, failure=Failure.UNKNOWN),
    _openai("no object", HELLO + b"data: 1\n\n" + DONE, failure=Failure.UNKNOWN),
    _openai(
        "error",
        HELLO + data({"error": {"message": "Oh", "type": "server_error", "code": None}}) + DONE,
        failure=Failure.UPSTREAM_UNAVAILABLE,
    ),
    _openai(
        "error with a status",
        HELLO + data({"error": {"message": "Oh", "type": "BadRequestError", "code": 429}}) + DONE,
        failure=Failure.RATE_LIMITED,
    ),
    _openai(
        "error in the place of a chunk",
        data({"object": "error", "message": "maximum context length", "code": 400}) + DONE,
        "",
        failure=Failure.CONTEXT_TOO_LONG,
    ),
]
ANTHROPIC = [
    _anthropic("usual", anthropic(TEXT), TEXT, usage=COUNTED),
    _anthropic("stop sequence", anthropic(["Hello"], "stop_sequence"), usage=COUNTED),
    _anthropic(
        "length", anthropic(["Hello"], "max_tokens"), reason=FinishReason.LENGTH, usage=COUNTED
    ),
    _anthropic(
        "refusal",
        anthropic(["Hello"], "refusal"),
        reason=FinishReason.CONTENT_FILTER,
        usage=COUNTED,
    ),
    _anthropic(
        "pause", anthropic(["Hello"], "pause_turn"), reason=FinishReason.UNKNOWN, usage=COUNTED
    ),
    _anthropic("no reason", SAID + MESSAGE_STOP, reason=FinishReason.UNKNOWN, usage=Usage(7, 1)),
    _anthropic("no message_stop", SAID + message_delta("end_turn"), usage=COUNTED),
    _anthropic("CRLF", (SAID + ENDED).replace(b"\n", b"\r\n"), usage=COUNTED),
    _anthropic("comments and pings", KEEP_ALIVE + SAID + PING + KEEP_ALIVE + ENDED, usage=COUNTED),
    _anthropic("empty deltas", SAID + text_delta("") + ENDED, usage=COUNTED),
    _anthropic("unknown event", SAID + event("news", a=1) + ENDED, usage=COUNTED),
    _anthropic(
        "text in the start of a block",
        MESSAGE_START + block_start(type="text", text="Hel") + text_delta("lo") + ENDED,
        usage=COUNTED,
    ),
    _anthropic(
        "thinking",
        MESSAGE_START
        + block_start(type="thinking", thinking="", signature="")
        + block_delta(type="thinking_delta", thinking="hm")
        + block_delta(type="signature_delta", signature="s")
        + block_stop()
        + block_start(1)
        + text_delta("Hello", 1)
        + block_stop(1)
        + message_delta("end_turn")
        + MESSAGE_STOP,
        usage=COUNTED,
    ),
    _anthropic(
        "tool use",
        SAID
        + block_stop()
        + block_start(1, type="tool_use", id="1", name="f", input={})
        + block_delta(1, type="input_json_delta", partial_json='{"a": 1}')
        + block_stop(1)
        + message_delta("tool_use")
        + MESSAGE_STOP,
        reason=FinishReason.TOOL_USE,
        usage=COUNTED,
    ),
    _anthropic(
        "escaped halves of characters",
        MESSAGE_START + block_start() + b"event: content_block_delta\ndata: "
        b'{"type": "content_block_delta", "index": 0, '
        b'"delta": {"type": "text_delta", "text": "Hello \\ud83d"}}\n\n'
        b"event: content_block_delta\ndata: "
        b'{"type": "content_block_delta", "index": 0, '
        b'"delta": {"type": "text_delta", "text": "\\ude00"}}\n\n' + ENDED,
        "Hello 😀",
        usage=COUNTED,
    ),
    _anthropic("end of the connection", SAID, failure=Failure.UPSTREAM_UNAVAILABLE),
    _anthropic("end behind the block", SAID + block_stop(), failure=Failure.UPSTREAM_UNAVAILABLE),
    _anthropic("nothing", b"", "", failure=Failure.UPSTREAM_UNAVAILABLE),
    _anthropic("no JSON", SAID + b"event: message_stop\ndata: {\n\n", failure=Failure.UNKNOWN),
    _anthropic("no UTF-8", SAID + b"event: message_stop\ndata: \xff\n\n", failure=Failure.UNKNOWN),
    _anthropic("no such block", SAID + text_delta("!", 3) + ENDED, failure=Failure.UNKNOWN),
    _anthropic(
        "overloaded",
        SAID + _told({"type": "overloaded_error", "message": "Overloaded"}),
        failure=Failure.UPSTREAM_UNAVAILABLE,
    ),
    _anthropic(
        "rate limited",
        _told({"type": "rate_limit_error", "message": "Oh"}),
        "",
        failure=Failure.RATE_LIMITED,
    ),
    _anthropic("error in words", SAID + b"event: error\ndata: oh\n\n", failure=Failure.UNKNOWN),
]
TRANSCRIPTS = [*OPENAI, *ANTHROPIC]
