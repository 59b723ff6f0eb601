"""An answer of the test upstream on its connection, up to the end that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.upstream_answer import Answer, Fields
from tests.upstream_connection import Connection
from tests.upstream_framing import Frame, framing, pieces, plain
from tests.upstream_head import head
from tests.upstream_options import Options
from tests.upstream_pages import answered
from tests.upstream_request import Request

HEAD_ENDS: dict[str, Callable[[Connection], None]] = {
    "cut_head": Connection.finish,
    "reset_head": Connection.reset,
    "stall_head": Connection.wait_left,
}
BODY_ENDS: dict[str, Callable[[Connection], None]] = {
    "cut": Connection.finish,
    "cut_each": Connection.finish,
    "cut_at": Connection.finish,
    "reset": Connection.reset,
    "stall": Connection.wait_left,
}


@dataclass(frozen=True, slots=True)
class End:
    """``act`` comes after so many bytes."""

    after: int
    act: Callable[[Connection], None]


def reply(connection: Connection, request: Request, options: Options) -> None:
    """Send the answer; what returns leaves the connection open for another request."""
    answer = answered(request, options)
    framed = framing(options, answer)
    says = options.has("close") and options.text("close") != "silent"
    closes: Fields = (("Connection", "close"),) if says or request.last else ()
    written = head(options, answer.status, (*answer.fields, *framed.fields, *closes))
    _deliver(connection, plain(written), _end(options, HEAD_ENDS))
    if request.method != "HEAD" and not options.has("bad_head"):
        frames = framed.frames(pieces(options, answer))
        end = _end(options, BODY_ENDS, answer)
        _deliver(connection, frames, end, _pause(options))
    if framed.closes or closes or any(map(options.has, ("close", "http10", "bad_head"))):
        connection.finish()


def _end(
    options: Options, ends: dict[str, Callable[[Connection], None]], answer: Answer | None = None
) -> End | None:
    name = next(filter(options.has, ends), None)
    if name is None:
        return None
    before = answer.first if answer is not None and name == "cut_at" else 0
    return End(max(options.count(name, 0) - before, 0), ends[name])


def _pause(options: Options) -> float:
    """Seconds behind each write."""
    return options.counts("trickle")[1] / 1000 if options.has("trickle") else 0


def _deliver(
    connection: Connection, frames: Iterable[Frame], end: End | None, pause: float = 0
) -> None:
    """Send frames; a chunk that the end falls into has already announced its full size."""
    left = None if end is None else end.after
    for before, data, behind in frames:
        if left == 0:
            break
        part = data[:left]
        connection.send(before + part + (behind if len(part) == len(data) else b""))
        left = None if left is None else left - len(part)
        if pause:
            connection.pause(pause)
    if end is not None and left == 0:
        end.act(connection)
