"""An upstream that speaks TLS, and HTTP/2 where its client wants to, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl

import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.upstream import piece
from tests.waiting import wait_until

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]

WRITE = 65_536
STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """A request: ``version`` is that of HTTP, ``port`` that of the client's connection."""

    method: str
    path: str
    version: str
    port: int
    headers: dict[str, str]


@dataclass(slots=True)
class Secure:
    """``left`` counts the paths whose client went before their end."""

    port: int
    seen: list[Seen] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)

    @property
    def base(self) -> str:
        return f"https://localhost:{self.port}"

    def forget(self) -> None:
        self.seen.clear()
        self.left.clear()
        self.sent.clear()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """The ASGI application: a query says what it answers.

        ``size`` bytes, of which ``stop`` come before it waits for the client to leave; ``length``
        is what it says that there are ("": nothing), ``etag`` and ``location`` are headers,
        ``early`` ends behind ``stop`` as if that were all.
        """
        if scope["type"] != "http":
            raise NotImplementedError  # there is no lifespan
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        path, version = scope["path"], scope["http_version"]
        self.seen.append(Seen(scope["method"], path, version, scope["client"][1], headers))
        asked = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        leaving = asyncio.create_task(_left(receive))
        answering = asyncio.create_task(self._answer(scope, headers, asked, send))
        await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            self.left[path] += 1
        for task in (leaving, answering):
            task.cancel()

    async def _answer(
        self, scope: Any, headers: dict[str, str], asked: dict[str, str], send: Send
    ) -> None:
        size, first = int(asked.get("size", 1000)), 0
        stop = int(asked.get("stop", size))
        told = {name: text for name, text in asked.items() if name in {"etag", "location"}}
        wanted, status = headers.get("range", ""), 302 if "location" in asked else 200
        if "etag" in asked:
            told["accept-ranges"] = "bytes"
        if wanted.startswith("bytes=") and "etag" in asked:
            first, status, stop = int(wanted[6:].partition("-")[0]), 206, size
            told["content-range"] = f"bytes {first}-{size - 1}/{size}"
        length = asked.get("length", str(size - first))
        if length:
            told["content-length"] = length
        if stop < 0:
            await asyncio.Event().wait()
        pairs = [(name.encode(), value.encode()) for name, value in told.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        for start in range(first, 0 if scope["method"] == "HEAD" else stop, WRITE):
            end = min(start + WRITE, stop)
            body = piece(start, end - 1)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            self.sent[scope["path"]] += len(body)
            await asyncio.sleep(0)  # sending to who has gone does not yield
        if stop < size and "early" not in asked:
            await asyncio.Event().wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextmanager
def secure_upstream(
    folder: Path, certificate: trustme.LeafCert, protocols: tuple[str, ...] = ("h2", "http/1.1")
) -> Iterator[Secure]:
    """Serves on localhost with that certificate until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "certificate.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(file))
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        found = Secure(listening.getsockname()[1])
        config = Config()
        config.bind = [f"fd://{listening.detach()}"]
        config.certfile = config.keyfile = str(file)
        config.alpn_protocols = list(protocols)
        config.graceful_timeout = 0
        config.errorlog = logging.getLogger("hypercorn")
        started, stop = Event(), Event()
        thread = Thread(target=_run, args=(found, config, started, stop), daemon=True)
        thread.start()
        try:
            assert started.wait(STOP_SECONDS)
            yield found
        finally:
            stop.set()
            thread.join(STOP_SECONDS)
            assert not thread.is_alive()


def _run(found: Secure, config: Config, started: Event, stop: Event) -> None:
    async def stopped() -> None:
        started.set()
        await asyncio.to_thread(stop.wait)

    asyncio.run(serve(found, config, shutdown_trigger=stopped))


def seen_leaving(found: Secure, path: str, within: float, times: int = 1) -> None:
    """Wait until the clients of ``path`` have gone so many times."""
    wait_until(lambda: found.left[path] >= times, within=within, what=f"{path} is left")
