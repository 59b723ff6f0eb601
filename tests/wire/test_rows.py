"""The direct stream: what is sent, what is said of it, and whether the receipt is right."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

import pytest
import zstandard

from tests.clients import Answer, ask, send_raw
from tests.postgres import run_sql
from tests.serving import Served, without_worker

ROWS = 20_000
TABLES = f"""
    create table numbers as
    select i as id, case when i % 7 = 0 then null else 'näme ' || i end as name,
           case i % 3 when 0 then 'a,b' when 1 then 'say "hi"' else E'two\\nlines' end as text
    from generate_series(1, {ROWS}) i;
    alter table numbers add primary key (id);
    create table nothing (id int primary key, name text);
    create table "Größe 50%/day ""x"" " as select 1 as id;
"""
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8; header=present",
    "ndjson": "application/x-ndjson; charset=utf-8",
    "json": "application/json; charset=utf-8",
}
FILE_TYPES = {"gzip": "application/gzip", "zstd": "application/zstd"}
SUFFIXES = {"gzip": ".gz", "zstd": ".zst"}


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, TABLES)
    config = '[sources.main]\nexpose = ["public.*"]'
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=config
    ) as found:
        yield found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def receipt_of(served: Served, answer: Answer) -> Any:
    """The receipt that the answer's ``Link`` header leads to, at once."""
    link = answer.link("receipt")
    assert link == f"{served.base}/v1/exports/{answer.export_id}/receipt"
    return ask(served.base, link).json()


def decompressed(data: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return zlib.decompress(data, wbits=31)
    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        return reader.read()


def filename_of(answer: Answer) -> str:
    """The file name as a client reads it that knows RFC 6266 and RFC 8187."""
    disposition = answer.headers["Content-Disposition"]
    kind, *parameters = (part.strip() for part in disposition.split(";"))
    assert kind == "attachment"
    named = dict(parameter.split("=", 1) for parameter in parameters)
    extended = named.get("filename*", "").removeprefix("UTF-8''")
    return unquote(extended) if extended else named["filename"].strip('"')


@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_headers_say_everything_before_the_first_byte(served: Served, form: str) -> None:
    answer = ask(served.base, f"/v1/rows/numbers.{form}")
    headers = answer.headers
    assert answer.status == 200
    assert headers["Content-Type"] == MEDIA_TYPES[form]
    assert headers["Content-Disposition"] == f'attachment; filename="numbers.{form}"'
    assert UUID(headers["X-Export-Id"]).version == 7
    assert headers["Accept-Ranges"] == "none"
    assert {name.strip() for name in headers["Vary"].split(",")} == {"Accept", "Accept-Encoding"}
    assert headers["Cache-Control"] == "no-store"
    assert headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in headers
    assert "Content-Encoding" not in headers
    assert "ETag" not in headers


@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
@pytest.mark.parametrize("query", ["", "?compression=gzip", "?compression=zstd&limit=1"])
def test_head_says_the_same_without_an_export(served: Served, form: str, query: str) -> None:
    def told(answer: Answer) -> dict[str, str]:
        own = ("Date", "X-Request-Id", "X-Export-Id", "Link", "Transfer-Encoding")
        return {name: value for name, value in answer.headers.items() if name.title() not in own}

    path = f"/v1/rows/numbers.{form}{query}"
    before = ask(served.base, "/v1/exports?limit=1").body
    head = ask(served.base, path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert "X-Export-Id" not in head.headers
    assert "Content-Length" not in head.headers
    assert ask(served.base, "/v1/exports?limit=1").body == before
    assert told(head) == {
        name.lower(): value for name, value in told(ask(served.base, path)).items()
    }


@pytest.mark.parametrize(
    ("suffix", "accept", "form"),
    [
        (".csv", "application/json", "csv"),
        (".json", "text/csv", "json"),
        (".ndjson", "image/png", "ndjson"),
        ("", "", "json"),
        ("", "*/*", "json"),
        ("", "text/csv", "csv"),
        ("", "TEXT/CSV; q=0.5", "csv"),
        ("", "text/*", "csv"),
        ("", "application/x-ndjson", "ndjson"),
        ("", "application/ndjson", "ndjson"),
        ("", "application/json;q=0.1, text/csv;q=0.9", "csv"),
        ("", "application/json;q=0, */*", "csv"),
        ("", "text/html, application/xhtml+xml, */*;q=0.8", "json"),
    ],
)
def test_the_suffix_beats_accept(served: Served, suffix: str, accept: str, form: str) -> None:
    accepted = {"Accept": accept} if accept else {}
    answer = ask(served.base, f"/v1/rows/numbers{suffix}?limit=1", headers=accepted)
    assert (answer.status, answer.headers["Content-Type"]) == (200, MEDIA_TYPES[form])


def test_csv_reads_back_as_the_table(served: Served) -> None:
    text = ask(served.base, "/v1/rows/numbers.csv?order=id").body.decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["id", "name", "text"]
    assert len(rows) == ROWS + 1
    assert rows[1:4] == [
        ["1", "näme 1", 'say "hi"'],
        ["2", "näme 2", "two\nlines"],
        ["3", "näme 3", "a,b"],
    ]
    assert rows[7][1] == ""


def test_json_and_ndjson_read_back_as_the_table(served: Served) -> None:
    whole = ask(served.base, "/v1/rows/numbers.json?order=id").json()
    lines = ask(served.base, "/v1/rows/numbers.ndjson?order=id").body.splitlines()
    assert [json.loads(line) for line in lines] == whole
    assert len(whole) == ROWS
    assert whole[0] == {"id": 1, "name": "näme 1", "text": 'say "hi"'}
    assert whole[6]["name"] is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("nothing.csv", b"id,name\n"),
        ("nothing.csv?header=0", b""),
        ("nothing.ndjson", b""),
        ("nothing.json", b"[]\n"),
        ("numbers.json?limit=0", b"[]\n"),
    ],
)
def test_no_rows_are_a_valid_file_with_a_receipt(served: Served, path: str, body: bytes) -> None:
    answer = ask(served.base, f"/v1/rows/{path}")
    assert (answer.status, answer.body) == (200, body)
    receipt = receipt_of(served, answer)
    assert (receipt["outcome"], receipt["rows"], receipt["bytes"]) == ("complete", 0, len(body))
    assert receipt["sha256"] == sha256(body)


