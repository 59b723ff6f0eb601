"""Many readers of one event stream, as a program: ``python -m bench.subscribers HOST PORT PATH COUNT``.

Each reader is a bare socket, since a client that parses would be measured instead of the service.
Says "ready" once every one of them has got the head of its answer, and when its standard input
ends, one JSON object: how many events came and after how many seconds. An event carries the time
at which it was made, of the machine's monotonic clock in nanoseconds, as ``"bytes":<number>``.
"""

from __future__ import annotations

import json
import re
import select
import socket
import statistics
import sys
import time

MADE = re.compile(rb'"bytes": ?(\d{12,})')
READ_BYTES = 65_536
ABOUT_TO_CONNECT = 200  # at once: the kernel's queue of connections is finite


class Subscribers:
    """``count`` connections that have asked for ``path``."""

    def __init__(self, host: str, port: int, path: str, count: int) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._answered: set[int] = set()
        self.delays: list[float] = []
        for number in range(count):
            self._connect(host, port)
            if number % ABOUT_TO_CONNECT == 0:
                self._read_until(lambda: len(self._answered) == len(self._sockets))
        self._read_until(lambda: len(self._answered) == len(self._sockets))

    def run(self) -> None:
        """Read until standard input ends."""
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        while True:
            for number, _ in self._poll.poll():
                if number == sys.stdin.fileno():
                    return
                self._read(number)

    def _connect(self, host: str, port: int) -> None:
        made = socket.create_connection((host, port), timeout=60)
        made.sendall(self._request)
        made.setblocking(False)
        self._sockets[made.fileno()] = made
        self._poll.register(made.fileno(), select.EPOLLIN)

    def _read_until(self, done: object) -> None:
        while not done():  # type: ignore[operator]
            for number, _ in self._poll.poll():
                self._read(number)

    def _read(self, number: int) -> None:
        data = self._sockets[number].recv(READ_BYTES)
        now = time.monotonic_ns()
        if not data:
            raise SystemExit("a stream of events ended")
        self._answered.add(number)
        self.delays += [(now - int(made)) / 1e9 for made in MADE.findall(data)]


def main() -> None:
    host, port, path, count = sys.argv[1:]
    subscribers = Subscribers(host, int(port), path, int(count))
    print("ready", flush=True)
    subscribers.run()
    delays = sorted(subscribers.delays)
    cuts = statistics.quantiles(delays, n=100) if len(delays) > 1 else [0.0] * 99
    print(json.dumps({"events": len(delays), "p50": cuts[49], "p99": cuts[98], "max": delays[-1]}))


if __name__ == "__main__":
    main()
