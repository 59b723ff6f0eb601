"""A language model's server that only counts the time: ``python -m bench.stand_in RATE``.

It answers every POST as OpenAI's chat completions do, with ``max_tokens`` tokens, the first one at
once and then RATE a second. Each token is the moment at which it is sent, of the machine's
monotonic clock in nanoseconds. The program says on which port of 127.0.0.1 it listens, and ends
with its standard input.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import orjson
import uvloop

BACKLOG = 2_048
ROOT = Path(__file__).parent.parent
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
CHUNK = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"stand-in","choices":[%b],"usage":%b}'
)
CHOICE = b'{"index":0,"delta":{"content":"@%d "},"finish_reason":null}'
LAST = b'{"index":0,"delta":{},"finish_reason":"length"}'
USAGE = b'{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}'


class Talk(asyncio.Protocol):
    """One connection: answers one request after another, ``every`` so many seconds a token."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self._left = self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, parted, body = self._unread.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not parted or length is None or len(body) < int(length[1]):
            return
        self._unread = b""
        self._count = self._left = orjson.loads(body)["max_tokens"]
        self._transport.write(HEAD)
        self._send(self._loop.time())

    def _send(self, due: float) -> None:
        """A token, and the next one when it is due, however late this one is."""
        choice = CHOICE % time.monotonic_ns()
        self._transport.write(_event(CHUNK % (choice, b"null")))
        self._left -= 1
        if self._left:
            due += self._every
            self._timer = self._loop.call_at(due, self._send, due)
        else:
            self._end()

    def _end(self) -> None:
        usage = USAGE % (self._count, self._count + 1)
        chunks = (CHUNK % (LAST, b"null"), CHUNK % (b"", usage), b"[DONE]")
        self._transport.write(b"".join(map(_event, chunks)) + b"0\r\n\r\n")


@dataclass(frozen=True, slots=True)
class StandIn:
    """``base`` is what an OpenAI client is given; ``url`` is where it then asks."""

    base: str
    pid: int

    @property
    def url(self) -> str:
        return f"{self.base}/chat/completions"


@contextmanager
def stand_in(rate: float) -> Iterator[StandIn]:
    """One in a process of its own that sends ``rate`` tokens a second in each answer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.stand_in", str(rate)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield StandIn(f"http://127.0.0.1:{port}/v1", process.pid)
    finally:
        process.communicate()
    assert process.returncode == 0, "the stand-in did not end well"


def _event(data: bytes) -> bytes:
    return b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data)


async def _serve(rate: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Talk(1 / rate), "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()


if __name__ == "__main__":
    uvloop.run(_serve(float(sys.argv[1])))
