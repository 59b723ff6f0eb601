"""Many readers of one event stream: ``python -m bench.subscribers HOST PORT PATH COUNT``.

Each reader is a bare socket, since a client that parses would be measured instead of the service.
The program says "ready" once every one of them has got the head of its answer, and when its
standard input ends, as JSON, the delay of each event that came, in seconds. An event carries the
time at which it was made, of the machine's monotonic clock in nanoseconds, as the bytes of its
progress.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.environment import Unavailable

MADE = re.compile(rb'data: ?\{[^{}]*"bytes":(\d{12,})')  # of progress; a state nests it
READ_BYTES = 65_536
AT_ONCE = 200  # connections that are not answered yet: the kernel's queue of them is finite
CONNECT_SECONDS = 60
OTHER_FILES = 500  # descriptors that a service with many readers needs besides
ROOT = Path(__file__).parent.parent


class Subscribers:
    """``count`` connections that have asked for ``path``."""

    def __init__(self, host: str, port: int, path: str, count: int) -> None:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n"
        self._request = head.encode()
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._answered: set[int] = set()
        self.delays: list[float] = []
        for number in range(count):
            self._connect(host, port)
            if number % AT_ONCE == 0:
                self._read_until(self._all_answered)
        self._read_until(self._all_answered)

    def run(self) -> None:
        """Read until standard input ends."""
        waiting = sys.stdin.fileno()
        self._poll.register(waiting, select.EPOLLIN)
        while True:
            for number, _ in self._poll.poll():
                if number == waiting:
                    return
                self._read(number)

    def _connect(self, host: str, port: int) -> None:
        made = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        made.sendall(self._request)
        made.setblocking(False)
        self._sockets[made.fileno()] = made
        self._poll.register(made.fileno(), select.EPOLLIN)

    def _all_answered(self) -> bool:
        return len(self._answered) == len(self._sockets)

    def _read_until(self, done: Callable[[], bool]) -> None:
        while not done():
            for number, _ in self._poll.poll():
                self._read(number)

    def _read(self, number: int) -> None:
        data = self._sockets[number].recv(READ_BYTES)
        now = time.monotonic_ns()
        if not data:
            raise SystemExit("a stream of events ended")
        if number not in self._answered:
            assert data.startswith(b"HTTP/1.1 200 "), data[:500]
            self._answered.add(number)
        self.delays += [(now - int(made)) / 1e9 for made in MADE.findall(data)]


class Audience:
    """Readers in a process of their own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def leave(self) -> list[float]:
        """End all of them; gives the delays of what they have got."""
        told, _ = self._process.communicate()
        assert self._process.returncode == 0, "the subscribers did not end well"
        delays: list[float] = json.loads(told)
        return delays


@contextmanager
def audience(url: str, count: int) -> Iterator[Audience]:
    """``count`` readers of ``url``, which are all there when the block begins."""
    parts = urlsplit(url)
    asked = (str(parts.hostname), str(parts.port), parts.path, str(count))
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.subscribers", *asked],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the subscribers are not there"
        yield Audience(process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Processes that are started in the block may have ``count`` connections.

    Raises Unavailable where the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Unavailable(f"a process may have {hard} open files, and {needed} are needed")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main() -> None:
    host, port, path, count = sys.argv[1:]
    subscribers = Subscribers(host, int(port), path, int(count))
    print("ready", flush=True)
    subscribers.run()
    print(json.dumps([round(delay, 6) for delay in subscribers.delays]), flush=True)
    # Closing thousands of sockets one by one would only take time.
    os._exit(0)


if __name__ == "__main__":
    main()