@pytest.mark.parametrize("delimiter", [";", "\t", "|", " ", ":", "~"])
def test_a_delimiter_parts_the_cells(served: Served, delimiter: str) -> None:
    query = f"order=id&limit=9&delimiter={quote(delimiter)}"
    text = ask(served.base, f"/v1/rows/numbers.csv?{query}").body.decode()
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    assert rows[0] == ["id", "name", "text"]
    assert rows[3] == ["3", "näme 3", "a,b"]
    assert {len(row) for row in rows} == {3}


def test_the_header_line_can_be_left_out(served: Served) -> None:
    answer = ask(served.base, "/v1/rows/numbers.csv?select=id&order=id&limit=2&header=0")
    assert answer.body == b"1\n2\n"
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=absent"
    assert receipt_of(served, answer)["rows"] == 2


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("limit=3", [1, 2, 3]),
        ("limit=3&offset=2", [3, 4, 5]),
        (f"offset={ROWS - 2}", [ROWS - 1, ROWS]),
        (f"offset={ROWS}", []),
        ("limit=0", []),
        ("order=id.desc&limit=2", [ROWS, ROWS - 1]),
        ("order=name.desc.nullsfirst&limit=3", [7, 14, 21]),
        ("id=in.(5,3)&order=id", [3, 5]),
        ("id=gt.3&id=lt.6&order=id", [4, 5]),
        ("name=eq.n%C3%A4me+8", [8]),
        ("name=is.null&limit=2", [7, 14]),
        ("text=eq.two%0Alines&limit=2", [2, 5]),
        ("or=(id.lt.3,and(id.gt.5,id.lte.7,name.is.null))&order=id", [1, 2, 7]),
        ("not.or=(id.gt.8,id.not.in.(2,3,9),text.like.*%22)&order=id", [2, 3]),
        ("text=like.*,*&limit=2", [3, 6]),
        ("name=ilike.N_ME%204_&order=id.desc&limit=2", [48, 47]),
        ("name=match.%208{2,}$&limit=2", [88, 888]),
        ("name=isdistinct.n%C3%A4me%201&id=lte.8&order=id.desc&limit=3", [8, 7, 6]),
    ],
)
def test_the_query_chooses_the_rows(served: Served, query: str, ids: list[int]) -> None:
    answer = ask(served.base, f"/v1/rows/numbers.json?select=id&{query}")
    assert answer.json() == [{"id": number} for number in ids]
    assert receipt_of(served, answer)["rows"] == len(ids)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("rows", [ROWS, 0])
