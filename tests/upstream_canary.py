"""A port that nobody should find: it counts who connects."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.upstream_listener import Listener

TRIES = 20  # a port that is free for IPv4 may be taken for IPv6


class Canary:
    """Listens on ``port`` of 127.0.0.1 and, where there is IPv6, of ::1 as well."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self.port: int = sockets[0].getsockname()[1]
        self.listener = Listener(sockets, self._take)
        self._hits = 0

    @property
    def hits(self) -> int:
        """How many connections there have been; one that is made by now is counted."""
        self.listener.take_waiting()
        return self._hits

    def _take(self, taken: socket.socket) -> None:
        taken.close()
        self._hits += 1


@contextmanager
def canary() -> Iterator[Canary]:
    """Each connection is closed as soon as it is counted."""
    with ExitStack() as stack:
        found = Canary([stack.enter_context(each) for each in _sockets()])
        stack.enter_context(found.listener.running())
        yield found


def _sockets() -> list[socket.socket]:
    for _ in range(TRIES):
        first = socket.create_server(("127.0.0.1", 0))
        if not has_ipv6():
            return [first]
        port = first.getsockname()[1]
        try:
            return [first, socket.create_server(("::1", port), family=socket.AF_INET6)]
        except OSError:
            first.close()
    raise AssertionError("no port is free on both 127.0.0.1 and ::1")


def has_ipv6() -> bool:
    """Whether the machine has a loopback address of it (the module may know IPv6 all the same)."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
