"""The test upstream itself: each byte that it is asked to send."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
from isal import isal_zlib

from tests.peer import connected
from tests.upstream import Upstream, bomb, content, encoded, lines, piece, target, upstream

W = content(6)
TAG, DATE, LATER = '"abc"', "Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:01 GMT"
TYPED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
LENGTH, CHUNKED = b"Content-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n"
END = b"Connection: close\r\n\r\n"
LAST = b"0\r\n\r\n"
MISTAKES = ("/file?sise=5", "/file?cut_time=5", "/file?x_times=5")


@pytest.fixture
def up() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def get(up: Upstream, path: str, **headers: str) -> Answer:
    """On a connection of its own; ``If_Range`` is the field If-Range."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", up.port, timeout=30)) as connection:
        connection.request("GET", path, headers=fields)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def wire(up: Upstream, path: str, method: str = "GET") -> bytes:
    """Everything that is sent, to the end of the connection."""
    with connected(up.base) as peer:
        peer.socket.sendall(f"{method} {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        return peer.read_all()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_bytes_depend_on_their_place_alone() -> None:
    whole = content(200_000)
    for first in (0, 1, 65_535, 65_536, 131_071):
        assert piece(first, first + 66_000) == whole[first : first + 66_001]
    assert (content(0), content(1)) == (b"", whole[:1])
    assert content(1000, seed=1) != whole[:1000]
    assert len(zlib.compress(whole)) > len(whole)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, TYPED + LENGTH + END + W),
        ({"framing": "close"}, TYPED + END + W),
        ({"framing": "chunked"}, TYPED + CHUNKED + END + chunk(W) + LAST),
        (
            {"framing": "chunked", "pieces": "3,2"},
            TYPED + CHUNKED + END + chunk(W[:3]) + chunk(W[3:5]) + chunk(W[5:]) + LAST,
        ),
        ({"cut_tail": ""}, TYPED + CHUNKED + END + chunk(W)),
        (
            {"framing": "chunked", "cut": 2, "pieces": 3},
            TYPED + CHUNKED + END + b"3\r\n" + W[:2],
        ),
        (
            {"framing": "chunked", "cut": 3, "pieces": 3},
            TYPED + CHUNKED + END + chunk(W[:3]),
        ),
        ({"cut": 0}, TYPED + LENGTH + END),
        ({"cut": 6}, TYPED + LENGTH + END + W),
        ({"cut_each": 2}, TYPED + LENGTH + END + W[:2]),
        ({"cut_at": 2}, TYPED + LENGTH + END + W[:2]),
        ({"cut_head": 20}, TYPED[:20]),
        ({"cut_head": ""}, b""),
        ({"reset": 2}, TYPED + LENGTH + END + W[:2]),
        ({"reset_head": 20}, TYPED[:20]),
        ({"short": ""}, TYPED + b"Content-Length: 7\r\n" + END + W),
        ({"long": 2}, TYPED + b"Content-Length: 4\r\n" + END + W),
        ({"two_lengths": ""}, TYPED + LENGTH + b"Content-Length: 7\r\n" + END + W),
        ({"bad_length": "+6"}, TYPED + b"Content-Length: +6\r\n" + END + W),
        ({"both": ""}, TYPED + LENGTH + CHUNKED + END + chunk(W) + LAST),
        (
            {"bad_chunk": "-1", "pieces": 3},
            TYPED + CHUNKED + END + chunk(W[:3]) + b"-1\r\n" + W[3:] + b"\r\n" + LAST,
        ),
        ({"bad_chunk": ""}, TYPED + CHUNKED + END + chunk(W) + b"zz\r\n\r\n"),
        ({"bad_head": "x\xe9"}, b"x\xe9\r\n\r\n"),
        ({"bad_header": "nul"}, TYPED + LENGTH + END[:-2] + b"X-Bad: a\x00b\r\n\r\n" + W),
        ({"many_headers": 2}, TYPED + LENGTH + END[:-2] + b"X-0: 1\r\nX-1: 1\r\n\r\n" + W),
        ({"huge_head": 3}, TYPED + LENGTH + END[:-2] + b"X-Huge: aaa\r\n\r\n" + W),
        (
            {"header": ["Keep-Alive: timeout=5", "X:\xe9\r"]},
            TYPED + b"Keep-Alive: timeout=5\r\nX: \xe9\r\r\n" + LENGTH + END + W,
        ),
        ({"http10": ""}, TYPED.replace(b"/1.1", b"/1.0") + LENGTH + END + W),
        ({"status": 503}, TYPED.replace(b"200 OK", b"503 Service Unavailable") + LENGTH + END + W),
        ({"status": 299}, TYPED.replace(b"200 OK", b"299 Unheard Of") + LENGTH + END + W),
        ({"status": 204}, TYPED.replace(b"200 OK", b"204 No Content") + END),
    ],
    ids=str,
)
def test_what_is_on_the_wire(up: Upstream, options: dict[str, object], expected: bytes) -> None:
    path = target("/file", size=6, type="text/plain", **options)
    assert wire(up, path) == expected
    assert up.connections[0].sent == len(expected)


