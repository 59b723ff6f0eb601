"""A reader of events whose connection is cut again and again, and which comes back where it was."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event as Flag
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit

from tests.jobs import Logged
from tests.peer import LINGER_0
from tests.serving import Served

SECONDS = 120.0  # for which a connection is kept that is not cut
END_SECONDS = 30.0
PAUSE = 0.02  # seconds until the next try at a service that is away, or has no more
FORGETS = 0.5  # of the times at which a forgetful one comes back
DONE, AWAY = 204, 503


@dataclass(frozen=True, slots=True)
class Event:
    """One that was dispatched; ``id`` is its own or that of an earlier one."""

    id: int | None
    name: str
    data: Any


class EventReader:
    """Reads the events of one export in a thread, as an EventSource does, until it is told 204.

    It cuts its connection itself after ``longest`` seconds at most. A ``forgetful`` one comes
    back as a newcomer now and then: ``lives`` has what it saw in each of its lives. ``served``
    may be replaced by the service at which it comes back. While ``going_on`` is set, an end is
    not the last word, and it asks again.
    """

    def __init__(
        self,
        served: Served,
        export: str,
        *,
        seed: int = 0,
        longest: float | None = None,
        forgetful: bool = False,
    ) -> None:
        self.served = served
        self.lives: list[list[Event]] = [[]]
        self.forgetful = forgetful
        self.connections = 0
        self.going_on = Flag()
        self.export = export
        self._chosen = random.Random(seed)
        self.longest = longest
        self._last: int | None = None
        self._stopping = Flag()
        self._failure: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()

    def finish(self, within: float = END_SECONDS) -> list[Event]:
        """Everything that it saw, once it was told that there is no more."""
        self._thread.join(within)
        assert not self._thread.is_alive(), f"no end of events within {within} s"
        if self._failure is not None:
            raise self._failure
        return self.events

    @property
    def events(self) -> list[Event]:
        """What it has seen in this life."""
        return self.lives[-1]

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                last_word = not self.going_on.is_set()
                if self._connection() == DONE and last_word:
                    return
                if self.forgetful and not last_word and self._chosen.random() < FORGETS:
                    self.lives.append([])
                    self._last = None
        except Exception as error:  # noqa: BLE001 - the test raises it
            self._failure = error

    def _connection(self) -> int:
        """One connection until its end, and the status of the answer; 0 where there was none."""
        status = 0
        headers = {} if self._last is None else {"Last-Event-ID": str(self._last)}
        connection = http.client.HTTPConnection(urlsplit(self.served.base).netloc, timeout=SECONDS)
        with closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.connect()
            self.connections += 1
            connection.request("GET", f"/v1/exports/{self.export}/events", headers=headers)
            cut = None if self.longest is None else self._chosen.uniform(0, self.longest)
            plain = connection.sock
            with closing(connection.getresponse()) as response:
                status = response.status
                if status == 200:
                    self._read(response, plain, cut)
        if status != 200:
            assert status in (0, DONE, AWAY), f"status {status}"
            self._stopping.wait(PAUSE)
        return status

    def _read(
        self, response: http.client.HTTPResponse, plain: socket.socket, cut: float | None
    ) -> None:
        """Take what comes until it ends, or for ``cut`` seconds."""
        assert response.headers["Content-Type"].startswith("text/event-stream")
        over = time.monotonic() + (SECONDS if cut is None else cut)
        held = b""
        try:
            while not self._stopping.is_set():
                plain.settimeout(max(over - time.monotonic(), 0.001))
                data = response.read1(65_536)
                if not data:
                    return
                *blocks, held = (held + data).split(b"\n\n")
                for block in blocks:
                    self._dispatch(block.decode())
        except TimeoutError:
            if self._chosen.random() < 0.5:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)

    def _dispatch(self, block: str) -> None:
        fields = dict(_fields(block))
        if "id" in fields:
            self._last = int(fields["id"])
        if "data" in fields:
            data = json.loads(fields["data"])
            self.events.append(Event(self._last, fields.get("event", "message"), data))


def _fields(block: str) -> Iterator[tuple[str, str]]:
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        if name:
            yield name, value.removeprefix(" ")


def assert_each_seen_once(seen: Sequence[Event], log: Sequence[Logged]) -> None:
    """All that is logged behind the first event, progress maybe left out, as it is logged."""
    assert "reset" not in [event.name for event in seen]
    assert seen[0].name == "state"
    first = seen[0].id
    assert first is not None
    logged = {event.seq: event for event in log}
    behind = [(event.id, event.name) for event in seen[1:]]
    expected = [(event.seq, event.name) for event in log if event.seq > first]
    told = [key for key in behind if key[1] != "progress"]
    missed = [key for key in expected if key[1] != "progress" and key not in told]
    assert not missed, f"seen first: {first}, missed: {missed}, of {len(log)}"
    again = [place for place, key in enumerate(behind) if key in behind[:place]]
    around = behind[max(again[0] - 6, 0) : again[0] + 4] if again else behind[:10]
    assert told == [key for key in expected if key[1] != "progress"], f"first: {first}, {around}"
    numbers = [number for number, _ in behind if number is not None]
    assert numbers == sorted(set(numbers))
    assert not numbers or numbers[0] > first
    for event in seen[1:]:
        data = {name: value for name, value in event.data.items() if name != "links"}
        assert (event.id or 0) in logged, event
        assert data == logged[event.id or 0].data
