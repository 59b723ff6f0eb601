"""A language model's provider for tests, on 127.0.0.1: it sends the bytes that it is told to.

Each answer is a list of steps: bytes, sent as one segment; seconds to wait; or an ``End``. Without
an end the connection stays open for the next request. It sees at once when a client leaves, which
is what ``connections`` are asked for: ``connection.closed`` is an Event.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from threading import Event, Lock, Thread
from typing import Any

from tests.upstream_connection import Connection, Left
from tests.upstream_listener import BACKLOG, STOP_SECONDS, Listener

NOTHING_LEFT = b"HTTP/1.1 500 No answer left\r\nContent-Length: 0\r\n\r\n"


class End(Enum):
    """How an answer goes on for ever, or does not."""

    STALL = auto()  # nothing more until the client leaves
    FIN = auto()
    RST = auto()


Step = bytes | float | End


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its path, its fields with names in lower case, and its JSON."""

    path: str
    fields: dict[str, str]
    body: dict[str, Any]


class Talk(Connection):
    def read(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._fill()
        return self._take(count)


class LlmServer:
    """``base`` is its address. Answers are given in their order, ``asked`` tells what came."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.port = port
        self.connections: list[Talk] = []
        self.asked: list[Asked] = []
        self.sent = Event()  # all steps before an end have been sent
        self._answers: list[Sequence[Step]] = []
        self._threads: list[Thread] = []
        self._lock = Lock()

    def answer(self, *steps: Step) -> None:
        """What the next request that has no answer yet will get."""
        with self._lock:
            self._answers.append(steps)

    def take(self, taken: socket.socket) -> None:
        connection = Talk(len(self.connections), taken)
        thread = Thread(target=self._run, args=(connection,), name="llm", daemon=True)
        self.connections.append(connection)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        for connection in self.connections:
            connection.interrupt()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads)

    def _run(self, connection: Talk) -> None:
        try:
            with suppress(Left):
                while True:
                    self._serve(connection)
        finally:
            connection.close()

    def _serve(self, connection: Talk) -> None:
        head, *lines = connection.read_head().decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in map(_parted, lines) if name}
        body = connection.read(int(fields.get("content-length", "0")))
        with self._lock:
            self.asked.append(Asked(head.split(" ")[1], fields, json.loads(body)))
            steps = self._answers.pop(0) if self._answers else (NOTHING_LEFT,)
        for step in steps:
            self._take_step(connection, step)

    def _take_step(self, connection: Talk, step: Step) -> None:
        if isinstance(step, bytes):
            connection.send(step)
        elif isinstance(step, float):
            connection.pause(step)
        else:
            self.sent.set()
            ends = {
                End.STALL: connection.wait_left,
                End.FIN: connection.finish,
                End.RST: connection.reset,
            }
            ends[step]()


@contextmanager
def llm_server() -> Iterator[LlmServer]:
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        server = LlmServer(listening.getsockname()[1])
        try:
            with Listener([listening], server.take).running():
                yield server
        finally:
            server.stop()


def _parted(line: str) -> tuple[str, str, str]:
    return line.partition(":")
