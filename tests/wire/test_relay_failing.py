"""What an upstream does wrong: before the first byte it is a problem, behind it a broken transfer."""

from __future__ import annotations

import hashlib
import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.curl import CUT_SHORT, download
from tests.relaying import ended, receipt_of, recorded, relay_service, relayed, through
from tests.serving import Served
from tests.upstream import Connection, Upstream, content, encoded, upstream
from tests.wire.problems import check_problem

Options = dict[str, Any]

SIZE, CUT = 1_000_000, 500_000
MOST = 100_000  # bytes that "small" passes on
MEMORY = 60_000_000  # bytes, for an answer of more
HASTY = 'connect_timeout = "1s"\nfirst_byte_timeout = "300ms"\nstall_timeout = "300ms"'
SECTIONS = {
    "plain": "",
    "hasty": HASTY,
    "small": f'max_size = "{MOST}B"',
    "open": f"unframed = true\n{HASTY}",
}


@dataclass(frozen=True, slots=True)
class Failing:
    served: Served
    up: Upstream

    def used(self) -> list[Connection]:
        """The connection of each request."""
        return [self.up.connection(seen.connection) for seen in self.up.seen]


@pytest.fixture(scope="module")
def running(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Failing]:
    with upstream() as up, upstream(accept_only=True) as deaf, ExitStack() as sockets:
        closed, full = (sockets.enter_context(socket.socket()) for _ in range(2))
        for each in (closed, full):
            each.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):  # nobody takes them in, and so the kernel answers no other
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        there = 'base_url = "http://127.0.0.1:{}"\n{}'
        sections = SECTIONS | {
            "away": there.format(closed.getsockname()[1], HASTY),
            "full": there.format(full.getsockname()[1], 'connect_timeout = "300ms"'),
            "deaf": there.format(deaf.port, HASTY),
        }
        folder = tmp_path_factory.mktemp("served")
        with relay_service(folder, module_database_url, up.base, sections) as served:
            yield Failing(served, up)


@pytest.fixture
def failing(running: Failing) -> Failing:
    running.up.forget()
    return running


UNAVAILABLE, WRONG, LATE = "upstream_unavailable", "upstream_error", "upstream_timeout"
REFUSED = "redirect_refused"


