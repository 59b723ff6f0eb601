"""TLS to an upstream: who it is, and that nothing slips in before it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpcore2
import pytest

from service.download.network import BLOCK, Backend, Connection
from tests.certificates import Certificate, certificate
from tests.names import Names
from tests.peer import LINGER_0
from tests.upstream import content
from tests.waiting import eventually

NAME = "files.example"
SECONDS = 20.0
SHORT = 0.1  # seconds, for what never comes
ASKED = 65_536
BYTES = content(4 * 1024 * 1024)

Speak = Callable[[ssl.SSLSocket], None]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("own"), f"DNS:{NAME}")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("foreign"), f"DNS:{NAME}")


@asynccontextmanager
async def plain() -> AsyncIterator[tuple[Connection, socket.socket]]:
    """A connection without TLS, and its other end."""
    dns = Names()
    dns.serve(NAME, ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        connection = await Backend(None, dns.resolve).connect_tcp(NAME, port, timeout=SECONDS)
        with listening.accept()[0] as peer:
            peer.settimeout(SECONDS)
            try:
                yield connection, peer
            finally:
                await connection.aclose()


@asynccontextmanager
async def encrypted(own: Certificate, speak: Speak, *protocols: str) -> AsyncIterator[Connection]:
    """A connection with TLS to a peer that does ``speak`` in a thread, and then closes."""

    def serve(peer: socket.socket) -> None:
        with own.server(*protocols).wrap_socket(peer, server_side=True) as wrapped:
            speak(wrapped)

    async with plain() as (connection, peer):
        serving = asyncio.create_task(asyncio.to_thread(serve, peer))
        context = own.client()
        context.set_alpn_protocols(protocols)
        found = await connection.start_tls(context, NAME, SECONDS)
        try:
            yield found
        finally:
            await found.aclose()
            with contextlib.suppress(OSError):
                await serving


async def read_all(connection: Connection) -> list[bytes]:
    blocks = []
    while block := await connection.read(ASKED, SECONDS):
        blocks.append(block)
    return blocks


async def test_both_ways(own: Certificate) -> None:
    def echo(peer: ssl.SSLSocket) -> None:
        while data := peer.recv(ASKED):
            peer.sendall(data)

    async with encrypted(own, echo) as connection:
        for text in (b"a", b"b" * 100_000):
            await connection.write(text, SECONDS)
            got = b""
            while len(got) < len(text):
                got += await connection.read(ASKED, SECONDS)
            assert got == text


async def test_large_bodies_arrive_whole(own: Certificate) -> None:
    def send(peer: ssl.SSLSocket) -> None:
        peer.sendall(BYTES)
        peer.unwrap()

    async with encrypted(own, send) as connection:
        blocks = await read_all(connection)
    assert b"".join(blocks) == BYTES
    assert max(map(len, blocks)) <= BLOCK


async def test_a_reset_under_tls(own: Certificate) -> None:
    def send_and_reset(peer: ssl.SSLSocket) -> None:
        peer.sendall(b"some")
        assert peer.recv(1) == b"!"
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)

    async with encrypted(own, send_and_reset) as connection:
        assert await connection.read(ASKED, SECONDS) == b"some"
        await connection.write(b"!", SECONDS)
        with pytest.raises(httpcore2.ReadError):
            await connection.read(ASKED, SECONDS)


async def test_tells_the_protocol_that_was_agreed_on(own: Certificate) -> None:
    async with encrypted(own, lambda _: None, "h2", "http/1.1") as connection:
        agreed = connection.get_extra_info("ssl_object")
        assert agreed.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize(
    ("trusts", "host"),
    [
        ("own", "other.example"),
        ("own", "sub.files.example"),
        ("own", "127.0.0.1"),
        ("foreign", NAME),
        ("certifi", NAME),
    ],
)
async def test_another_server_than_was_asked_for(
    trusts: str, host: str, own: Certificate, foreign: Certificate
) -> None:
    contexts = {"own": own.client, "foreign": foreign.client, "certifi": ssl.create_default_context}

    def serve(peer: socket.socket) -> bytes:
        with own.server().wrap_socket(peer, server_side=True) as wrapped:
            return wrapped.recv(ASKED)

    async with plain() as (connection, peer):
        serving = asyncio.create_task(asyncio.to_thread(serve, peer))
        with pytest.raises(httpcore2.ConnectError):
            await connection.start_tls(contexts[trusts](), host, SECONDS)
        with contextlib.suppress(OSError):
            assert await serving == b""


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"]
)
async def test_a_server_that_speaks_no_tls(said: bytes) -> None:
    def answer(peer: socket.socket) -> None:
        peer.recv(ASKED)
        peer.sendall(said)
        peer.shutdown(socket.SHUT_RDWR)

    async with plain() as (connection, peer):
        serving = asyncio.create_task(asyncio.to_thread(answer, peer))
        with pytest.raises(httpcore2.ConnectError):
            await connection.start_tls(ssl.create_default_context(), NAME, SECONDS)
        await serving


async def test_a_server_that_does_not_answer() -> None:
    async with plain() as (connection, peer):
        with pytest.raises(httpcore2.ConnectTimeout):
            await connection.start_tls(ssl.create_default_context(), NAME, SHORT)

        async def left() -> bool:
            return not await asyncio.to_thread(peer.recv, ASKED)

        await eventually(left, within=SECONDS, what="the connection is closed")


async def test_what_came_before_tls_is_not_taken_for_its_content(own: Certificate) -> None:
    """Whoever is on the way could otherwise answer in the server's name."""
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"

    def serve(peer: socket.socket) -> bytes:
        with own.server().wrap_socket(peer, server_side=True) as wrapped:
            return wrapped.recv(ASKED)

    async with plain() as (connection, peer):
        peer.sendall(forged)

        async def came() -> object:
            return connection.get_extra_info("is_readable")

        await eventually(came, within=SECONDS, what="it has come")
        serving = asyncio.create_task(asyncio.to_thread(serve, peer))
        with pytest.raises(httpcore2.ConnectError):
            await connection.start_tls(own.client(), NAME, SECONDS)
        with contextlib.suppress(OSError):
            assert await serving == b""
