"""Whoever ends a relay, and whenever: the upstream is let go within a second, and nothing leaks."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clients import ask
from tests.curl import CUT_SHORT, download, downloading
from tests.jobs import post
from tests.peer import Peer, connected
from tests.relaying import ended, receipt_of, recorded, relay_service, relayed, through
from tests.serving import Served, without_worker
from tests.upstream import Connection, Upstream, content, lines, upstream
from tests.waiting import wait_until
from tests.wire.problems import check_problem

Options = dict[str, Any]

GONE_WITHIN = 1.0  # seconds
SOON = 20  # seconds
AT_ONCE = 8
RELAYS = 200
TAG = '"abc"'
SECTIONS = {
    "plain": "",
    "stubborn": "retries = 100",
    "narrow": 'max_connections = 1\nconnect_timeout = "300ms"\nretries = 100\n'
    'first_byte_timeout = "2s"\nstall_timeout = "2s"',
    "tight": 'max_connections = 1\nfirst_byte_timeout = "300ms"\nstall_timeout = "300ms"',
    "few": f"max_connections = {AT_ONCE}",
    "brief": 'max_duration = "500ms"',
}
SMALL_BUFFER = 4096
STALL = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Relays:
    served: Served
    up: Upstream
    url: str
    folder: Path

    def used(self) -> list[Connection]:
        """The connection of each request."""
        return [self.up.connection(seen.connection) for seen in self.up.seen]

    def asked(self, count: int = 1) -> None:
        """Wait until the upstream has been asked so many times."""
        wait_until(lambda: len(self.up.seen) >= count, within=SOON, what="the upstream is asked")

    def let_go(self, within: float = GONE_WITHIN) -> None:
        """The upstream sees within so many seconds that nobody is there any more."""
        for connection in self.used():
            assert connection.closed.wait(within)

    def idle(self) -> None:
        """Wait until no slot is taken, and no stream is being sent."""

        def nothing() -> bool:
            status = self.served.get("/v1/status")
            taken = [each["slots"]["taken"] for each in status["upstreams"].values()]
            return not (status["streams"] or any(taken))

        wait_until(nothing, within=SOON, what="nothing is held")


@pytest.fixture(scope="module")
def running(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    folder = tmp_path_factory.mktemp("served")
    with (
        upstream() as up,
        relay_service(
            folder, module_database_url, up.base, SECTIONS, limits__stall_timeout=f"{STALL}s"
        ) as served,
    ):
        yield Relays(served, up, module_database_url, folder)


@pytest.fixture
def relays(running: Relays) -> Relays:
    running.up.forget()
    return running


@dataclass(frozen=True, slots=True)
class Phase:
    """Where a relay stands when its client has read ``read`` bytes, and ``asked`` were made."""

    options: Options
    read: int = 0
    asked: int = 1


PHASES = {
    "before the head": Phase({"stall_head": 0}),
    "within the head": Phase({"stall_head": 20}),
    "before the first byte": Phase({"size": 9, "stall": 0}),
    "in the middle": Phase({"endless": ""}, read=1_000_000),
    "in the middle of chunks": Phase({"endless": "", "pieces": 999}, read=1_000_000),
    "in the middle of a length": Phase({"size": 10**12}, read=1_000_000),
    "while it stalls": Phase({"size": 100_000, "stall": 50_000}, read=50_000),
    "while it trickles": Phase({"size": 100_000, "trickle": "1,30000"}, read=1),
    "between two tries": Phase(
        {
            "size": 100_000,
            "etag": TAG,
            "ranges": 1,
            "cut": 50_000,
            "cut_times": 1,
            "status": 503,
            "status_after": 1,
        },
        read=50_000,
        asked=5,
    ),
    "while it does not go on": Phase(
        {
            "size": 100_000,
            "etag": TAG,
            "ranges": 1,
            "cut": 50_000,
            "cut_times": 1,
            "accept_only": "",
            "accept_only_after": 1,
        },
        read=50_000,
        asked=2,
    ),
}


@contextmanager
def reached(relays: Relays, upstream: str, phase: Phase) -> Iterator[Peer]:
    """A client whose relay is in that phase."""
    with connected(relays.served.base) as peer:
        peer.ask(through(upstream, "/file", **phase.options))
        if phase.read:
            assert peer.read_head().startswith(b"HTTP/1.1 200")
            peer.read_at_least(phase.read)
        relays.asked(phase.asked)
        yield peer


def error_of(relays: Relays) -> Any:
    """The code of the error of the newest record."""
    (export, *_) = recorded(relays.served)
    return ended(relays.served, export)["error"]["code"]


@pytest.mark.parametrize("leave", [Peer.finish, Peer.reset])
@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_a_client_that_leaves_takes_the_upstream_along(
    relays: Relays, phase: Phase, leave: Callable[[Peer], None]
) -> None:
    before = recorded(relays.served)
    with reached(relays, "stubborn", phase) as peer:
        leave(peer)
        relays.let_go()
    relays.idle()
    asked = len(relays.up.seen)
    if phase.read:
        assert error_of(relays) == "client_left"
        assert receipt_of(relays.served, recorded(relays.served)[0])["outcome"] == "truncated"
    else:
        assert recorded(relays.served) == before
    assert len(relays.up.seen) == asked


def test_a_client_that_stops_reading_does_as_well(relays: Relays) -> None:
    with connected(relays.served.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask(through("plain", "/file", endless=""))
        assert peer.read_head().startswith(b"HTTP/1.1 200")
        relays.let_go(STALL * 5)
    relays.idle()
    assert error_of(relays) == "client_stalled"
    assert relays.used()[0].sent < 50_000_000


@pytest.fixture(scope="module")
def replica(running: Relays, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another process, which has the database in common and not the relay."""
    with without_worker(tmp_path_factory.mktemp("replica"), running.url) as other:
        yield other.base