def test_the_end_line_proves_every_byte_before_it(
    served: Served, compression: str, rows: int
) -> None:
    query = f"end=1&compression={compression}&limit={rows}"
    answer = ask(served.base, f"/v1/rows/numbers.ndjson?{query}")
    text = answer.body if compression == "none" else decompressed(answer.body, compression)
    *lines, last = text.splitlines(keepends=True)
    end = json.loads(last)["_end"]
    assert end["status"] == "complete"
    assert end["rows"] == len(lines) == rows
    assert end["sha256"] == sha256(b"".join(lines))
    assert end.keys() == {"status", "rows", "sha256", "next_cursor"}
    receipt = receipt_of(served, answer)
    assert (receipt["rows"], receipt["bytes"]) == (rows, len(answer.body))
    assert receipt["sha256"] == sha256(answer.body)


def test_without_end_there_is_no_end_line(served: Served) -> None:
    for query in ("", "?end=0"):
        assert b"_end" not in ask(served.base, f"/v1/rows/numbers.ndjson{query}").body


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_a_compressed_file_is_a_file_and_its_receipt_describes_it(
    served: Served, tmp_path: Path, compression: str, form: str
) -> None:
    """As curl saves it under the name that the service gives, even if it asks for a coding."""
    url = f"{served.base}/v1/rows/numbers.{form}?order=id&compression={compression}"
    command = ["curl", "-sSfOJ", "--compressed", "-D", "head", url]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    (tmp_path / "head").rename(tmp_path / "h")
    file = tmp_path / f"numbers.{form}{SUFFIXES[compression]}"
    head = (tmp_path / "h").read_text().lower()
    assert f"content-type: {FILE_TYPES[compression]}" in head
    assert "content-encoding" not in head
    if shutil.which(compression):
        subprocess.run([compression, "-qt", file], check=True, timeout=60)
    data = file.read_bytes()
    plain = ask(served.base, f"/v1/rows/numbers.{form}?order=id").body
    assert decompressed(data, compression) == plain
    export_id = head.partition("x-export-id: ")[2].split()[0]
    receipt = ask(served.base, f"/v1/exports/{export_id}/receipt").json()
    assert (receipt["compression"], receipt["format"]) == (compression, form)
    assert (receipt["bytes"], receipt["sha256"]) == (len(data), sha256(data))
    assert (receipt["encoded_bytes"], receipt["encoded_sha256"]) == (None, None)
    assert receipt["rows"] == ROWS


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_coded_transfer_has_both_figures(served: Served, coding: str) -> None:
    path = "/v1/rows/numbers.ndjson?order=id&end=1"
    answer = ask(served.base, path, headers={"Accept-Encoding": coding})
    plain = ask(served.base, path).body
    assert answer.headers["Content-Encoding"] == coding
    assert answer.headers["Content-Type"] == MEDIA_TYPES["ndjson"]
    assert filename_of(answer) == "numbers.ndjson"
    assert len(answer.body) < len(plain)
    assert decompressed(answer.body, coding) == plain
    receipt = receipt_of(served, answer)
    assert (receipt["bytes"], receipt["sha256"]) == (len(plain), sha256(plain))
    assert receipt["encoded_bytes"] == len(answer.body)
    assert receipt["encoded_sha256"] == sha256(answer.body)
    assert receipt["compression"] == "none"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("identity", None),
        ("gzip;q=0, zstd;q=0", None),
        ("br", None),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.5, zstd;q=1", "zstd"),
        ("zstd;q=0.5, gzip", "gzip"),
        ("identity;q=1, gzip;q=0.1", None),
        ("x-unknown, *", "zstd"),
    ],
)
def test_the_coding_is_the_one_that_the_client_likes_best(
    served: Served, accepted: str, coding: str | None
) -> None:
    answer = ask(served.base, "/v1/rows/numbers.csv?limit=1", headers={"Accept-Encoding": accepted})
    assert answer.headers["Content-Encoding"] == coding