def test_hints_come_before_the_answer(up: Upstream) -> None:
    hint, again, answer = wire(up, "/file?size=6&hints=2").split(b"\r\n\r\n", 2)
    assert hint == again
    assert hint.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "options", ["", "framing=chunked&trickle=30000,1", "framing=close", "framing=chunked&pieces=7"]
)
def test_a_client_reads_what_it_compares_with(up: Upstream, options: str) -> None:
    answer = get(up, f"/file?size=100001&seed=5&{options}")
    assert (answer.status, answer.body) == (200, content(100_001, 5))


@pytest.mark.parametrize("options", ["", "framing=chunked", "ranges=1&etag=x", "gzip=", "cut=5"])
def test_head_is_the_head_of_get(up: Upstream, options: str) -> None:
    path = f"/file?size=2000&{options}&cut_times=2"
    heads = [wire(up, path, "HEAD") for _ in range(2)]
    whole = wire(up, path)
    assert heads == [whole[: whole.index(b"\r\n\r\n") + 4]] * 2


def test_requests_are_kept_as_they_came(up: Upstream) -> None:
    with connected(up.base) as peer:
        peer.ask("/file?size=3", "X-TWO:  b\t", "x-two: a", "Content-Length: 2")
        peer.socket.sendall(b"hiHEAD /x HTTP/1.1\r\nbad\r\n\r\n")
        assert b"\r\n\r\n" + W[:3] + b"HTTP/1.1 400 " in peer.read_all()
    (seen,) = up.seen
    assert (seen.method, seen.target, seen.connection) == ("GET", "/file?size=3", seen.connection)
    assert seen.headers[1:] == (("X-TWO", "b"), ("x-two", "a"), ("Content-Length", "2"))
    assert seen.values("X-Two") == ["b", "a"]
    assert up.malformed == [b"HEAD /x HTTP/1.1\r\nbad\r\n\r\n"]


@pytest.mark.parametrize("path", MISTAKES)
def test_a_slip_of_a_test_is_told(up: Upstream, path: str) -> None:
    answer = get(up, path)
    assert answer.status == 500
    assert b"has no option" in answer.body


@pytest.mark.parametrize(("options", "made"), [("", 1), ("close=", 2), ("close=silent", 2)])
def test_connections_are_kept(up: Upstream, options: str, made: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", up.port, timeout=30)) as connection:
        for _ in range(2):
            connection.request("GET", f"/file?{options}")
            with connection.getresponse() as response:
                assert response.read() == content(1000)
            if made == 2:
                connection.close()
    assert len(up.connections) == made
    assert [seen.connection - up.seen[0].connection for seen in up.seen] == [0, made - 1]


@pytest.mark.parametrize(
    ("mode", "fields", "status", "where", "body"),
    [
        ("1", {"Range": "bytes=2-3"}, 206, "bytes 2-3/6", W[2:4]),
        ("1", {"Range": "bytes=2-"}, 206, "bytes 2-5/6", W[2:]),
        ("1", {"Range": "bytes=-2"}, 206, "bytes 4-5/6", W[4:]),
        ("1", {"Range": "bytes=6-"}, 416, "bytes */6", b""),
        ("1", {"Range": "rows=1-2"}, 200, None, W),
        ("1", {"Range": "bytes=2-", "If_Range": TAG}, 206, "bytes 2-5/6", W[2:]),
        ("1", {"Range": "bytes=2-", "If_Range": DATE}, 206, "bytes 2-5/6", W[2:]),
        ("1", {"Range": "bytes=2-", "If_Range": '"old"'}, 200, None, W),
        ("1", {"Range": "bytes=2-", "If_Range": f"W/{TAG}"}, 200, None, W),
        ("", {"Range": "bytes=2-"}, 200, None, W),
        ("lie", {"Range": "bytes=2-"}, 200, None, W),
        ("shift", {"Range": "bytes=2-"}, 206, "bytes 1-5/6", W[1:]),
        ("other", {"Range": "bytes=2-"}, 206, "bytes 2-5/6", content(6, 1)[2:]),
        ("total", {"Range": "bytes=2-"}, 206, "bytes 2-5/7", W[2:]),
        ("less", {"Range": "bytes=2-"}, 206, "bytes 2-3/6", W[2:4]),
        ("unsaid", {"Range": "bytes=2-"}, 206, None, W[2:]),
        ("untagged", {"Range": "bytes=2-"}, 206, "bytes 2-5/6", W[2:]),
        ("refused", {"Range": "bytes=2-"}, 416, "bytes */6", b""),
    ],
    ids=str,
)
def test_ranges(
    up: Upstream, mode: str, fields: dict[str, str], status: int, where: str | None, body: bytes
) -> None:
    path = target("/file", size=6, etag=TAG, modified=DATE, ranges=mode)
    first, answer = get(up, path, Range="bytes=2-"), get(up, path, **fields)
    assert first.status == (206 if mode else 200), "a lie begins with the second answer"
    found = (answer.status, answer.headers["Content-Range"], answer.body)
    assert found == (status, where, body)
    tags = {"other": '"abc-other"', "untagged": None}
    if status != 416:
        assert answer.headers["ETag"] == tags.get(mode, TAG)


def test_a_weak_tag_allows_no_range(up: Upstream) -> None:
    path = target("/file", size=6, etag=f"W/{TAG}", ranges=1)
    answer = get(up, path, Range="bytes=2-", If_Range=f"W/{TAG}")
    assert (answer.status, answer.body) == (200, W)


def test_several_ranges(up: Upstream) -> None:
    answer = get(up, "/file?size=6&type=text/plain&ranges=1", Range="bytes=0-1, 4-")
    boundary = answer.headers.get_boundary()
    assert answer.headers.get_content_type() == "multipart/byteranges"
    assert answer.body.split(f"\r\n--{boundary}".encode()) == [
        b"",
        b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/6\r\n\r\n" + W[:2],
        b"\r\nContent-Type: text/plain\r\nContent-Range: bytes 4-5/6\r\n\r\n" + W[4:],
        b"--\r\n",
    ]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"If_None_Match": f'"x", W/{TAG}'}, 304),
        ({"If_None_Match": '"x"', "If_Modified_Since": LATER}, 200),
        ({"If_Modified_Since": LATER}, 304),
        ({"If_Match": TAG}, 200),
        ({"If_Match": f"W/{TAG}"}, 412),
    ],
    ids=str,
)
def test_conditions(up: Upstream, fields: dict[str, str], status: int) -> None:
    answer = get(up, target("/file", size=6, etag=TAG, modified=DATE), **fields)
    assert (answer.status, answer.body) == (status, W if status == 200 else b"")


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ("cut=2&cut_times=2", [2, 2, 6]),
        ("reset=2&cut_times=1", [2, 6, 6]),
        ("cut_each=2&cut_times=1", [2, 2, 2]),
        ("stall_head=&stall_times=0", [6, 6, 6]),
        ("cut=2&cut_after=2", [6, 6, 2]),
        ("gzip=&gzip_times=2", [len(encoded(6)), len(encoded(6)), 6]),
        ("cut_at=4&ranges=1&key=a", [4, 4, 4]),
    ],
)
def test_answers_are_counted(up: Upstream, options: str, sizes: list[int]) -> None:
    for _ in range(2):
        found = [wire(up, f"/file?size=6&{options}").partition(b"\r\n\r\n")[2] for _ in sizes]
        assert [len(body) for body in found] == sizes
        up.forget()


