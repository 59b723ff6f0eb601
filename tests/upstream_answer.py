"""What the test upstream answers before it is framed: a status, fields and a body. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

Fields = tuple[tuple[str, str], ...]

WRITE = 65_536  # bytes of a write where nothing else is asked for


@dataclass(frozen=True, slots=True)
class Body:
    """``size`` bytes, None for one without an end; ``read(first, last)`` includes both."""

    size: int | None
    read: Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """``first`` is where in the file the body begins."""

    status: int
    fields: Fields
    body: Body
    first: int = 0
    pieces: tuple[int, ...] = (WRITE,)

    def field(self, name: str) -> str | None:
        return next((value for found, value in self.fields if found == name), None)

    def having(self, *fields: tuple[str, str]) -> Answer:
        """With more fields."""
        return replace(self, fields=(*self.fields, *fields))

    def without(self, *names: str) -> Answer:
        return replace(self, fields=tuple(pair for pair in self.fields if pair[0] not in names))


def held(data: bytes) -> Body:
    """A body that is in memory."""
    return Body(len(data), lambda first, last: data[first : last + 1])


def bare(status: int, *fields: tuple[str, str]) -> Answer:
    """An answer without content."""
    return Answer(status, fields, held(b""))
