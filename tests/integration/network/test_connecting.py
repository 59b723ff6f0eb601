"""Connections are made to the addresses that were decided on, and to no others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import httpcore2
import pytest

from service.download.guard import decide
from service.download.network import Backend, Connection
from service.errors import AddressRefused
from tests.names import Answer, Names, info, unknown
from tests.upstream import Canary
from tests.upstream_listener import Listener

DECIDED, OTHER, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
NOBODY = "127.0.0.9"  # nothing listens there
NAME = "files.example"
SECONDS = 20.0  # that nothing here should need
SHORT = 0.2  # seconds, for what never comes


class Places:
    """A canary at each of three addresses, all at one port."""

    def __init__(self, stack: ExitStack) -> None:
        first = socket.create_server((DECIDED, 0))
        self.port: int = first.getsockname()[1]
        others = [socket.create_server((host, self.port)) for host in (OTHER, THIRD)]
        sockets = [stack.enter_context(each) for each in (first, *others)]
        self._canaries = [Canary([each]) for each in sockets]
        for canary in self._canaries:
            stack.enter_context(canary.listener.running())

    @property
    def hits(self) -> tuple[int, ...]:
        return tuple(canary.hits for canary in self._canaries)


@pytest.fixture
def places() -> Iterator[Places]:
    with ExitStack() as stack:
        yield Places(stack)


def only_decided(addresses: Sequence[str]) -> tuple[str, ...]:
    """A decision as the guard makes it, for which one address of loopback is public."""
    if not addresses or any(address != DECIDED for address in addresses):
        raise AddressRefused("not public")
    return tuple(addresses)


def names(*answers: Answer) -> Names:
    found = Names()
    found.serve(NAME, *answers)
    return found


async def connect(
    backend: Backend, port: int, *, host: str = NAME, seconds: float = SECONDS
) -> Connection:
    return await backend.connect_tcp(host, port, timeout=seconds)


async def test_goes_to_the_address_that_was_decided_on(places: Places) -> None:
    dns = names([DECIDED], [OTHER])
    connection = await connect(Backend(only_decided, dns.resolve), places.port)
    assert connection.get_extra_info("peername")[0] == DECIDED
    await connection.aclose()
    assert dns.asked == [(NAME, places.port)]
    assert places.hits == (1, 0, 0)


async def test_a_name_that_moves_inside_is_refused_the_next_time(places: Places) -> None:
    dns = names([DECIDED], [OTHER])
    backend = Backend(only_decided, dns.resolve)
    await (await connect(backend, places.port)).aclose()
    with pytest.raises(AddressRefused):
        await connect(backend, places.port)
    assert len(dns.asked) == 2
    assert places.hits == (1, 0, 0)


@pytest.mark.parametrize(
    "addresses",
    [
        [],
        [OTHER],
        [DECIDED, OTHER],
        [OTHER, DECIDED],
        [DECIDED, DECIDED, THIRD],
        [DECIDED, "::1"],
        [DECIDED, "::ffff:127.0.0.3"],
    ],
    ids=str,
)
async def test_one_bad_address_is_enough(addresses: list[str], places: Places) -> None:
    with pytest.raises(AddressRefused):
        await connect(Backend(only_decided, names(addresses).resolve), places.port)
    assert places.hits == (0, 0, 0)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.2"],
        ["8.8.8.8", "127.0.0.2"],
        ["127.0.0.2", "8.8.8.8"],
        ["2606:4700:4700::1111", "::1"],
        ["::ffff:127.0.0.2"],
        ["::ffff:8.8.8.8"],
        ["::127.0.0.2"],
        ["64:ff9b::7f00:2"],
        ["2002:7f00:2::1"],
        ["fe80::1%1"],
        ["fe80::1%2", "8.8.8.8"],
        ["0.0.0.0"],  # noqa: S104 - nothing is bound to it
        ["::"],
        ["169.254.169.254"],
        [],
    ],
    ids=str,
)
async def test_the_guard_decides_on_every_address(addresses: list[str], places: Places) -> None:
    with pytest.raises(AddressRefused) as refused:
        await connect(Backend(decide, names(addresses).resolve), places.port)
    assert refused.value.status == 403
    assert places.hits == (0, 0, 0)


async def test_an_address_in_another_spelling_is_not_gone_to(places: Places) -> None:
    """No resolver writes one so; one that did would be taken at its word by nobody."""

    def decided(addresses: Sequence[str]) -> Sequence[str]:
        return ("2001:db8::1",)

    with pytest.raises(httpcore2.ConnectError):
        await connect(Backend(decided, names(["2001:DB8:0::1"]).resolve), places.port)


async def test_goes_to_none_where_none_is_left(places: Places) -> None:
    with pytest.raises(httpcore2.ConnectError):
        await connect(Backend(None, names([]).resolve), places.port)
    assert places.hits == (0, 0, 0)


async def test_a_decision_may_leave_addresses_out(places: Places) -> None:
    dns = names([OTHER, DECIDED, THIRD])
    connection = await connect(Backend(lambda _: [DECIDED], dns.resolve), places.port)
    await connection.aclose()
    assert places.hits == (1, 0, 0)


@pytest.mark.parametrize(
    "failure",
    [
        unknown(),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure in name resolution"),
        OSError(24, "Too many open files"),
    ],
    ids=lambda failure: str(failure.errno),
)
async def test_a_name_that_cannot_be_looked_up(failure: OSError) -> None:
    with pytest.raises(httpcore2.ConnectError):
        await connect(Backend(only_decided, names(failure).resolve), 80)


@pytest.mark.parametrize("host", [f"{'x' * 64}.example", "a..example", ".example"])
async def test_a_name_that_no_resolver_takes(host: str) -> None:
    with pytest.raises(httpcore2.ConnectError):
        await connect(Backend(), 80, host=host)


async def test_the_wait_for_a_name_is_part_of_the_time_to_connect() -> None:
    with pytest.raises(httpcore2.ConnectTimeout):
        await connect(Backend(only_decided, names(None).resolve), 80, seconds=SHORT)


async def test_nobody_listens(places: Places) -> None:
    with pytest.raises(httpcore2.ConnectError):
        await connect(Backend(None, names([NOBODY, "127.0.0.10"]).resolve), places.port)


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """A listener that takes nothing in any more: its system drops every further SYN."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.5", 0))
        listening.listen(0)
        address = listening.getsockname()
        # One more than the backlog is taken in (listen(2)); what then comes, is left to wait.
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(address)
        yield address


