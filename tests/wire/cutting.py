"""A relay whose connections end after exact numbers of bytes, as those of a bad network do."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from urllib.parse import urlsplit

from tests.peer import SECONDS

JOIN_SECONDS = 10


@contextmanager
def cutting(base: str, budgets: Iterator[int]) -> Iterator[str]:
    """The address of a relay to ``base``: each answer is cut after the next number of bytes.

    It takes one connection at a time; the bytes of an answer's head count, too.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=_serve, args=(listening, base, budgets), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(JOIN_SECONDS)


def _serve(listening: socket.socket, base: str, budgets: Iterator[int]) -> None:
    address = urlsplit(base)
    # OSError: the listening socket has been shut down.
    with contextlib.suppress(OSError):
        while True:
            client, _ = listening.accept()
            upstream = socket.create_connection((address.hostname, address.port), SECONDS)
            with client, upstream, contextlib.suppress(ConnectionError):
                _relay(client, upstream, next(budgets))


def _relay(client: socket.socket, upstream: socket.socket, budget: int) -> None:
    """Until ``budget`` bytes of the answer are passed on, or one of the two ends it."""
    while budget:
        readable, _, _ = select.select([client, upstream], [], [], SECONDS)
        for end in readable:
            data = end.recv(min(budget, 65_536))
            if not data:
                return
            if end is client:
                upstream.sendall(data)
            else:
                client.sendall(data)
                budget -= len(data)