@pytest.mark.parametrize(
    ("through_", "path", "options", "status", "code"),
    [
        ("away", "/file", {}, 502, UNAVAILABLE),
        ("full", "/file", {}, 504, LATE),
        ("deaf", "/file", {}, 504, LATE),
        ("plain", "/file", {"cut_head": 0}, 502, UNAVAILABLE),
        ("plain", "/file", {"cut_head": 20}, 502, UNAVAILABLE),
        ("plain", "/file", {"reset_head": 0}, 502, UNAVAILABLE),
        ("plain", "/file", {"reset_head": 20}, 502, UNAVAILABLE),
        ("plain", "/file", {"cut": 0}, 502, UNAVAILABLE),
        ("plain", "/file", {"reset": 0}, 502, UNAVAILABLE),
        ("plain", "/file", {"framing": "chunked", "cut": 0}, 502, UNAVAILABLE),
        ("plain", "/file", {"bad_head": ""}, 502, WRONG),
        ("plain", "/file", {"bad_head": "HTTP/1.1 abc OK"}, 502, WRONG),
        ("plain", "/file", {"bad_head": "HTTP/1.1 20 OK"}, 502, WRONG),
        ("plain", "/file", {"bad_head": "HTTP/9.9 200 OK"}, 502, WRONG),
        ("plain", "/file", {"bad_head": "<html>"}, 502, WRONG),
        ("plain", "/file", {"two_lengths": ""}, 502, WRONG),
        ("plain", "/file", {"bad_length": "abc"}, 502, WRONG),
        ("plain", "/file", {"bad_length": "-1"}, 502, WRONG),
        ("plain", "/file", {"bad_length": "+5"}, 502, WRONG),
        ("plain", "/file", {"bad_length": "0x10"}, 502, WRONG),
        ("plain", "/file", {"bad_length": "5, 6"}, 502, WRONG),
        ("plain", "/file", {"bad_length": "9" * 30}, 502, WRONG),
        ("plain", "/file", {"header": "Transfer-Encoding:gzip, chunked"}, 502, WRONG),
        ("plain", "/file", {"header": "Transfer-Encoding:identity"}, 502, WRONG),
        ("plain", "/file", {"bad_header": "nul"}, 502, WRONG),
        ("plain", "/file", {"bad_header": "cr"}, 502, WRONG),
        ("plain", "/file", {"bad_header": "space"}, 502, WRONG),
        ("plain", "/file", {"bad_header": "colonless"}, 502, WRONG),
        ("plain", "/file", {"bad_header": "nameless"}, 502, WRONG),
        ("plain", "/file", {"many_headers": 1_000_000}, 502, WRONG),
        ("hasty", "/file", {"stall_head": 0}, 504, LATE),
        ("hasty", "/file", {"stall_head": 20}, 504, LATE),
        ("hasty", "/file", {"accept_only": ""}, 504, LATE),
        ("hasty", "/file", {"stall": 0}, 504, LATE),
        ("hasty", "/file", {"hints": 300_000}, 504, LATE),
        ("small", "/file", {"size": MOST + 1}, 413, "too_large"),
        ("small", "/file", {"size": 10**15}, 413, "too_large"),
        ("plain", "/loop", {}, 502, REFUSED),
        ("plain", "/loop", {"code": 308}, 502, REFUSED),
        ("plain", "/chain", {"n": 6}, 502, REFUSED),
        ("plain", "/file", {"redirect": "http://127.0.0.1:1/"}, 502, REFUSED),
        ("plain", "/file", {"redirect": "//evil.example/file"}, 502, REFUSED),
        ("plain", "/file", {"redirect": "http://[::1"}, 502, REFUSED),
        ("plain", "/file", {"redirect": "http://[x]/"}, 502, REFUSED),
        ("plain", "/file", {"redirect": "http://a\xef\xbc\x8fb/"}, 502, REFUSED),
        ("plain", "/file", {"redirect": "ftp://127.0.0.1/file"}, 502, REFUSED),
        ("plain", "/file", {"redirect": "file:///etc/passwd"}, 502, REFUSED),
        ("plain", "/file", {"redirect": "javascript:alert(1)"}, 502, REFUSED),
        ("plain", "/file", {"redirect": "%2e%2e/%2e%2e/x"}, 502, REFUSED),
    ],
)
def test_before_the_first_byte_it_is_a_problem(
    failing: Failing, through_: str, path: str, options: Options, status: int, code: str
) -> None:
    before = recorded(failing.served)
    found = relayed(failing.served, through_, path, **options)
    check_problem(found, status, code)
    assert through_ in found.json()["detail"] or code == "too_large"
    # Without a byte there is nothing to prove.
    assert "X-Export-Id" not in found.headers
    assert recorded(failing.served) == before
    if code != REFUSED:
        assert all(connection.closed.wait(1) for connection in failing.used())


def test_a_problem_says_nothing_of_the_inside_and_the_log_the_cause(failing: Failing) -> None:
    found = relayed(failing.served, "away")
    assert "127.0.0.1" not in found.json()["detail"]
    told = failing.served.events("upstream failed")
    assert "ConnectError" in str(told[-1])


def test_a_hundred_megabytes_of_headers_are_not_held(failing: Failing) -> None:
    process = psutil.Process(failing.served.process.pid)
    before = process.memory_info().rss
    check_problem(relayed(failing.served, "plain", huge_head=100_000_000), 502, WRONG)
    assert process.memory_info().rss - before < MEMORY
    (connection,) = failing.used()
    assert connection.closed.wait(1)
    assert connection.sent < MEMORY