async def test_an_address_that_does_not_answer(full: tuple[str, int]) -> None:
    host, port = full
    with pytest.raises(httpcore2.ConnectTimeout):
        await connect(Backend(None, names([host]).resolve), port, seconds=SHORT)


@pytest.mark.parametrize("first", ["silent", "refusing"])
async def test_the_next_address_is_tried(first: str, full: tuple[str, int]) -> None:
    silent, port = full
    taken: list[socket.socket] = []
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((DECIDED, port)))
        stack.enter_context(Listener([listening], taken.append).running())
        dns = names([silent if first == "silent" else NOBODY, DECIDED])
        connection = await connect(Backend(None, dns.resolve), port)
        assert connection.get_extra_info("peername")[:2] == (DECIDED, port)
        await connection.aclose()
    assert len(taken) == 1
    taken[0].close()


async def test_who_gives_up_connecting_leaves_no_socket(full: tuple[str, int]) -> None:
    """ResourceWarning is an error here, for sockets too."""
    host, port = full
    task = asyncio.create_task(connect(Backend(None, names([host]).resolve), port))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_zone_stands_beside_the_address() -> None:
    """The table of names is as the system's resolver would tell it."""
    (found,) = socket.getaddrinfo("::1%0", 80, type=socket.SOCK_STREAM)
    assert found == info("::1%0", 80)
