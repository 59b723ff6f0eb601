"""The test upstream and the canary: who leaves is seen, and nothing is left behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.peer import Peer, connected
from tests.upstream import Canary, Upstream, canary, content, upstream
from tests.upstream_canary import has_ipv6
from tests.waiting import wait_until

W = content(6)
SOON = 5  # seconds


@pytest.fixture
def up() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


@pytest.mark.parametrize("leave", [Peer.finish, Peer.reset])
@pytest.mark.parametrize(
    "options",
    [
        "stall=5",
        "stall_head=",
        "accept_only=",
        "endless=",
        "endless=&framing=close",
        "huge_head=",
        "trickle=1,60000",
        "cut=5",
    ],
)
def test_it_sees_who_leaves(up: Upstream, options: str, leave: Callable[[Peer], None]) -> None:
    peer = Peer(up.base)
    peer.ask(f"/file?{options}")
    wait_until(lambda: up.seen, within=SOON, what="the request")
    (connection,) = up.connections
    assert not connection.closed.is_set()
    leave(peer)
    assert connection.closed.wait(SOON)


@pytest.mark.parametrize("framing", ["close", "length"])
def test_an_endless_body_goes_on(up: Upstream, framing: str) -> None:
    with connected(up.base) as peer:
        peer.ask(f"/file?endless=&framing={framing}&size=5")
        assert peer.read_head()
        body = peer.read_at_least(1_000_000)
    assert body == content(len(body))


def test_a_stall_keeps_the_connection(up: Upstream) -> None:
    with connected(up.base) as peer:
        peer.ask("/file?size=6&stall=2")
        assert peer.read_head()
        assert peer.read_at_least(2) == W[:2]
        peer.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            peer.read(1)


@pytest.mark.parametrize("count", [2, 5_000_000])
def test_a_reset_comes_when_all_has_arrived(up: Upstream, count: int) -> None:
    with connected(up.base) as peer:
        peer.ask(f"/file?size=10000000&reset={count}")
        assert peer.read_head()
        assert peer.read_at_least(count) == content(count)
        with pytest.raises(ConnectionResetError):
            peer.read(1)


def test_nothing_is_left_when_it_stops() -> None:
    before, descriptors = set(threading.enumerate()), psutil.Process().num_fds()
    with upstream() as busy, upstream(accept_only=True) as deaf:
        peers = [Peer(busy.base) for _ in range(4)] + [Peer(deaf.base)]
        for peer, options in zip(
            peers, ("stall=", "endless=", "trickle=1,60000", "", ""), strict=True
        ):
            peer.ask(f"/file?{options}")
        wait_until(lambda: len(busy.seen) == 4 and deaf.connections, within=SOON, what="requests")
    assert set(threading.enumerate()) == before
    assert deaf.seen == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", busy.port), SOON)
    for peer in peers:
        peer.read_all()
        peer.finish()
    assert psutil.Process().num_fds() <= descriptors


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_canary_counts_who_connects(host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("the machine has no IPv6")
    with canary() as found:
        assert found.hits == 0
        socket.create_connection((host, found.port), SOON).close()
        assert found.hits == 1
    assert found.hits == 1


def test_a_canary_counts_at_the_look() -> None:
    """Not only when its thread has its turn."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = Canary([listening])
        for number in range(1, 4):
            socket.create_connection(("127.0.0.1", found.port), SOON).close()
            assert found.hits == number
