"""A small request again and again while something else goes on, and how late each answer was."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

EVERY = 0.01  # seconds
PATIENCE = 60  # seconds


@contextmanager
def meanwhile(work: Callable[[], object] | None) -> Iterator[None]:
    """Do ``work`` again and again in a thread for as long as the block lasts; it has to succeed."""
    over = threading.Event()
    failed: list[BaseException] = []

    def again() -> None:
        try:
            while work is not None and not over.is_set():
                work()
        except BaseException as error:  # noqa: BLE001 - raised where the block ends
            failed.append(error)

    working = threading.Thread(target=again)
    working.start()
    try:
        yield
    finally:
        over.set()
        working.join()
    if failed:
        raise failed[0]


@contextmanager
def probing(url: str, delays: list[float], *, from_due: bool = True) -> Iterator[None]:
    """GET ``url`` every hundredth of a second on one connection, and add up how late the answers are.

    From when it was due, so that the answers behind a slow one count as slow, too; or else from
    when it was asked for, where the machine is so busy that a probe could never catch up.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=PATIENCE)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    due = time.perf_counter()

    def ask() -> None:
        nonlocal due
        due = due + EVERY if from_due else time.perf_counter() + EVERY
        time.sleep(max(0.0, due - time.perf_counter()))
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        delays.append(time.perf_counter() - due)

    with closing(connection), meanwhile(ask):
        yield
