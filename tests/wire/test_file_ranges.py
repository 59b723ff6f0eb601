"""Ranges of files: whatever is asked for is the very slice, or the whole, or 416."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.clients import Answer
from tests.curl import CUT_SHORT, download, resumed
from tests.serving import Served
from tests.wire.cutting import cutting
from tests.wire.problems import check_problem
from tests.wire.shared_files import LARGE, OLD, OLD_DATE, SMALL, get, put, sharing

GIB = 1 << 30
SPARSE = 5 * GIB
END = b"the end"
FILES = {"small.csv": SMALL, "large.bin": LARGE}
QUERIES = ["", "?chunk_size=4096", "?receipt=1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for path, data in FILES.items():
        put(folder / path, data)
    put(folder / "empty.txt", b"")
    with (folder / "sparse").open("wb") as sparse:
        sparse.truncate(SPARSE - len(END))
        sparse.seek(0, os.SEEK_END)
        sparse.write(END)
    return folder


@pytest.fixture(scope="module")
def served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[Served]:
    with sharing(tmp_path_factory.mktemp("served"), module_database_url, root) as found:
        yield found


def found(part: Message) -> tuple[str, str, bytes]:
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return part["Content-Type"], part["Content-Range"], data


def parts(answer: Answer) -> list[tuple[str, str, bytes]]:
    """Type, place and bytes of each part, as Python's own reader of multipart finds them."""
    kind = answer.headers["Content-Type"].encode()
    message = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + answer.body)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    return [found(part) for part in message.walk() if part is not message]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, None),
        ("bytes=5-9", 5, 9),
        ("BYTES=5-9", 5, 9),
        ("bytes= 5-9 ", 5, 9),
        ("bytes=5-99999999999999999999", 5, None),
        ("bytes=-1", -1, None),
        ("bytes=-300", -300, None),
        ("bytes=-99999999999", 0, None),
        ("bytes=0-9,5-14", 0, 14),
        ("bytes=0-9,10-19", 0, 19),
        ("bytes=5-9,99999999-", 5, 9),
    ],
)
def test_one_range(
    served: Served, path: str, query: str, asked: str, first: int, last: int | None
) -> None:
    data = FILES[path]
    first = first if first >= 0 else len(data) + first
    last = len(data) - 1 if last is None else last
    answer = get(served, path + query, range=asked)
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(data)}"
    assert answer.headers["Content-Length"] == str(last - first + 1)
    assert answer.body == data[first : last + 1]
    assert answer.headers["ETag"] == get(served, path, "HEAD").headers["ETag"]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("small.csv", [(0, 0), (2, 2)]),
        ("small.csv", [(900, 1023), (0, 9), (500, 500)]),
        ("large.bin", [(0, 0), (3_000_000, 3_000_000)]),
        ("large.bin", [(2_000_000, 2_999_999), (0, 999_999)]),
        ("large.bin", [(place * 20_000, place * 20_000 + 9_999) for place in range(100)]),
    ],
)
def test_several_ranges(
    served: Served, path: str, asked: list[tuple[int, int]], query: str
) -> None:
    data = FILES[path]
    header = "bytes=" + ", ".join(f"{first}-{last}" for first, last in asked)
    answer = get(served, path + query, range=header)
    assert (answer.status, len(answer.body)) == (206, int(answer.headers["Content-Length"]))
    assert "Content-Range" not in answer.headers
    kind = get(served, path, "HEAD").headers["Content-Type"]
    assert parts(answer) == [
        (kind, f"bytes {first}-{last}/{len(data)}", data[first : last + 1]) for first, last in asked
    ]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(
    "asked",
    [
        *("lines=0-1", "bytes 0-1", "bytes=", "bytes=a-b", "bytes=9-5", "bytes=-", "bytes=0-1-2"),
        *("bytes=0x0-1", "0-1", "bytes=0-1;5-6", "none", "bytes=" + ",".join(["0-0"] * 101)),
    ],
)
def test_a_range_that_is_none_is_ignored(served: Served, asked: str, query: str) -> None:
    answer = get(served, "large.bin" + query, range=asked)
    assert (answer.status, answer.body) == (200, LARGE)


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=99999-100000", "bytes=-0"])
def test_nothing_at_the_range_is_a_416(served: Served, asked: str) -> None:
    answer = get(served, "small.csv", range=asked)
    check_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == "bytes */1024"
    assert answer.headers["ETag"] == get(served, "small.csv", "HEAD").headers["ETag"]


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-"])
def test_an_empty_file_has_no_ranges(served: Served, asked: str) -> None:
    answer = get(served, "empty.txt", range=asked)
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")


TAG = "the tag"  # stands for that of the file
LATER = format_datetime(OLD + timedelta(seconds=1), usegmt=True)


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    ("validator", "status"),
    [
        (TAG, 206),
        (f"W/{TAG}", 200),
        ('"a"', 200),
        (OLD_DATE, 206),
        (LATER, 200),
        ("yesterday", 200),
        ("*", 200),
    ],
)
def test_if_range(served: Served, path: str, validator: str, status: int) -> None:
    tag = get(served, path, "HEAD").headers["ETag"]
    answer = get(served, path, range="bytes=1-9", if_range=validator.replace(TAG, tag))
    assert answer.status == status
    assert answer.body == (FILES[path] if status == 200 else FILES[path][1:10])


def test_a_date_of_this_moment_joins_nothing(served: Served, root: Path) -> None:
    """Whatever was there in the same second would have the same date."""
    put(root / "fresh", b"0123456789", datetime.now(UTC) + timedelta(hours=1))
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    answer = get(served, "fresh", range="bytes=1-", if_range=date)
    assert (answer.status, answer.body) == (200, b"0123456789")


@pytest.mark.parametrize("query", QUERIES)
def test_the_end_of_a_large_file(served: Served, query: str) -> None:
    answer = get(served, f"sparse{query}", range="bytes=-9")
    assert answer.headers["Content-Range"] == f"bytes {SPARSE - 9}-{SPARSE - 1}/{SPARSE}"
    assert answer.body == bytes(2) + END
    answer = get(served, f"sparse{query}", range=f"bytes={4 * GIB - 1}-{4 * GIB + 999_999}")
    assert (answer.status, answer.body) == (206, bytes(1_000_001))


def test_curl_goes_on_where_it_was_cut(served: Served, tmp_path: Path) -> None:
    with cutting(served.base, iter([1_000_000, 1 << 40])) as relay:
        url = f"{relay}/v1/files/files/large.bin"
        first = download(url, tmp_path)
        assert (first.exit_code(), first.status) == (CUT_SHORT, 200)
        assert 0 < first.size < len(LARGE)
        with resumed(url, first) as rest:
            assert (rest.exit_code(), rest.status) == (0, 206)
        assert rest.body == LARGE
