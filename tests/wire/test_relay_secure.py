"""Upstreams behind TLS, and such as speak HTTP/2: the same promises, and certificates that hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.curl import CUT_SHORT, download
from tests.forwarder import Forwarder, forwarder
from tests.jobs import post
from tests.peer import Peer, connected
from tests.relaying import ended, receipt_of, relay_service, relayed, through
from tests.secure_upstream import Secure, secure_upstream, seen_leaving
from tests.serving import Served
from tests.upstream import Upstream, content, upstream
from tests.waiting import wait_until
from tests.wire.problems import check_problem

GONE_WITHIN = 1.0  # seconds
SOON = 20  # seconds
HASTY = 'first_byte_timeout = "500ms"\nstall_timeout = "500ms"\nconnect_timeout = "1s"'
LARGE = 40_000_000  # twice what the windows of HTTP/2 let pass without an acknowledgement
EVERY = ["one", "two"]


@dataclass(frozen=True, slots=True)
class Relays:
    served: Served
    up: Secure
    plain: Upstream
    between: Forwarder
    folder: Path


@pytest.fixture(scope="module")
def running(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    folder = tmp_path_factory.mktemp("served")
    authority, stranger = trustme.CA(), trustme.CA()
    trusted = folder / "trusted.pem"
    authority.cert_pem.write_to_path(str(trusted))
    past = datetime.now(UTC) - timedelta(days=1)
    expired = authority.issue_cert("localhost", not_before=past - timedelta(9), not_after=past)
    ours = f'ca_file = "{trusted}"\n'
    with (
        upstream() as plain,
        secure_upstream(folder / "good", authority.issue_cert("localhost")) as up,
        secure_upstream(folder / "strange", stranger.issue_cert("localhost")) as strange,
        secure_upstream(folder / "late", expired) as late,
        secure_upstream(folder / "old", authority.issue_cert("localhost"), ("http/1.1",)) as old,
        forwarder(up.port) as between,
    ):

        def there(base: str, more: str = "") -> str:
            return f'base_url = "{base}"\n{more}'

        sections = {
            "one": there(up.base, f'{ours}redirects = ["127.0.0.1:{plain.port}"]'),
            "two": there(up.base, f"{ours}http2 = true"),
            "cut_one": there(f"https://localhost:{between.port}", ours),
            "cut_two": there(f"https://localhost:{between.port}", f"{ours}http2 = true"),
            "hasty_one": there(up.base, ours + HASTY),
            "hasty_two": there(up.base, f"{ours}http2 = true\n{HASTY}"),
            "old": there(old.base, f"{ours}http2 = true"),
            "untrusted": there(up.base),
            "strange": there(strange.base, ours),
            "late": there(late.base, ours),
            "misnamed": there(f"https://127.0.0.1:{up.port}", ours),
            "not_tls": there(f"https://127.0.0.1:{plain.port}", ours + HASTY),
            "only_tls": there(f"http://127.0.0.1:{up.port}"),
        }
        with relay_service(folder, module_database_url, "", sections) as served:
            yield Relays(served, up, plain, between, folder)


@pytest.fixture
def relays(running: Relays) -> Relays:
    running.up.forget()
    running.plain.forget()
    return running


@pytest.mark.parametrize("through_", EVERY)
@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"size": 1000}, "1000"),
        ({"size": 0}, "0"),
        ({"size": 3_000_000}, "3000000"),
        ({"size": 3_000_000, "length": ""}, None),
    ],
)
def test_bytes_pass_with_their_proof(
    relays: Relays, through_: str, options: dict[str, Any], length: str | None
) -> None:
    found = relayed(relays.served, through_, **options)
    assert (found.status, found.headers["Content-Length"]) == (200, length)
    assert found.body == content(options["size"])
    receipt = receipt_of(relays.served, found.export_id)
    assert receipt["sha256"] == hashlib.sha256(found.body).hexdigest()
    framing = "http2" if through_ == "two" else "length" if length else "chunked"
    assert receipt["download"]["framing"] == framing
    assert [seen.version for seen in relays.up.seen] == ["2" if through_ == "two" else "1.1"]
    assert relays.up.seen[0].headers["via"] == "1.1 tailrace"


def test_http2_is_only_spoken_with_who_knows_it(relays: Relays) -> None:
    found = relayed(relays.served, "old", size=9)
    assert (found.status, found.body) == (200, content(9))
    assert receipt_of(relays.served, found.export_id)["download"]["framing"] == "length"


@pytest.mark.parametrize("through_", EVERY)
def test_heads_and_parts(relays: Relays, through_: str) -> None:
    head = relayed(relays.served, through_, method="HEAD", size=10**12)
    assert (head.status, head.headers["Content-Length"]) == (200, str(10**12))
    part = relayed(
        relays.served, through_, headers={"Range": "bytes=100-"}, size=1000, etag='"abc"'
    )
    assert (part.status, part.body) == (206, content(1000)[100:])
    assert part.headers["Content-Range"] == "bytes 100-999/1000"
    blocks = relayed(relays.served, through_, size=100_000, chunk_size=4096)
    assert blocks.body == content(100_000)


@pytest.mark.parametrize(
    ("through_", "said"),
    [
        ("untrusted", "certificate"),
        ("strange", "certificate"),
        ("late", "certificate has expired"),
        ("misnamed", "certificate"),
    ],
)
def test_a_certificate_that_does_not_hold_is_said_in_words(
    relays: Relays, through_: str, said: str
) -> None:
    found = relayed(relays.served, through_)
    check_problem(found, 502, "upstream_unavailable")
    assert said in found.json()["detail"]
    assert "localhost" not in found.json()["detail"]
    assert relays.up.seen == []


def test_who_does_not_speak_tls_is_late(relays: Relays) -> None:
    """It waits for a request that it can read."""
    check_problem(relayed(relays.served, "not_tls"), 504, "upstream_timeout")
    assert relays.plain.seen == []


def test_tls_spoken_to_in_plain_is_502(relays: Relays) -> None:
    assert relayed(relays.served, "only_tls").status == 502
    assert relays.up.seen == []


def test_a_redirect_from_https_to_http_is_refused(relays: Relays) -> None:
    """Though the host is one that redirects may lead to."""
    found = relayed(relays.served, "one", location=f"http://127.0.0.1:{relays.plain.port}/file")
    check_problem(found, 502, "redirect_refused")
    assert relays.plain.connections == []


@pytest.mark.parametrize("through_", EVERY)
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"size": 500_000, "stop": 300_000}, "upstream_timeout"),
        ({"size": 500_000, "stop": 300_000, "length": ""}, "upstream_timeout"),
        ({"size": 500_000, "stop": 300_000, "early": ""}, "upstream_unavailable"),
    ],
)
def test_what_breaks_off_breaks(
    relays: Relays, through_: str, options: dict[str, Any], code: str
) -> None:
    found = download(
        relays.served.base + through(f"hasty_{through_}", "/file", **options), relays.folder
    )
    assert (found.status, found.exit_code()) == (200, CUT_SHORT)
    assert content(500_000).startswith(found.body)
    assert ended(relays.served, found.export_id)["error"]["code"] == code
    # The next one is not harmed.
    assert relayed(relays.served, f"hasty_{through_}", size=9).body == content(9)


@pytest.mark.parametrize("through_", EVERY)
def test_what_breaks_off_is_continued(relays: Relays, through_: str) -> None:
    found = relayed(relays.served, f"hasty_{through_}", size=500_000, stop=300_000, etag='"abc"')
    assert found.body == content(500_000)
    assert receipt_of(relays.served, found.export_id)["download"]["reconnects"] == 1


@pytest.mark.parametrize("through_", EVERY)
@pytest.mark.parametrize("stop", [-1, 0])
def test_no_answer_is_504(relays: Relays, through_: str, stop: int) -> None:
    check_problem(
        relayed(relays.served, f"hasty_{through_}", "/slow", stop=stop), 504, "upstream_timeout"
    )
    seen_leaving(relays.up, "/slow", GONE_WITHIN)


@pytest.mark.parametrize("leave", [Peer.finish, Peer.reset])
@pytest.mark.parametrize("through_", EVERY)
def test_whoever_leaves_is_seen_to_leave(
    relays: Relays, through_: str, leave: Callable[[Peer], None]
) -> None:
    with connected(relays.served.base) as peer:
        peer.ask(through(through_, "/left", size=10**9))
        peer.read_at_least(1_000_000)
        leave(peer)
        seen_leaving(relays.up, "/left", GONE_WITHIN)


@pytest.mark.parametrize("through_", EVERY)
def test_so_is_who_leaves_before_the_head(relays: Relays, through_: str) -> None:
    with connected(relays.served.base) as peer:
        peer.ask(through(through_, "/early", stop=-1))
        wait_until(lambda: relays.up.seen, within=SOON, what="the upstream is asked")
        peer.reset()
        seen_leaving(relays.up, "/early", GONE_WITHIN)


@pytest.mark.parametrize("through_", EVERY)
def test_one_that_is_cancelled_is_as_well(relays: Relays, through_: str) -> None:
    with connected(relays.served.base) as peer:
        peer.ask(through(through_, "/cancelled", size=10**9))
        head = peer.read_head().decode().lower()
        export = head.split("x-export-id: ")[1].split()[0]
        assert post(relays.served.base, f"/v1/exports/{export}/cancel").status == 200
        seen_leaving(relays.up, "/cancelled", GONE_WITHIN)
    assert receipt_of(relays.served, export)["outcome"] == "cancelled"


@pytest.mark.parametrize("through_", EVERY)
@pytest.mark.parametrize("options", [{}, {"size": 0}, {"size": 1_000_000}, {"length": ""}])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_one_after_the_other_use_the_same_connection(
    relays: Relays, through_: str, options: dict[str, Any], method: str
) -> None:
    for _ in range(4):
        assert relayed(relays.served, through_, method=method, **options).status == 200
    assert len({seen.port for seen in relays.up.seen}) == 1


@pytest.mark.parametrize("through_", EVERY)
def test_many_at_once(relays: Relays, through_: str) -> None:
    with ThreadPoolExecutor(8) as clients:
        found = list(
            clients.map(lambda _: relayed(relays.served, through_, size=1_000_000), range(16))
        )
    assert {each.body for each in found} == {content(1_000_000)}


@pytest.mark.parametrize("through_", EVERY)
@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"size": 10**9}, 1_000_000),
        ({"size": 10**9}, 1),
        ({"size": 10**9, "length": ""}, 1_000_000),
    ],
)
def test_those_who_leave_take_nothing_from_those_who_come(
    relays: Relays, through_: str, options: dict[str, Any], read: int
) -> None:
    for number in range(1, 5):
        with connected(relays.served.base) as peer:
            peer.ask(through(through_, "/left", **options))
            peer.read_at_least(read)
            peer.reset()
        seen_leaving(relays.up, "/left", SOON, number)
    found = relayed(relays.served, through_, size=LARGE)
    assert hashlib.sha256(found.body).digest() == hashlib.sha256(content(LARGE)).digest()


@pytest.mark.parametrize("through_", EVERY)
def test_those_who_do_not_read_keep_nobody_waiting(relays: Relays, through_: str) -> None:
    with ExitStack() as peers:
        for _ in range(3):
            peer = peers.enter_context(connected(relays.served.base, receive_buffer=4096))
            peer.ask(through(through_, "/slow", size=10**8))
            assert peer.read_head().startswith(b"HTTP/1.1 200")
        found = relayed(relays.served, through_, size=LARGE)
        assert hashlib.sha256(found.body).digest() == hashlib.sha256(content(LARGE)).digest()


@pytest.mark.parametrize("through_", ["cut_one", "cut_two"])
def test_one_that_was_closed_while_idle_is_no_error(relays: Relays, through_: str) -> None:
    """Whether that has been noticed by then or not."""
    for _ in range(5):
        found = relayed(relays.served, through_, size=9)
        assert (found.status, found.body) == (200, content(9))
        relays.between.cut()
    assert len({seen.port for seen in relays.up.seen}) == 5


@pytest.mark.parametrize("through_", ["cut_one", "cut_two"])
def test_one_that_is_cut_is_continued(relays: Relays, through_: str) -> None:
    with connected(relays.served.base) as peer:
        peer.ask(
            through(through_, "/file", size=500_000, stop=300_000, etag='"abc"'),
            "Connection: close",
        )
        assert peer.read_head().startswith(b"HTTP/1.1 200")
        first = peer.read_at_least(100_000)
        relays.between.cut()
        assert first + peer.read_all() == content(500_000)
