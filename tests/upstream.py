"""A real HTTP server for tests of a relay, on 127.0.0.1, that misbehaves on request.

Path and query of a request say what it gets; upstream_options.OPTIONS lists what a query can say,
and all of it may be combined where that has a meaning:

    /file?size=1000000&etag="abc"&ranges=1      any other path is a file, too
    /file?size=1000000&ranges=1&cut=5000&cut_times=1
    /lines?n=1000&malformed=3,17&overlong=40    JSON lines in odd pieces
    /loop                                       redirects to itself
    /chain?n=5                                  that many redirects, and then the file

``target("/file", size=5, bad_length="+5")`` encodes such a path.
The bytes are ``content(size)`` and ``piece(first, last)``, those of /lines ``lines(…)``. Without
other options an answer is right, has a Content-Length and leaves the connection open; HEAD gets the
head of GET. The server has threads and sockets of its own, so that each byte is its own as well,
and nothing of it is left when its block ends.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Lock, Thread
from typing import NoReturn
from urllib.parse import urlsplit

from tests import upstream_options as options
from tests import upstream_request as requests
from tests.upstream_bytes import bomb, content, encoded, lines, piece
from tests.upstream_canary import Canary, canary
from tests.upstream_connection import Connection, Left
from tests.upstream_listener import BACKLOG, STOP_SECONDS, Listener
from tests.upstream_options import Options, target
from tests.upstream_reply import reply
from tests.upstream_request import Request

__all__ = [
    "Canary",
    "Connection",
    "Request",
    "Upstream",
    "bomb",
    "canary",
    "content",
    "encoded",
    "lines",
    "piece",
    "target",
    "upstream",
]

REFUSAL = "HTTP/1.1 {} Refused\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}"


class Upstream:
    """``base`` is its address; what it has seen is counted from the start or from ``forget``."""

    def __init__(self, port: int, *, accept_only: bool) -> None:
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self._accept_only = accept_only
        self._lock = Lock()
        self._seen: list[Request] = []
        self._malformed: list[bytes] = []
        self._connections: list[Connection] = []
        self._answers: Counter[str] = Counter()
        self._instead: dict[str, str] = {}
        self._threads: dict[Connection, Thread] = {}

    @property
    def seen(self) -> list[Request]:
        """The requests so far, in their order."""
        with self._lock:
            return list(self._seen)

    @property
    def malformed(self) -> list[bytes]:
        """Heads that were no requests; they got 400."""
        with self._lock:
            return list(self._malformed)

    @property
    def connections(self) -> list[Connection]:
        """The connections made so far, in their order."""
        with self._lock:
            return list(self._connections)

    def connection(self, number: int) -> Connection:
        """By its number, which a request has as well; also one that is forgotten."""
        with self._lock:
            return next(found for found in self._threads if found.number == number)

    def serve(self, path: str, like: str) -> None:
        """From now on answer ``path``, whatever its query, as the target ``like``."""
        options.parse(urlsplit(like).query)
        with self._lock:
            self._instead[path] = like

    def forget(self) -> None:
        """As at the start, but for open connections and what ``serve`` has said."""
        with self._lock:
            for each in (self._seen, self._malformed, self._connections):
                each.clear()
            self._answers.clear()

    def take(self, taken: socket.socket) -> None:
        """Serve a connection in a thread of its own."""
        with self._lock:
            connection = Connection(len(self._threads), taken)
            thread = Thread(target=self._run, args=(connection,), name="upstream", daemon=True)
            self._threads[connection] = thread
            self._connections.append(connection)
        thread.start()

    def stop(self) -> None:
        """End all that is still going on."""
        for connection in self._threads:
            connection.interrupt()
        for thread in self._threads.values():
            thread.join(STOP_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads.values())

    def _run(self, connection: Connection) -> None:
        try:
            with suppress(Left):
                if self._accept_only:
                    connection.wait_left()
                while True:
                    self._serve(connection)
        finally:
            connection.close()

    def _serve(self, connection: Connection) -> None:
        """One request and its answer."""
        raw = connection.read_head()
        try:
            request = requests.parse(raw, connection.number)
        except ValueError:
            with self._lock:
                self._malformed.append(raw)
            _refuse(connection, 400, "no request")
        with self._lock:
            self._seen.append(request)
            like = self._instead.get(request.path, request.target)
        request = replace(request, target=like)
        try:
            asked = self._numbered(request)
        except ValueError as error:
            _refuse(connection, 500, str(error))
        if asked.has("accept_only"):
            connection.wait_left()
        connection.discard(request.length)
        reply(connection, request, asked)

    def _numbered(self, request: Request) -> Options:
        """The options that hold for the next answer of its key."""
        asked = options.parse(request.query)
        key = asked.text("key", request.target)
        with self._lock:
            number = self._answers[key]
            self._answers[key] += 1
        return asked.at(number)


@contextmanager
def upstream(*, accept_only: bool = False) -> Iterator[Upstream]:
    """``accept_only``: connections are taken in and never read."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        found = Upstream(listening.getsockname()[1], accept_only=accept_only)
        try:
            with Listener([listening], found.take).running():
                yield found
        finally:
            found.stop()


def _refuse(connection: Connection, status: int, why: str) -> NoReturn:
    connection.send(REFUSAL.format(status, len(why), why).encode("latin-1"))
    connection.finish()
