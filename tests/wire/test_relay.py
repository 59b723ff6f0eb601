"""What a relay passes on: status, head and bytes, with their proof."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients import ask, send_raw
from tests.relaying import receipt_of, recorded, relayed, through
from tests.upstream import bomb, content, encoded
from tests.wire.problems import check_problem
from tests.wire.relays import Relays, running_relays

TAG, DATE = '"abc"', "Thu, 01 Jan 2026 00:00:00 GMT"
WHOLE = content(1000)
Options = dict[str, Any]
Headers = dict[str, str]
VALIDATED: Options = {"size": 1000, "etag": TAG, "modified": DATE, "ranges": "1"}
VALIDATORS: Headers = {"ETag": TAG, "Last-Modified": DATE, "Accept-Ranges": "bytes"}


@pytest.fixture(scope="module")
def running(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    with running_relays(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture
def relays(running: Relays) -> Relays:
    running.up.forget()
    running.elsewhere.forget()
    return running


@pytest.mark.parametrize(
    ("options", "asked", "status", "told", "body"),
    [
        ({"size": 1000}, {}, 200, {"Content-Length": "1000"}, WHOLE),
        ({"size": 0}, {}, 200, {"Content-Length": "0"}, b""),
        (VALIDATED, {}, 200, {"Content-Length": "1000"} | VALIDATORS, WHOLE),
        ({"size": 1000, "framing": "chunked"}, {}, 200, {"Transfer-Encoding": "chunked"}, WHOLE),
        ({"size": 1000, "both": ""}, {}, 200, {"Transfer-Encoding": "chunked"}, WHOLE),
        ({"size": 0, "framing": "chunked"}, {}, 200, {"Transfer-Encoding": "chunked"}, b""),
        ({"size": 1000, "close": ""}, {}, 200, {"Content-Length": "1000"}, WHOLE),
        ({"size": 1000, "http10": ""}, {}, 200, {"Content-Length": "1000"}, WHOLE),
        ({"size": 1000, "hints": 3}, {}, 200, {"Content-Length": "1000"}, WHOLE),
        ({"size": 9, "type": "text/csv; a=b"}, {}, 200, {"Content-Type": "text/csv; a=b"}, WHOLE[:9]),
        ({"size": 9, "type": ""}, {}, 200, {"Content-Type": "application/octet-stream"}, WHOLE[:9]),
        (
            VALIDATED,
            {"Range": "bytes=100-199"},
            206,
            {"Content-Range": "bytes 100-199/1000", "Content-Length": "100"} | VALIDATORS,
            WHOLE[100:200],
        ),
        (
            VALIDATED,
            {"Range": "bytes=-1", "If-Range": TAG},
            206,
            {"Content-Range": "bytes 999-999/1000"},
            WHOLE[999:],
        ),
        (VALIDATED, {"Range": "bytes=0-1", "If-Range": '"x"'}, 200, VALIDATORS, WHOLE),
        (VALIDATED, {"Range": "bytes=2000-"}, 416, {"Content-Range": "bytes */1000"}, b""),
        (VALIDATED, {"If-None-Match": TAG}, 304, {"ETag": TAG, "Last-Modified": DATE}, b""),
        (VALIDATED, {"If-Modified-Since": DATE}, 304, {"ETag": TAG}, b""),
        (VALIDATED, {"If-Match": '"x"'}, 412, {}, b""),
        (
            {"size": 1000, "gzip": "", "etag": TAG},
            {"Accept-Encoding": "gzip"},
            200,
            {"Content-Encoding": "gzip", "Content-Length": str(len(encoded(1000)))},
            encoded(1000),
        ),
        ({"status": 204}, {}, 204, {}, b""),
        ({"size": 9, "status": 203}, {}, 203, {"Content-Length": "9"}, WHOLE[:9]),
        ({"size": 9, "status": 404}, {}, 404, {"Content-Length": "9"}, WHOLE[:9]),
        ({"size": 9, "status": 500, "type": "text/html"}, {}, 500, {}, WHOLE[:9]),
        ({"size": 9, "status": 401, "framing": "close"}, {}, 401, {}, WHOLE[:9]),
        ({"size": 9, "status": 503, "header": "Retry-After:7"}, {}, 503, {"Retry-After": "7"}, WHOLE[:9]),
    ],
)  # fmt: skip
def test_status_head_and_body_pass(
    relays: Relays, options: Options, asked: Headers, status: int, told: Headers, body: bytes
) -> None:
    before = recorded(relays.served)
    found = relayed(relays.served, "plain", headers=asked, **options)
    assert (found.status, found.body) == (status, body)
    assert {name: found.headers[name] for name in told} == told
    if "Transfer-Encoding" in told:
        assert "Content-Length" not in found.headers
    (seen,) = relays.up.seen
    assert {name: seen.header(name) for name in asked} == asked
    # Only a download has a record.
    is_download = status in (200, 206)
    assert ("X-Export-Id" in found.headers) == is_download
    assert len(recorded(relays.served)) == len(before) + is_download


@pytest.mark.parametrize(
    ("options", "asked", "status", "told"),
    [
        (VALIDATED, {}, 200, {"Content-Length": "1000"} | VALIDATORS),
        ({"size": 10**12}, {}, 200, {"Content-Length": str(10**12)}),
        (VALIDATED, {"If-None-Match": TAG}, 304, {"ETag": TAG}),
        ({"size": 9, "status": 404}, {}, 404, {"Content-Length": "9"}),
        ({"size": 9, "framing": "close"}, {}, 200, {}),
    ],
)
def test_head_has_the_head_alone(
    relays: Relays, options: Options, asked: Headers, status: int, told: Headers
) -> None:
    before = recorded(relays.served)
    found = relayed(relays.served, "plain", method="HEAD", headers=asked, **options)
    assert (found.status, found.body) == (status, b"")
    assert {name: found.headers[name] for name in told} == told
    assert [seen.method for seen in relays.up.seen] == ["HEAD"]
    assert recorded(relays.served) == before


def test_several_parts_pass_as_they_are(relays: Relays) -> None:
    found = relayed(relays.served, "plain", headers={"Range": "bytes=0-1,5-6"}, **VALIDATED)
    assert found.status == 206
    assert found.headers["Content-Type"].startswith("multipart/byteranges; boundary=")
    direct = ask(relays.up.base, relays.up.seen[0].target, headers={"Range": "bytes=0-1,5-6"})
    assert found.body == direct.body
    assert receipt_of(relays.served, found.export_id)["outcome"] == "complete"


def test_a_receipt_proves_what_was_passed_on(relays: Relays) -> None:
    found = relayed(relays.served, "plain", **{**VALIDATED, "size": 3_000_000})
    assert found.body == content(3_000_000)
    receipt = receipt_of(relays.served, found.export_id)
    assert found.link("receipt") == f"{relays.served.base}/v1/exports/{found.export_id}/receipt"
    assert receipt["outcome"] == "complete"
    assert receipt["bytes"] == 3_000_000
    assert receipt["sha256"] == hashlib.sha256(found.body).hexdigest()
    assert receipt["download"] == {
        "upstream": "plain",
        "path": "file",
        "status": 200,
        "etag": TAG,
        "content_range": None,
        "content_encoding": None,
        "framing": "length",
        "reconnects": 0,
        "skipped_lines": None,
    }
    record = relays.served.get(f"/v1/exports/{found.export_id}")
    assert (record["kind"], record["state"]) == ("relay", "succeeded")
    assert record["source"] == "plain"
    assert record["progress"]["bytes"] == 3_000_000


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [1, 4096, 65_536, 262_144, 2_097_152, 2_097_153])
def test_the_proof_is_of_every_byte(relays: Relays, size: int, framing: str) -> None:
    """Be it that the last block is the last byte of a batch."""
    for query in ("", "&chunk_size=4096"):
        path = through("plain", "/file", size=size, framing=framing) + query
        found = ask(relays.served.base, path)
        receipt = receipt_of(relays.served, found.export_id)
        assert receipt["bytes"] == size == len(found.body)
        assert receipt["sha256"] == hashlib.sha256(content(size)).hexdigest()


def test_coded_bytes_are_not_touched(relays: Relays) -> None:
    asked = {"Accept-Encoding": "gzip, br"}
    found = relayed(relays.served, "plain", headers=asked, size=500_000, gzip="")
    assert found.headers["Content-Encoding"] == "gzip"
    assert hashlib.sha256(found.body).digest() == hashlib.sha256(encoded(500_000)).digest()
    assert relays.up.seen[0].header("Accept-Encoding") == "gzip, br"
    receipt = receipt_of(relays.served, found.export_id)
    assert (receipt["bytes"], receipt["sha256"]) == (None, None)
    assert receipt["encoded_bytes"] == len(found.body)
    assert receipt["encoded_sha256"] == hashlib.sha256(found.body).hexdigest()
    assert receipt["download"]["content_encoding"] == "gzip"


def test_a_bomb_is_the_few_megabytes_that_it_is(relays: Relays) -> None:
    found = relayed(relays.served, "plain", headers={"Accept-Encoding": "gzip"}, bomb=1)
    assert found.body == bomb(1)
    assert len(found.body) < 2_000_000
    receipt = receipt_of(relays.served, found.export_id)
    assert receipt["encoded_sha256"] == hashlib.sha256(bomb(1)).hexdigest()


def test_who_asks_for_no_coding_is_asked_for_as_such(relays: Relays) -> None:
    assert relayed(relays.served, "plain", size=5).status == 200
    raw = f"GET {through('plain', '/file', size=5)} HTTP/1.1\r\nHost: x\r\n\r\n"
    assert send_raw(relays.served.base, raw.encode()).status == 200
    assert [seen.header("Accept-Encoding") for seen in relays.up.seen] == ["identity"] * 2


class TestFraming:
    """An end that nobody could tell from a break."""

    @pytest.mark.parametrize("options", [{"framing": "close"}, {"framing": "close", "http10": ""}])
    def test_it_is_refused(self, relays: Relays, options: Options) -> None:
        found = relayed(relays.served, "plain", size=5, **options)
        check_problem(found, 502, "upstream_error")
        assert "unframed" in found.json()["detail"]

    @pytest.mark.parametrize("options", [{"framing": "close"}, {"framing": "close", "http10": ""}])
    def test_unless_it_is_allowed(self, relays: Relays, options: Options) -> None:
        found = relayed(relays.served, "open", size=5, **options)
        assert (found.status, found.body) == (200, WHOLE[:5])
        assert receipt_of(relays.served, found.export_id)["download"]["framing"] == "close"

    @pytest.mark.parametrize("upstream", ["plain", "open"])
    @pytest.mark.parametrize("status", [101, 600, 999])
    def test_a_status_that_is_none_is_no_answer(
        self, relays: Relays, status: int, upstream: str
    ) -> None:
        check_problem(relayed(relays.served, upstream, status=status), 502, "upstream_error")

    def test_hints_for_ever_are_no_answer(self, relays: Relays) -> None:
        found = relayed(relays.served, "plain", hints=100, size=5)
        assert (found.status, found.body) == (200, WHOLE[:5])
        assert "Link" not in {name for name, text in found.headers.items() if "style" in text}


@pytest.mark.parametrize(
    ("path", "told", "expected"),
    [
        ("/daily/a.csv", None, 'attachment; filename="a.csv"'),
        ("/gr%C3%B6%C3%9Fe.csv", None, "attachment; filename=\"gr__e.csv\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv"),
        ("/a%22b.csv", None, 'attachment; filename="a_b.csv"'),
        ("/a", 'inline; filename="../../b.csv"', 'attachment; filename="b.csv"'),
        ("/a", "attachment; filename*=UTF-8''%e2%82%ac.csv", "attachment; filename=\"_.csv\"; filename*=UTF-8''%E2%82%AC.csv"),
        ("/a", 'attachment; filename="\xe2\x98\x83.csv"', "attachment; filename=\"_.csv\"; filename*=UTF-8''%E2%98%83.csv"),
    ],
)  # fmt: skip
def test_names_of_files(relays: Relays, path: str, told: str | None, expected: str) -> None:
    options: Options = {} if told is None else {"header": f"Content-Disposition:{told}"}
    found = relayed(relays.served, "plain", path, size=5, **options)
    assert found.headers.get_all("Content-Disposition") == [expected]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("chunk_size=4095", "chunk_size"),
        ("chunk_size=8388609", "chunk_size"),
        ("chunk_size=", "chunk_size"),
        ("chunk_size=4k", "chunk_size"),
        ("chunk_size=-4096", "chunk_size"),
        ("chunk_size=4096&chunk_size=4096", "chunk_size"),
        ("lines=2", "lines"),
        ("lines=", "lines"),
        ("lines=1&lines=1", "lines"),
        ("on_bad_line=skip", "on_bad_line"),
        ("lines=0&on_bad_line=skip", "on_bad_line"),
        ("lines=1&on_bad_line=drop", "on_bad_line"),
        ("lines=%ff", "lines"),
    ],
)
def test_a_wrong_parameter_is_named(relays: Relays, query: str, named: str) -> None:
    found = ask(relays.served.base, f"/v1/relay/plain/file?{query}")
    check_problem(found, 400, "invalid_parameter")
    assert named in found.json()["detail"]
    assert relays.up.seen == []


@pytest.mark.parametrize("chunk_size", [4096, 10_000, 8_388_608])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("pieces", ["65536", "1,4095,4096,4097,70000", "999"])
def test_blocks_have_all_the_bytes(
    relays: Relays, pieces: str, framing: str, chunk_size: int
) -> None:
    path = through("plain", "/file", size=300_000, pieces=pieces, framing=framing)
    found = ask(relays.served.base, f"{path}&chunk_size={chunk_size}")
    assert found.body == content(300_000)
    assert found.headers["Content-Length"] == ("300000" if framing == "length" else None)