def test_who_resumes_at_the_cut_gets_nothing(up: Upstream) -> None:
    with pytest.raises(http.client.IncompleteRead) as cut:
        get(up, "/file?size=6&cut_at=4&ranges=1", Range="bytes=4-")
    assert cut.value.partial == b""


def test_a_file_changes(up: Upstream) -> None:
    path = target("/file", size=6, etag=TAG, ranges=1, changes=1)
    before, after = (get(up, path, Range="bytes=2-", If_Range=TAG) for _ in range(2))
    assert (before.status, before.body) == (206, W[2:])
    assert (after.status, after.headers["ETag"]) == (200, '"abc-other"')
    assert after.body == content(6, 1)


def test_one_path_may_stand_for_another(up: Upstream) -> None:
    up.serve("/a/b.csv", "/lines?n=3")
    assert get(up, "/a/b.csv?x=y").body == b"".join(lines(3))
    assert up.seen[0].target == "/a/b.csv?x=y"


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/loop", 302, "/loop"),
        ("/loop?code=308", 308, "/loop?code=308"),
        ("/chain?n=2&code=307&size=6", 307, "/chain?n=1&code=307&size=6"),
        ("/chain?n=0&size=6", 200, None),
        ("/file?redirect=../x%3Fy&code=303", 303, "../x?y"),
    ],
)
def test_redirects(up: Upstream, path: str, status: int, location: str | None) -> None:
    answer = get(up, path)
    assert (answer.status, answer.headers["Location"]) == (status, location)


def test_gzip(up: Upstream) -> None:
    answer = get(up, "/file?size=5000&gzip=")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.body == encoded(5000)
    assert gzip.decompress(answer.body) == content(5000)


def test_a_bomb_expands_to_what_it_says() -> None:
    reader, left, size = isal_zlib.decompressobj(31), bomb(1), 0
    assert len(left) < 2**21
    while left:
        size += len(reader.decompress(left, 2**24))
        left = reader.unconsumed_tail
    assert (size, reader.eof, reader.unused_data) == (2**30, True, b"")
    assert bomb(1)[-4:] == (2**30).to_bytes(4, "little")


def test_lines(up: Upstream) -> None:
    answer = get(up, "/lines?n=20&malformed=3,4,5,6,7&overlong=9&width=9000&unended=")
    found = lines(20, malformed=range(3, 8), overlong=[9], width=9000)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.body + b"\n" == b"".join(found)
    assert [len(line) > 9000 for line in found] == [number == 9 for number in range(20)]
    for number, line in enumerate(found):
        if number in range(3, 8):
            with pytest.raises(ValueError):
                json.loads(line)
        else:
            assert json.loads(line)["i"] == number