def test_curl_saves_the_decoded_file_that_the_receipt_describes(
    served: Served, tmp_path: Path
) -> None:
    url = f"{served.base}/v1/rows/numbers.csv"
    command = ["curl", "-sSf", "--compressed", "-o", "f", "-w", "%header{x-export-id}", url]
    done = subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    data = (tmp_path / "f").read_bytes()
    receipt = ask(served.base, f"/v1/exports/{done.stdout.decode()}/receipt").json()
    assert (receipt["bytes"], receipt["sha256"]) == (len(data), sha256(data))
    assert receipt["encoded_bytes"] < len(data)


def test_the_receipt_says_what_was_read_and_when(served: Served) -> None:
    first, second = (ask(served.base, "/v1/rows/numbers.csv?id=lt.9") for _ in range(2))
    one, two = receipt_of(served, first), receipt_of(served, second)
    assert one["export_id"] == first.export_id != second.export_id
    assert one["query_sha256"] == two["query_sha256"]
    assert one["started_at"] <= one["snapshot"]["at"] <= one["finished_at"] <= two["finished_at"]
    assert one["snapshot"]["lsn"]
    assert 0 < one["db_seconds_held"] < 60
    other = receipt_of(served, ask(served.base, "/v1/rows/numbers.csv?id=lt.8"))
    assert other["query_sha256"] != one["query_sha256"]


@pytest.mark.parametrize("size", [4096, 65_536])
def test_chunks_have_the_size_that_was_asked_for(served: Served, size: int) -> None:
    path = f"/v1/rows/numbers.csv?chunk_size={size}"
    line = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with_chunks = send_raw(served.base, line.encode(), chunks=True).body
    sizes = list(chunk_sizes(with_chunks))
    assert sizes[-1] == 0
    assert max(sizes) == size
    assert sum(sizes) == len(ask(served.base, "/v1/rows/numbers.csv").body)


def chunk_sizes(data: bytes) -> Iterator[int]:
    """The sizes of the chunks (RFC 9112, section 7.1) that make ``data`` up."""
    while data:
        line, _, rest = data.partition(b"\r\n")
        yield (length := int(line, 16))
        assert rest[length : length + 2] == b"\r\n"
        data = rest[length + 2 :]


def test_a_name_with_everything_in_it(served: Served) -> None:
    name = 'Größe 50%/day "x" '
    answer = ask(served.base, f"/v1/rows/{quote(name, safe='')}.csv")
    assert (answer.status, answer.body) == (200, b"id\n1\n")
    assert filename_of(answer) == "Größe 50_day _x_ .csv"
    fallback = answer.headers["Content-Disposition"].split(";")[1].strip()
    assert fallback.isascii()
    assert ask(served.base, f"/v1/exports/{answer.export_id}").json()["dataset"] == name


def test_many_streams_share_a_connection(served: Served, tmp_path: Path) -> None:
    """Each ends where it ends: nothing of one is left for the next."""
    urls = [f"{served.base}/v1/rows/numbers.{form}?order=id" for form in ("csv", "json", "csv")]
    command = ["curl", "-sSf", "-w", "%{num_connects} "]
    for place, url in enumerate(urls):
        command += ["-o", str(tmp_path / str(place)), url]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert done.stdout.split() == [b"1", b"0", b"0"]
    first, second, third = ((tmp_path / str(place)).read_bytes() for place in range(3))
    assert first == third
    assert len(json.loads(second)) == ROWS
