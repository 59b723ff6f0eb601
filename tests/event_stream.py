"""Server-Sent Events over a real socket, one after the other, as a test wants to see them."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.serving import Served
from tests.waiting import wait_until

TIMEOUT = 60.0  # seconds for any single read
FORGOTTEN_SECONDS = 30
# All that may stand in a stream: pings between whole events.
PART = re.compile(
    rb": ping\n|retry: 3000\n"
    rb"|event: (?P<name>[a-z]+)\ndata: (?P<data>[^\n]+)\n(?:id: (?P<id>\d+)\n)?\n"
)


@dataclass(frozen=True, slots=True)
class Sent:
    """One event; ``id`` is its own, None without one."""

    id: int | None
    name: str
    data: Any


class EventStream:
    """One answer: what is between its events is kept apart."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.retries: list[int] = []
        self.comments: list[str] = []
        self._response = response
        self._held = bytearray()

    def next(self) -> Sent | None:
        """The next event, None at the clean end; http.client.IncompleteRead at any other."""
        fields: dict[str, str] = {}
        while (text := self._line()) is not None:
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if not text and fields:
                return _event(fields)
            if name == "retry":
                self.retries.append(int(value))
            elif name:
                fields[name] = value
            elif text:
                assert not fields, f"inside of an event: {text}"
                self.comments.append(value)
        assert not fields, f"half an event: {fields}"
        return None

    def until(self, *names: str) -> list[Sent]:
        """Everything up to the first event that is called one of these."""
        seen: list[Sent] = []
        while not seen or seen[-1].name not in names:
            event = self.next()
            assert event is not None, f"it ended behind {seen}"
            seen.append(event)
        return seen

    def rest(self) -> list[Sent]:
        """Everything up to the clean end."""
        seen = []
        while (event := self.next()) is not None:
            seen.append(event)
        return seen

    def hear(self, comments: int) -> list[str]:
        """The comments, once there are so many and no event has come."""
        while len(self.comments) < comments:
            line = self._line()
            assert line is not None
            name, _, value = line.partition(": ")
            assert name in ("", "retry"), line
            if name == "retry":
                self.retries.append(int(value))
            else:
                self.comments.append(value)
        return self.comments

    def _line(self) -> str | None:
        """The next line without its end, None behind the last one."""
        looked = 0
        while (end := self._held.find(b"\n", looked)) < 0:
            looked = len(self._held)
            # Not readline(), which takes a connection that breaks between two chunks for the end.
            data = self._response.read1(65_536)
            if not data:
                assert not self._held, f"half a line: {self._held!r}"
                return None
            self._held += data
        line = self._held[:end].decode()
        del self._held[: end + 1]
        return line


def _event(fields: Mapping[str, str]) -> Sent:
    number = int(fields["id"]) if "id" in fields else None
    return Sent(number, fields.get("event", "message"), json.loads(fields["data"]))


@contextmanager
def events_of(
    base: str, path: str, last: int | str | None = None, **headers: str
) -> Iterator[EventStream]:
    """The events at ``path`` behind ``last``; the connection is closed behind the block."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=TIMEOUT)
    sent = {} if last is None else {"Last-Event-ID": str(last)}
    with closing(connection):
        connection.request("GET", path, headers=sent | headers)
        with connection.getresponse() as response:
            yield EventStream(response)


def events_in(body: bytes) -> list[Sent]:
    """Those of a whole stream, in which nothing else may stand, and pings only between them."""
    found, place = [], 0
    while place < len(body):
        part = PART.match(body, place)
        assert part, body[place : place + 200]
        place = part.end()
        if part["name"]:
            number = int(part["id"]) if part["id"] else None
            found.append(Sent(number, part["name"].decode(), json.loads(part["data"])))
    return found


def readers(served: Served) -> int:
    """How many read events at that process."""
    return int(served.get("/v1/status")["event_readers"])


def nobody_reads(served: Served) -> None:
    """Wait until every reader is forgotten."""
    wait_until(lambda: not readers(served), within=FORGOTTEN_SECONDS, what="nobody reads events")


def names(events: list[Sent], without: str = "progress") -> list[str]:
    """What they are called; progress comes as often as it likes."""
    return [event.name for event in events if event.name != without]
