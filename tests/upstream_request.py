"""A request as the test upstream received it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """``headers`` are the fields in their order and spelling; ``raw`` is the head as it came."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    connection: int  # the number of the connection that it came on
    raw: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        return urlsplit(self.target).query

    @property
    def length(self) -> int:
        """The bytes of the body that follows; one that is chunked is not read."""
        return int(self.header("Content-Length") or 0)

    @property
    def last(self) -> bool:
        """Whether its client wants no other answer on the connection."""
        wish = (self.header("Connection") or "").lower()
        return "close" in wish or (self.version == "HTTP/1.0" and "keep-alive" not in wish)

    def values(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The values of a field as one (RFC 9110, section 5.3)."""
        values = self.values(name)
        return ", ".join(values) if values else None


def parse(raw: bytes, connection: int) -> Request:
    """The request of a head with its empty line; ValueError for anything else."""
    start, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = start.split(" ")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise ValueError(line)
        headers.append((name, value.strip(" \t")))
    return Request(method, target, version, tuple(headers), connection, raw)
