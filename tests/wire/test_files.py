"""Files over HTTP: their heads, conditions and parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import pytest

from tests.clients import ask, stalled
from tests.serving import Served
from tests.waiting import wait_until
from tests.wire.problems import check_problem
from tests.wire.shared_files import LARGE, OLD, OLD_DATE, SMALL, get, put, sharing

OF_ONE_ANSWER = {"date", "x-request-id"}
BEFORE = format_datetime(OLD - timedelta(seconds=1), usegmt=True)
AFTER = format_datetime(OLD + timedelta(seconds=1), usegmt=True)
BY_PATH = {"small.csv": SMALL, "large.bin": LARGE, "empty.txt": b"", "one": b"1"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for path, data in BY_PATH.items():
        put(folder / path, data)
    put(folder / "page.html", b"<script>alert(1)</script>")
    put(folder / 'wild "näme"\r\n.csv', b"x")
    return folder


@pytest.fixture(scope="module")
def served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[Served]:
    with sharing(tmp_path_factory.mktemp("served"), module_database_url, root) as found:
        yield found


@pytest.mark.parametrize("path", BY_PATH)
@pytest.mark.parametrize("query", ["", "?chunk_size=4096", "?chunk_size=8388608", "?receipt=0"])
def test_a_file_is_sent_whole(served: Served, path: str, query: str) -> None:
    answer = get(served, path + query)
    assert (answer.status, answer.body) == (200, BY_PATH[path])
    assert answer.headers["Content-Length"] == str(len(BY_PATH[path]))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Last-Modified"] == OLD_DATE
    assert answer.headers["ETag"].startswith('"')
    assert answer.headers["Cache-Control"] == "private, no-cache, no-transform"
    assert "Vary" not in answer.headers
    assert "X-Export-Id" not in answer.headers


@pytest.mark.parametrize("query", ["", "?chunk_size=4096", "?receipt=1"])
@pytest.mark.parametrize("path", BY_PATH)
def test_head_tells_what_get_does(served: Served, path: str, query: str) -> None:
    of_get, of_head = (
        get(served, path + query),
        get(served, path + query, "HEAD", range="bytes=0-0"),
    )
    assert (of_head.status, of_head.body) == (200, b"")
    left_out = OF_ONE_ANSWER | {"x-export-id", "link"}  # nothing is recorded of HEAD
    told = {name.lower(): text for name, text in of_get.headers.items()}
    assert {name.lower(): text for name, text in of_head.headers.items()} == {
        name: text for name, text in told.items() if name not in left_out
    } | {name: of_head.headers[name] for name in OF_ONE_ANSWER}


def test_what_is_stored_never_runs(served: Served) -> None:
    headers = get(served, "page.html").headers
    assert headers["Content-Type"] == "text/html"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Disposition"] == 'attachment; filename="page.html"'
    assert "sandbox" in headers["Content-Security-Policy"]


def test_a_wild_name_is_tamed(served: Served) -> None:
    answer = get(served, "wild%20%22n%C3%A4me%22%0D%0A.csv")
    assert (answer.status, answer.body) == (200, b"x")
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"wild _n_me_.csv\"; filename*=UTF-8''wild%20_n%C3%A4me_.csv"
    )


def test_only_reading_is_possible(served: Served) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = get(served, "small.csv", method)
        check_problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"


TAG = "the tag"  # stands for that of the file


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["small.csv", "large.bin"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_match": TAG}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": f'"a", {TAG}'}, 200),
        ({"if_match": '"a"'}, 412),
        ({"if_match": f"W/{TAG}"}, 412),
        ({"if_none_match": TAG}, 304),
        ({"if_none_match": f'"a", W/{TAG}'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"a"'}, 200),
        ({"if_modified_since": OLD_DATE}, 304),
        ({"if_modified_since": AFTER}, 304),
        ({"if_modified_since": BEFORE}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_unmodified_since": OLD_DATE}, 200),
        ({"if_unmodified_since": BEFORE}, 412),
        ({"if_none_match": '"a"', "if_modified_since": AFTER}, 200),
        ({"if_none_match": TAG, "if_modified_since": BEFORE}, 304),
        ({"if_match": TAG, "if_unmodified_since": BEFORE}, 200),
        ({"if_match": '"a"', "if_none_match": TAG}, 412),
        ({"if_none_match": TAG, "range": "bytes=0-0"}, 304),
        ({"if_match": '"a"', "range": "bytes=0-0"}, 412),
    ],
)
def test_conditions(
    served: Served, path: str, headers: dict[str, str], status: int, method: str
) -> None:
    tag = get(served, path, "HEAD").headers["ETag"]
    asked = {name: text.replace(TAG, tag) for name, text in headers.items()}
    answer = get(served, path, method, **asked)
    assert answer.status == status
    if status == 304:
        kept = {name.lower() for name, _ in answer.headers.items()} - OF_ONE_ANSWER
        assert kept == {"etag", "last-modified", "cache-control"}
        assert (answer.headers["ETag"], answer.body) == (tag, b"")
    if status == 412 and method == "GET":
        check_problem(answer, 412, "precondition_failed")


def test_a_new_version_has_a_new_tag(served: Served, root: Path) -> None:
    put(root / "version", b"one")
    first = get(served, "version")
    assert get(served, "version", if_none_match=first.headers["ETag"]).status == 304
    put(root / "version", b"two")  # of the same size and time
    second = get(served, "version", if_none_match=first.headers["ETag"])
    assert (second.status, second.body) == (200, b"two")
    assert second.headers["ETag"] != first.headers["ETag"]


def test_a_time_in_the_future_is_not_told(served: Served, root: Path) -> None:
    put(root / "early", b"x", datetime.now(UTC) + timedelta(days=400))
    headers = get(served, "early").headers
    told, date = (parsedate_to_datetime(headers[name]) for name in ("Last-Modified", "Date"))
    assert abs(told - date) < timedelta(seconds=5)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("chunk_size=4095", "chunk_size"),
        ("chunk_size=8388609", "chunk_size"),
        ("chunk_size=", "chunk_size"),
        ("chunk_size=1e6", "chunk_size"),
        ("chunk_size=-4096", "chunk_size"),
        ("chunk_size=" + "9" * 5000, "chunk_size"),
        ("chunk_size=4096&chunk_size=4096", "chunk_size"),
        ("receipt=2", "receipt"),
        ("receipt=true", "receipt"),
        ("receipt=", "receipt"),
        ("receipt", "receipt"),
        ("cursor=eA", "cursor"),
        ("limit=5", "limit"),
        ("chunksize=4096", "chunksize"),
        ("x=%00", "x"),
        ("x=%ff", "x"),
    ],
)
def test_a_wrong_parameter_is_named(
    served: Served, query: str, parameter: str, method: str
) -> None:
    answer = get(served, f"small.csv?{query}", method)
    assert answer.status == 400
    if method == "GET":
        check_problem(answer, 400, "invalid_parameter")
        assert answer.json()["parameter"] == parameter
        assert parameter in answer.json()["detail"]


def test_every_download_is_counted(served: Served, root: Path) -> None:
    put(root / "counted", LARGE)
    before = len(served.events("stream ended"))
    for query in ("", "?chunk_size=65536", "?receipt=1"):
        assert get(served, f"counted{query}").body == LARGE
    get(served, "counted", "HEAD")
    get(served, "counted", if_none_match="*")
    get(served, "missing")
    ended = served.events("stream ended")[before:]
    assert [(one["kind"], one["dataset"], one["outcome"], one["bytes"]) for one in ended] == [
        ("file", "files", "complete", len(LARGE))
    ] * 3
    assert [bool(one["export_id"]) for one in ended] == [False, False, True]
    metrics = ask(served.base, "/metrics").body.decode()
    assert 'tailrace_streams_active{dataset="files",format="",lane="file"} 0.0' in metrics


def test_no_more_downloads_than_the_root_allows(
    database_url: str, tmp_path: Path, root: Path
) -> None:
    with (
        sharing(
            tmp_path, database_url, root, "max_downloads = 1", limits__slot_timeout="100ms"
        ) as served,
        (tmp_path / "sparse").open("wb") as sparse,
    ):
        sparse.truncate(1 << 30)
        os.link(tmp_path / "sparse", root / "sparse")
        try:
            with stalled(served.base, "/v1/files/files/sparse"):
                answer = get(served, "small.csv")
                check_problem(answer, 503, "busy")
                assert answer.headers["Retry-After"]
                assert "All 1 downloads of files are in use" in answer.json()["detail"]
                assert get(served, "small.csv", "HEAD").status == 200
        finally:
            (root / "sparse").unlink()
        wait_until(
            lambda: get(served, "small.csv").status == 200, within=10, what="the slot is free"
        )
