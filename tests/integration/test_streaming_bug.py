"""A bug of ours in the middle of a stream: the client sees a break, the operator the traceback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from service.api.problems import handlers
from service.errors import SourceError, StreamBroken, TailraceError
from service.export.receipt import Outcome
from service.observe import Event, Unexpected
from service.streaming import ActiveStreams, StreamResponse


class FailingStream:
    """Gives one chunk, then raises ``error``."""

    status = 200

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.chunks = [b"first"]
        self.closed = False
        self.outcomes: list[tuple[Outcome, str | None]] = []

    async def open(self) -> None:
        pass

    async def read(self) -> bytes | None:
        if not self.chunks:
            raise self.error
        return self.chunks.pop()

    async def close(self) -> None:
        self.closed = True

    def headers(self) -> Mapping[str, str]:
        return {}

    def started(self) -> None:
        pass

    def ended(self, outcome: Outcome, error: TailraceError | None) -> None:
        self.outcomes.append((outcome, error.code if error else None))


async def drive(stream: FailingStream) -> tuple[list[Any], list[Event]]:
    """Every message that reached the server, and what was observed."""
    events: list[Event] = []
    sent: list[Any] = []
    active = ActiveStreams()

    async def endpoint(request: Request) -> StreamResponse:
        return StreamResponse(stream, active, headers={}, max_duration=30)

    handled: Any = handlers(events.append)
    app = Starlette(routes=[Route("/", endpoint)], exception_handlers=handled)

    async def receive() -> Any:
        # As a server whose client stays: nothing comes.
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(StreamBroken):
        await app(scope, receive, send)
    assert len(active) == 0
    return sent, events


@pytest.mark.parametrize(
    ("error", "code", "bugs"),
    [(ValueError("a bug"), "internal", 1), (SourceError("not ours"), "source_error", 0)],
    ids=["bug", "source"],
)
async def test_what_fails_in_the_middle_breaks_and_only_a_bug_is_reported(
    error: Exception, code: str, bugs: int
) -> None:
    stream = FailingStream(error)
    sent, events = await drive(stream)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["more_body"] is True
    assert stream.closed
    assert stream.outcomes == [(Outcome.FAILED, code)]
    reported = [event.error for event in events if isinstance(event, Unexpected)]
    assert len(reported) == bugs
    assert all("ValueError: a bug" in text for text in reported)