@pytest.mark.parametrize("by", ["itself", "another"])
@pytest.mark.parametrize("phase", ["in the middle", "while it stalls", "between two tries"])
def test_one_that_is_cancelled_stops_with_proof(
    relays: Relays, replica: str, phase: str, by: str
) -> None:
    base = replica if by == "another" else relays.served.base
    with reached(relays, "stubborn", PHASES[phase]) as peer:
        (export, *_) = recorded(relays.served)
        answer = post(base, f"/v1/exports/{export}/cancel")
        assert answer.status in (200, 202), answer.body
        relays.let_go()
        assert not peer.read_all().endswith(b"0\r\n\r\n")
    record = ended(relays.served, export)
    assert (record["state"], record["error"]["code"]) == ("cancelled", "cancelled")
    receipt = receipt_of(relays.served, export)
    assert receipt["outcome"] == "cancelled"
    assert receipt["cancel"]["backend_gone"] is True
    assert 0 <= receipt["cancel"]["latency_ms"] < 1000
    relays.idle()


def test_curl_sees_that_it_was_cancelled(relays: Relays) -> None:
    path = relays.served.base + through("plain", "/file", size=10**12)
    with downloading(path, relays.folder) as found:
        wait_until(lambda: found.size > 0, within=SOON, what="bytes arrive")
        assert post(relays.served.base, f"/v1/exports/{found.export_id}/cancel").status == 200
        assert found.exit_code() == CUT_SHORT


def test_a_service_that_stops_lets_go(relays: Relays, database_url: str, tmp_path: Path) -> None:
    with relay_service(
        tmp_path, database_url, relays.up.base, SECTIONS, limits__drain_timeout="300ms"
    ) as served:
        stopping = Relays(served, relays.up, database_url, tmp_path)
        with (
            reached(stopping, "plain", PHASES["in the middle"]) as middle,
            reached(stopping, "plain", PHASES["while it stalls"]) as stalled,
            reached(stopping, "plain", PHASES["before the head"]) as early,
        ):
            relays.asked(3)
            served.process.send_signal(signal.SIGTERM)
            answers = [peer.read_all() for peer in (middle, stalled, early)]
            assert served.process.wait(SOON) == 0
        relays.let_go()
        assert not [answer for answer in answers if answer.endswith(b"0\r\n\r\n")]
        assert b'"code":"draining"' in answers[2]
        told = served.events("stream ended")
        assert [event["outcome"] for event in told] == ["truncated"] * 2


def test_a_relay_that_takes_too_long_is_broken_off(relays: Relays) -> None:
    found = download(
        relays.served.base + through("brief", "/file", size=10**6, trickle="1,20"), relays.folder
    )
    assert (found.status, found.exit_code()) == (200, CUT_SHORT)
    assert ended(relays.served, found.export_id)["error"]["code"] == "deadline_exceeded"
    relays.let_go()


def test_one_that_does_not_begin_in_time_is_504(relays: Relays) -> None:
    check_problem(relayed(relays.served, "brief", stall_head=0), 504, "deadline_exceeded")
    relays.let_go()