@pytest.mark.parametrize(
    ("through_", "options", "code"),
    [
        ("plain", {"cut": CUT}, UNAVAILABLE),
        ("plain", {"cut": CUT, "http10": ""}, UNAVAILABLE),
        ("plain", {"cut": CUT, "ranges": 1}, UNAVAILABLE),
        ("plain", {"cut": SIZE - 1}, UNAVAILABLE),
        ("plain", {"reset": CUT}, UNAVAILABLE),
        ("plain", {"short": 1}, UNAVAILABLE),
        ("plain", {"short": 10**12}, UNAVAILABLE),
        ("hasty", {"stall": CUT}, LATE),
        ("hasty", {"stall": CUT, "framing": "chunked"}, LATE),
        ("plain", {"cut": CUT, "framing": "chunked"}, UNAVAILABLE),
        ("plain", {"reset": CUT, "framing": "chunked"}, UNAVAILABLE),
        ("plain", {"cut_tail": ""}, UNAVAILABLE),
        ("plain", {"bad_chunk": "zz"}, WRONG),
        ("plain", {"bad_chunk": "-1"}, WRONG),
        ("plain", {"bad_chunk": "f" * 30}, WRONG),
        ("open", {"reset": CUT, "framing": "close"}, UNAVAILABLE),
        ("open", {"stall": CUT, "framing": "close"}, LATE),
        ("small", {"endless": ""}, "too_large"),
        ("small", {"framing": "chunked"}, "too_large"),
    ],
)
@pytest.mark.parametrize("query", ["", "&chunk_size=4096"])
def test_behind_the_first_byte_the_transfer_breaks(
    failing: Failing, tmp_path: Path, through_: str, options: Options, code: str, query: str
) -> None:
    path = through(through_, "/file", **{"size": SIZE, "pieces": 20_000} | options)
    found = download(failing.served.base + path + query, tmp_path)
    assert (found.status, found.exit_code()) == (200, CUT_SHORT)
    assert content(SIZE).startswith(found.body)
    assert found.size <= (MOST if through_ == "small" else SIZE)
    record = ended(failing.served, found.export_id)
    assert (record["state"], record["error"]["code"]) == ("failed", code)
    receipt = receipt_of(failing.served, found.export_id)
    assert receipt["outcome"] == "failed"
    assert receipt["download"]["reconnects"] == 0
    # Of what it says to be of, be it more than has arrived.
    assert receipt["bytes"] >= found.size
    passed = content(receipt["bytes"])
    assert receipt["sha256"] == hashlib.sha256(passed).hexdigest()
    (connection,) = failing.used()
    assert connection.closed.wait(1)


@pytest.mark.parametrize("options", [{"cut": CUT}, {"reset": CUT}, {"cut_tail": ""}])
def test_a_client_of_another_kind_sees_it_too(failing: Failing, options: Options) -> None:
    with pytest.raises(http.client.IncompleteRead):
        relayed(failing.served, "plain", size=SIZE, **options)


def test_a_coded_body_breaks_as_well(failing: Failing, tmp_path: Path) -> None:
    path = through("plain", "/file", size=SIZE, gzip="", cut=CUT)
    found = download(failing.served.base + path, tmp_path, "-H", "Accept-Encoding: gzip")
    assert found.exit_code() == CUT_SHORT
    assert encoded(SIZE).startswith(found.body)
    receipt = receipt_of(failing.served, found.export_id)
    assert (receipt["outcome"], receipt["bytes"]) == ("failed", None)


@pytest.mark.parametrize("size", [1, 1000, SIZE])
def test_of_more_than_was_announced_nothing_passes(failing: Failing, size: int) -> None:
    """And what came behind is not taken for the next answer."""
    found = relayed(failing.served, "plain", size=size + 7, long=7)
    assert (found.status, found.body) == (200, content(size))
    again = relayed(failing.served, "plain", size=1000)
    assert (again.status, again.body) == (200, content(1000))
    first, second = failing.up.seen
    assert first.connection != second.connection
    assert failing.up.connection(first.connection).closed.wait(1)


def test_an_error_that_breaks_off_breaks_too(failing: Failing, tmp_path: Path) -> None:
    before = recorded(failing.served)
    path = through("plain", "/file", size=SIZE, status=500, cut=CUT)
    found = download(failing.served.base + path, tmp_path)
    assert (found.status, found.exit_code()) == (500, CUT_SHORT)
    assert recorded(failing.served) == before


def test_a_redirect_that_may_be_followed_is(failing: Failing) -> None:
    found = relayed(failing.served, "plain", "/chain", n=5, size=7)
    assert (found.status, found.body) == (200, content(7))
    assert len(failing.up.seen) == 6
    assert len({seen.connection for seen in failing.up.seen}) == 1


def test_a_redirect_to_nowhere_passes_as_it_is(failing: Failing) -> None:
    found = relayed(failing.served, "plain", size=7, status=302)
    assert (found.status, found.body) == (302, content(7))


@pytest.mark.parametrize("options", [{"reset_head": 0}, {"cut_head": 0}, {"cut_head": 9}])
def test_an_idle_connection_that_ends_meanwhile_is_no_error(
    failing: Failing, options: Options
) -> None:
    """At the very moment of the request: the next one is on a connection that is new."""
    assert relayed(failing.served, "plain", size=5).status == 200
    found = relayed(failing.served, "plain", size=7, cut_times=1, **options)
    assert (found.status, found.body) == (200, content(7))
    idle, reset, new = (seen.connection for seen in failing.up.seen)
    assert (idle == reset, reset == new) == (True, False)
