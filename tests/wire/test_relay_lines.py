"""JSON lines of an upstream, framed anew whatever pieces they come in."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients import ask, send_raw
from tests.relaying import receipt_of, recorded, through
from tests.upstream import lines
from tests.wire.problems import check_problem
from tests.wire.relays import MAX_LINE, Relays, running_relays

TAG, DATE = '"abc"', "Thu, 01 Jan 2026 00:00:00 GMT"
Options = dict[str, Any]


@pytest.fixture(scope="module")
def running(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    with running_relays(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture
def relays(running: Relays) -> Relays:
    running.up.forget()
    running.elsewhere.forget()
    return running


class TestLines:
    """JSON lines, in pieces that are cut anywhere."""

    def test_they_pass_whole(self, relays: Relays) -> None:
        asked = {"Range": "bytes=5-", "If-Range": TAG, "Accept-Encoding": "gzip"}
        path = through("plain", "/lines", n=500, etag=TAG, ranges=1, modified=DATE)
        found = ask(relays.served.base, f"{path}&lines=1", headers=asked)
        assert found.status == 200
        assert found.body == b"".join(lines(500))
        assert found.headers["Content-Type"] == "application/x-ndjson"
        gone = {"Content-Length", "ETag", "Last-Modified", "Accept-Ranges"}
        assert not gone.intersection(found.headers)
        (seen,) = relays.up.seen
        assert seen.header("Accept-Encoding") == "identity"
        assert not [name for name in ("Range", "If-Range") if seen.header(name)]
        receipt = receipt_of(relays.served, found.export_id)
        assert (receipt["rows"], receipt["format"]) == (500, "ndjson")
        assert receipt["bytes"] == len(found.body)
        assert receipt["sha256"] == hashlib.sha256(found.body).hexdigest()
        assert receipt["download"]["skipped_lines"] == 0

    def test_a_last_one_without_an_end_gets_one(self, relays: Relays) -> None:
        path = through("plain", "/lines", n=3, unended="")
        found = ask(relays.served.base, f"{path}&lines=1")
        assert found.body == b"".join(lines(3))

    def test_every_block_on_the_wire_ends_with_a_line(self, relays: Relays) -> None:
        path = f"{through('plain', '/lines', n=300)}&lines=1"
        raw = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        found = send_raw(relays.served.base, raw.encode(), chunks=True)
        sizes, rest = [], found.body
        while (size := int(rest.partition(b"\r\n")[0], 16)) > 0:
            rest = rest.partition(b"\r\n")[2]
            assert rest[:size].endswith(b"\n")
            sizes.append(size)
            rest = rest[size + 2 :]
        assert sum(sizes) == len(b"".join(lines(300)))

    def test_bad_ones_are_left_out_and_counted(self, relays: Relays) -> None:
        bad = [3, 17, 80]
        path = through(
            "plain", "/lines", n=100, malformed="3,17", overlong="80", width=MAX_LINE + 1
        )
        found = ask(relays.served.base, f"{path}&lines=1&on_bad_line=skip")
        kept = [line for number, line in enumerate(lines(100)) if number not in bad]
        assert found.body == b"".join(kept)
        receipt = receipt_of(relays.served, found.export_id)
        assert (receipt["outcome"], receipt["rows"]) == ("complete", 97)
        assert receipt["download"]["skipped_lines"] == 3

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"malformed": "50"}, "malformed"),
            ({"overlong": "50", "width": MAX_LINE + 1}, "longer than"),
        ],
    )
    @pytest.mark.parametrize("query", ["", "&on_bad_line=fail"])
    def test_a_bad_one_breaks_the_stream(
        self, relays: Relays, options: Options, why: str, query: str
    ) -> None:
        path = through("plain", "/lines", n=100, **options)
        raw = f"GET {path}&lines=1{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with pytest.raises(http.client.IncompleteRead) as broken:
            send_raw(relays.served.base, raw)
        assert broken.value.partial == b"".join(lines(50))
        record = relays.served.get(f"/v1/exports/{recorded(relays.served)[0]}")
        assert (record["state"], record["error"]["code"]) == ("failed", "bad_line")
        assert f"Line 51 is {why}" in record["error"]["detail"]
        assert receipt_of(relays.served, record["id"])["outcome"] == "failed"

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            ({"gzip": ""}, "upstream_error"),
            ({"status": 206}, "upstream_error"),
            ({"malformed": "0", "pieces": "65536"}, "bad_line"),
        ],
    )
    def test_what_cannot_be_framed_is_502(
        self, relays: Relays, options: Options, code: str
    ) -> None:
        before = recorded(relays.served)
        found = ask(relays.served.base, through("plain", "/lines", n=3, **options) + "&lines=1")
        check_problem(found, 502, code)
        assert recorded(relays.served) == before

    @pytest.mark.parametrize("status", [404, 503])
    def test_an_error_of_the_upstream_passes_as_it_is(self, relays: Relays, status: int) -> None:
        path = through("plain", "/lines", n=3, malformed="1", status=status, type="text/plain")
        found = ask(relays.served.base, f"{path}&lines=1")
        assert (found.status, found.headers["Content-Type"]) == (status, "text/plain")
        assert found.body == b"".join(lines(3, malformed=[1]))
        assert found.headers["Content-Length"] == str(len(found.body))

    def test_in_blocks_as_well(self, relays: Relays) -> None:
        path = through("plain", "/lines", n=300)
        found = ask(relays.served.base, f"{path}&lines=1&chunk_size=4096")
        assert found.body == b"".join(lines(300))
