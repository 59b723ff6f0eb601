"""Many small requests over connections that stay open, and how long each took."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from urllib.parse import urlsplit

from bench.timing import percentile

SECONDS = 1.5
HEAD_END, BODY_END = b"\r\n\r\n", b"0\r\n\r\n"


class Load:
    """Asks ``url`` + a number that never repeats soon, one answer after another.

    ``latencies`` are those of all runs, in seconds.
    """

    def __init__(self, url: str, connections: int, *, keys: int, method: str = "GET") -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._request = f"{method} {parts.path}?{parts.query}%d HTTP/1.1\r\nHost: bench\r\n\r\n"
        self._bodiless = method == "HEAD"
        self._connections = connections
        self._keys = keys
        self._numbers = count(1)
        self.latencies: list[float] = []

    def run(self) -> float:
        """Ask for a while; gives the seconds for each answer, over all connections."""
        started = time.perf_counter()
        with ThreadPoolExecutor(self._connections) as threads:
            asked = [threads.submit(self._ask, started + SECONDS) for _ in range(self._connections)]
            found = [latency for asking in asked for latency in asking.result()]
        self.latencies += found
        return (time.perf_counter() - started) / len(found)

    def percentile(self, share: int) -> float:
        """The latency in milliseconds that ``share`` per cent of the answers kept."""
        return percentile(self.latencies, share) * 1000

    def _ask(self, until: float) -> list[float]:
        latencies = []
        with closing(socket.create_connection(self._address)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (sent := time.perf_counter()) < until:
                key = next(self._numbers) * 7919 % self._keys + 1
                connection.sendall((self._request % key).encode())
                self._read(connection)
                latencies.append(time.perf_counter() - sent)
        return latencies

    def _read(self, connection: socket.socket) -> None:
        answer = b""
        for block in _blocks(connection):
            answer += block
            head, _, body = answer.partition(HEAD_END)
            if len(head) < len(answer) and (self._bodiless or _whole(head.lower(), body)):
                break
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:500]


def _blocks(connection: socket.socket) -> Iterator[bytes]:
    while block := connection.recv(65536):
        yield block


def _whole(head: bytes, body: bytes) -> bool:
    if b"transfer-encoding: chunked" in head:
        return body.endswith(BODY_END)
    length = head.partition(b"content-length: ")[2].partition(b"\r")[0]
    return len(body) >= int(length)