ENDINGS: dict[str, Options] = {
    "whole": {"size": 9},
    "chunked": {"size": 9, "framing": "chunked"},
    "empty": {"size": 0},
    "error": {"size": 9, "status": 500},
    "unframed": {"framing": "close"},
    "redirects": {"redirect": "http://127.0.0.1:1/"},
    "no answer": {"cut_head": 0},
    "wrong answer": {"bad_head": ""},
    "no head": {"stall_head": 0},
    "no byte": {"stall": 0},
    "cut": {"size": 200_000, "cut": 100_000},
    "stalled": {"size": 200_000, "stall": 100_000},
    "continued": {"size": 99, "etag": TAG, "ranges": 1, "cut": 50, "cut_times": 1},
}


@pytest.mark.parametrize("options", ENDINGS.values(), ids=ENDINGS)
def test_the_slot_is_free_after_each_ending(relays: Relays, options: Options) -> None:
    download(relays.served.base + through("tight", "/file", **options), relays.folder)
    found = relayed(relays.served, "tight", size=5)
    assert (found.status, found.body) == (200, content(5))
    relays.idle()


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_who_finds_no_slot_is_told_when_to_come_again(relays: Relays, phase: Phase) -> None:
    with reached(relays, "narrow", phase) as peer:
        if phase.options.keys().isdisjoint({"status", "accept_only"}):
            found = relayed(relays.served, "narrow", size=5)
            check_problem(found, 503, "busy")
            assert int(found.headers["Retry-After"]) > 0
            # Others do not wait for it.
            assert relayed(relays.served, "plain", size=5).status == 200
        peer.reset()
        relays.idle()
    assert relayed(relays.served, "narrow", size=5).status == 200


class TestKeptConnections:
    @pytest.mark.parametrize(
        ("options", "method", "headers", "query"),
        [
            ({"size": 9}, "GET", {}, ""),
            ({"size": 0}, "GET", {}, ""),
            ({"size": 1_000_000}, "GET", {}, ""),
            ({"size": 1_000_000, "framing": "chunked"}, "GET", {}, ""),
            ({"size": 1_000_000}, "GET", {}, "&chunk_size=4096"),
            ({"size": 9, "gzip": ""}, "GET", {}, ""),
            ({"size": 9, "etag": TAG, "ranges": 1}, "GET", {"Range": "bytes=1-2"}, ""),
            ({"size": 9, "etag": TAG}, "GET", {"If-None-Match": TAG}, ""),
            ({"size": 9}, "HEAD", {}, ""),
            ({"size": 9, "status": 404}, "GET", {}, ""),
            ({"status": 204}, "GET", {}, ""),
        ],
    )
    def test_one_after_the_other_use_the_same(
        self, relays: Relays, options: Options, method: str, headers: dict[str, str], query: str
    ) -> None:
        for _ in range(3):
            path = through("few", "/file", **options) + query
            assert ask(relays.served.base, path, method, headers).status < 500
        assert len({seen.connection for seen in relays.up.seen}) == 1

    def test_lines_as_well(self, relays: Relays) -> None:
        for _ in range(3):
            found = ask(relays.served.base, through("few", "/lines", n=9) + "&lines=1")
            assert found.body == b"".join(lines(9))
        assert len({seen.connection for seen in relays.up.seen}) == 1

    @pytest.mark.parametrize("close", ["", "silent"])
    def test_one_that_the_upstream_has_closed_is_no_error(self, relays: Relays, close: str) -> None:
        for _ in range(5):
            found = relayed(relays.served, "few", size=9, close=close)
            assert (found.status, found.body) == (200, content(9))
        assert len({seen.connection for seen in relays.up.seen}) == 5


@pytest.mark.parametrize(
    "options",
    [
        *({"size": 9}, {"size": 9, "close": ""}, {"framing": "close"}, {"cut_head": 0}),
        *({"size": 300_000, "cut": 200_000}, {"endless": ""}, {"stall": 0}),
    ],
)
def test_no_descriptor_is_left_behind(relays: Relays, options: Options) -> None:
    """Of clients that read a little of what there is, and then go."""

    def once(_: int) -> None:
        with connected(relays.served.base) as peer:
            peer.ask(through("few", "/file", **options), "Connection: close")
            if "stall" in options:
                relays.asked()
            else:
                assert peer.read(1)

    process = psutil.Process(relays.served.process.pid)
    with ThreadPoolExecutor(AT_ONCE) as clients:
        list(clients.map(once, range(2 * AT_ONCE)))
        relays.idle()
        before = process.num_fds()
        list(clients.map(once, range(RELAYS)))
    relays.idle()
    wait_until(
        lambda: process.num_fds() <= before, within=SOON, what=f"{before} descriptors are open"
    )
