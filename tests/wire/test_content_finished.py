"""Finished content: validators, ranges, conditionals, compressed files and empty ones."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clients import Answer, ask, stalled
from tests.serving import Served
from tests.session import Session, session
from tests.wire.job_service import (
    done,
    entered,
    gated_csv,
    job_service,
    numbers_csv,
    reach,
    receipt,
    shown,
)
from tests.wire.problems import check_problem

WHOLE = numbers_csv()
SIZE = len(WHOLE)
LARGEST = 9_007_199_254_740_991
OF_ONE_ANSWER = {"date", "x-request-id"}
EXPIRE = "UPDATE tailrace.exports SET expires_at = now() - interval '1 ms' WHERE id::text = '{}'"


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with job_service(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Made:
    """A finished export and how it is asked for."""

    base: str
    id: str
    finished_at: datetime

    def get(self, method: str = "GET", query: str = "", **headers: str) -> Answer:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.base, f"/v1/exports/{self.id}/content{query}", method, fields)

    @property
    def tag(self) -> str:
        return f'"{self.id.replace("-", "")}.1"'

    def at(self, seconds: int) -> str:
        """An HTTP-date so many seconds behind the end."""
        return format_datetime(self.finished_at + timedelta(seconds=seconds), usegmt=True)


def made(base: str, dataset: str, **wanted: Any) -> Made:
    export = done(base, dataset, **wanted)
    assert export["state"] == "succeeded"
    return Made(base, export["id"], datetime.fromisoformat(export["finished_at"]))


@pytest.fixture(scope="module")
def numbers(served: Served) -> Made:
    return made(served.base, "numbers")


def head_of(answer: Answer) -> dict[str, str]:
    headers = {name.lower(): text for name, text in answer.headers.items()}
    return {name: text for name, text in headers.items() if name not in OF_ONE_ANSWER}


def test_the_whole_of_it(numbers: Made) -> None:
    answer = numbers.get()
    digest = base64.b64encode(bytes.fromhex(receipt(numbers.base, numbers.id)["sha256"])).decode()
    assert (answer.status, answer.body) == (200, WHOLE)
    assert head_of(answer) == {
        "content-type": "text/csv; charset=utf-8; header=present",
        "content-length": str(SIZE),
        "content-disposition": 'attachment; filename="numbers.csv"',
        "cache-control": "private, no-cache, no-transform",
        "x-content-type-options": "nosniff",
        "x-export-id": numbers.id,
        "link": f'<{numbers.base}/v1/exports/{numbers.id}/receipt>; rel="receipt"',
        "accept-ranges": "bytes",
        "etag": numbers.tag,
        "last-modified": numbers.at(0),
        "repr-digest": f"sha-256=:{digest}:",
    }
    assert hashlib.sha256(answer.body).digest() == base64.b64decode(digest)


def test_head_tells_the_same_without_it(numbers: Made) -> None:
    answer = numbers.get("HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert head_of(answer) == head_of(numbers.get())


def test_it_has_a_name(served: Served) -> None:
    named = made(served.base, "numbers", filename="../../Größe.csv", limit=1)
    disposition = named.get().headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename=")
    assert "/" not in disposition
    assert disposition.endswith("filename*=UTF-8''_.._Gr%C3%B6%C3%9Fe.csv")


@pytest.mark.parametrize(
    ("field", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-9", 0, 9),
        ("bytes=100-", 100, SIZE - 1),
        ("bytes=0-", 0, SIZE - 1),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=-7", SIZE - 7, SIZE - 1),
        (f"bytes=-{SIZE * 2}", 0, SIZE - 1),
        (f"bytes=5-{SIZE * 9}", 5, SIZE - 1),
        (f"bytes=5-{LARGEST}", 5, SIZE - 1),
        ("Bytes=3-4", 3, 4),
        ("bytes=0-4,5-9", 0, 9),
        ("bytes=3-9,0-5", 0, 9),
        (f"bytes=1-2,{SIZE}-", 1, 2),
    ],
)
def test_a_part_of_it(numbers: Made, field: str, first: int, last: int) -> None:
    answer = numbers.get(Range=field)
    assert (answer.status, answer.body) == (206, WHOLE[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["Content-Length"] == str(last + 1 - first)
    assert answer.headers["ETag"] == numbers.tag
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"


def test_several_parts_of_it(numbers: Made) -> None:
    answer = numbers.get(Range=f"bytes=0-1, 500-509 ,-3,{SIZE + 5}-")
    kind, _, boundary = answer.headers["Content-Type"].partition("; boundary=")
    assert (answer.status, kind) == (206, "multipart/byteranges")
    assert answer.headers["Content-Range"] is None
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    spans = [(0, 1), (500, 509), (SIZE - 3, SIZE - 1)]
    parts = [
        f"--{boundary}\r\n"
        "Content-Type: text/csv; charset=utf-8; header=present\r\n"
        f"Content-Range: bytes {first}-{last}/{SIZE}\r\n\r\n".encode()
        + WHOLE[first : last + 1]
        for first, last in spans
    ]
    assert answer.body == b"\r\n".join(parts) + f"\r\n--{boundary}--\r\n".encode()
    assert boundary.encode() not in WHOLE


@pytest.mark.parametrize("field", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=-0"])
def test_nothing_is_at_these_bytes(numbers: Made, field: str) -> None:
    answer = numbers.get(Range=field)
    check_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["ETag"] == numbers.tag


@pytest.mark.parametrize(
    "field",
    ["lines=1-2", "bytes=a-b", "bytes=5-2", "bytes", "bytes=", "bytes=1-2;3", "bytes=1-2,x", ""],
)
def test_what_is_no_range_is_ignored(numbers: Made, field: str) -> None:
    answer = numbers.get(Range=field)
    assert (answer.status, answer.body) == (200, WHOLE)
    assert answer.headers["Content-Range"] is None


def test_if_range_lets_a_range_apply_to_the_same_file_alone(numbers: Made) -> None:
    other = f'"{numbers.id.replace("-", "")}.2"'
    for validator, status in (
        (numbers.tag, 206),
        (other, 200),
        (f"W/{numbers.tag}", 200),
        (numbers.at(0), 206),
        (numbers.at(1), 200),
        (numbers.at(-1), 200),
        ("no date", 200),
    ):
        answer = numbers.get(Range="bytes=5-9", If_Range=validator)
        body = WHOLE[5:10] if status == 206 else WHOLE
        assert (answer.status, answer.body) == (status, body), validator


def conditionals(numbers: Made) -> list[tuple[Mapping[str, str], int]]:
    tag, weak = numbers.tag, f"W/{numbers.tag}"
    return [
        ({"If_None_Match": tag}, 304),
        ({"If_None_Match": weak}, 304),
        ({"If_None_Match": f'"x", {tag}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"x"'}, 200),
        ({"If_None_Match": tag, "Range": "bytes=0-1"}, 304),
        ({"If_Match": tag}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": f'"x", {tag}'}, 200),
        ({"If_Match": weak}, 412),
        ({"If_Match": '"x"'}, 412),
        ({"If_Match": '"x"', "If_None_Match": tag}, 412),
        ({"If_Modified_Since": numbers.at(0)}, 304),
        ({"If_Modified_Since": numbers.at(1)}, 304),
        ({"If_Modified_Since": numbers.at(-1)}, 200),
        ({"If_Modified_Since": "yesterday"}, 200),
        ({"If_Modified_Since": numbers.at(0), "If_None_Match": '"x"'}, 200),
        ({"If_Unmodified_Since": numbers.at(0)}, 200),
        ({"If_Unmodified_Since": numbers.at(-1)}, 412),
        ({"If_Unmodified_Since": numbers.at(-1), "If_Match": tag}, 200),
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions_are_kept(numbers: Made, method: str) -> None:
    for headers, status in conditionals(numbers):
        answer = numbers.get(method, **headers)
        assert answer.status == status, headers
        if status == 304:
            assert answer.body == b""
            kept = {"etag", "last-modified", "cache-control", "repr-digest"}
            assert kept <= head_of(answer).keys()
            assert answer.headers["ETag"] == numbers.tag
        elif status == 200:
            assert answer.body == (WHOLE if method == "GET" else b"")


def test_a_precondition_that_fails_is_a_problem(numbers: Made) -> None:
    check_problem(numbers.get(If_Match='"x"'), 412, "precondition_failed")


def test_head_knows_no_ranges(numbers: Made) -> None:
    answer = numbers.get("HEAD", Range="bytes=0-1")
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(SIZE))


@pytest.mark.parametrize(
    ("compression", "suffix", "kind"),
    [("gzip", "gz", "application/gzip"), ("zstd", "zst", "application/zstd")],
)
def test_a_compressed_one_is_a_file_of_its_own(
    served: Served, tmp_path: Path, compression: str, suffix: str, kind: str
) -> None:
    found = made(served.base, "numbers", compression=compression)
    answer = found.get(Accept_Encoding="gzip, zstd, br")
    assert answer.headers["Content-Encoding"] is None
    assert answer.headers["Content-Type"] == kind
    name = f'attachment; filename="numbers.csv.{suffix}"'
    assert answer.headers["Content-Disposition"] == name
    file = tmp_path / f"f.{suffix}"
    file.write_bytes(answer.body)
    subprocess.run([compression, "-t", file], check=True, timeout=60)
    got = subprocess.run([compression, "-dc", file], check=True, timeout=60, capture_output=True)
    assert got.stdout == WHOLE
    assert hashlib.sha256(answer.body).hexdigest() == receipt(found.base, found.id)["sha256"]
    part = found.get(Range="bytes=3-", Accept_Encoding="gzip")
    assert (part.status, part.body) == (206, answer.body[3:])


def test_a_plain_one_is_never_encoded_on_the_way(numbers: Made) -> None:
    answer = numbers.get(Accept_Encoding="gzip, zstd")
    assert (answer.body, answer.headers["Content-Encoding"]) == (WHOLE, None)
    assert answer.headers["Vary"] is None


def test_an_empty_one(served: Served) -> None:
    empty = made(served.base, "nothing", header=False)
    told = receipt(empty.base, empty.id)
    assert (told["bytes"], told["rows"]) == (0, 0)
    assert told["sha256"] == hashlib.sha256(b"").hexdigest()
    for field in ("", "bytes=0-", "bytes=-5", "bytes=0-0"):
        answer = empty.get(Range=field)
        assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
        assert answer.headers["ETag"] == empty.tag
    assert empty.get("HEAD").headers["Content-Length"] == "0"


def test_the_address_names_its_attempt(numbers: Made) -> None:
    assert shown(numbers.base, numbers.id)["links"]["content"].endswith("/content?attempt=1")
    assert numbers.get(query="?attempt=1").body == WHOLE
    for method in ("GET", "HEAD"):
        assert numbers.get(method, query="?attempt=2").status == 410
    check_problem(numbers.get(query="?attempt=2"), 410, "gone")
    check_problem(numbers.get(query="?attempt=0"), 422, "invalid_request")


def test_an_expired_one_is_gone(served: Served, database: Session) -> None:
    expiring = made(served.base, "numbers")
    database.execute(EXPIRE.format(expiring.id))
    reach(served.base, expiring.id, "expired")
    check_problem(expiring.get(), 410, "gone")
    assert expiring.get("HEAD").status == 410
    assert receipt(served.base, expiring.id)["outcome"] == "complete"
    events = ask(served.base, f"/v1/exports/{expiring.id}/events").body.decode()
    names = [line for line in events.splitlines() if line.startswith("event: ")]
    assert names == ["event: state", "event: succeeded", "event: close"]


def test_whoever_reads_it_when_it_is_deleted_reads_it_to_its_end(served: Served) -> None:
    large = made(served.base, "gated")
    with stalled(served.base, f"/v1/exports/{large.id}/content") as response:
        begun = response.read(1_000)
        assert ask(served.base, f"/v1/exports/{large.id}", "DELETE").status == 204
        assert begun + response.read() == gated_csv()
    check_problem(large.get(), 404, "not_found")


def test_a_stream_keeps_no_file(served: Served) -> None:
    export = ask(served.base, "/v1/rows/numbers.csv").export_id
    check_problem(ask(served.base, f"/v1/exports/{export}/content"), 404, "not_found")
    assert shown(served.base, export)["links"]["content"] is None


def test_a_failed_one_has_none(served: Served) -> None:
    export = reach(served.base, entered(served.base, "broken"), "failed")
    answer = ask(served.base, f"/v1/exports/{export['id']}/content")
    check_problem(answer, 409, "conflict")
    assert answer.json()["error"] == export["error"]
    assert "division by zero" in answer.json()["detail"]
