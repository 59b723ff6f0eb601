"""Clients over a real socket: one that decodes nothing, and one that stops reading."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 60.0  # seconds
SMALL_BUFFER = 4096  # bytes that the kernel takes for a client that does not read
LINK = re.compile(r'<([^>]*)>; rel="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is what crossed the wire, without the framing of chunks."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def export_id(self) -> str:
        return str(self.headers["X-Export-Id"])

    def link(self, relation: str) -> str | None:
        """The address of that relation in the ``Link`` header (RFC 8288)."""
        return links(self.headers).get(relation)


def links(headers: http.client.HTTPMessage) -> dict[str, str]:
    return {relation: url for url, relation in LINK.findall(headers.get("Link", ""))}


def ask(
    base: str, target: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Answer:
    """One request; ``target`` is a path below ``base`` or a whole address.

    Raises http.client.IncompleteRead when the last chunk is missing.
    """
    parts = urlsplit(base)
    path = target.removeprefix(base)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    with closing(connection):
        connection.request(method, path, headers=dict(headers or {}))
        return _answer(connection.getresponse())


def send_raw(base: str, data: bytes, *, chunks: bool = False) -> Answer:
    """``data`` as it stands, and the answer to it: with ``chunks`` their framing is kept."""
    with closing(_connected(base)) as plain:
        plain.sendall(data)
        with closing(http.client.HTTPResponse(plain)) as response:
            response.begin()
            response.chunked = response.chunked and not chunks
            return _answer(response)


@contextmanager
def stalled(
    base: str, path: str, headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """An answer of which only the head is read; the end of the block closes the connection."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=TIMEOUT)
    with closing(connection):
        connection.sock = _connected(base, SMALL_BUFFER)
        connection.request("GET", path, headers=dict(headers or {}))
        with connection.getresponse() as response:
            yield response


def _connected(base: str, buffer: int | None = None) -> socket.socket:
    parts = urlsplit(base)
    plain = socket.socket()
    plain.settimeout(TIMEOUT)
    if buffer is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    plain.connect((parts.hostname, parts.port))
    return plain


def _answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, response.headers, response.read())
