"""Downloads of files with a record: receipts, lists, events and cancelling."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import ask, stalled
from tests.jobs import post
from tests.serving import Served
from tests.waiting import wait_until
from tests.wire.shared_files import LARGE, SMALL, get, put, sharing

ENDLESS = 1 << 30  # bytes, more than every buffer holds


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for path, data in {"small.csv": SMALL, "deep/large.bin": LARGE, "empty.txt": b""}.items():
        put(folder / path, data)
    with (folder / "endless").open("wb") as sparse:
        sparse.truncate(ENDLESS)
    return folder


@pytest.fixture(scope="module")
def served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[Served]:
    with sharing(tmp_path_factory.mktemp("served"), module_database_url, root) as found:
        yield found


@pytest.mark.parametrize("chunk_size", ["", "&chunk_size=4096"])
@pytest.mark.parametrize(
    ("path", "data", "asked"),
    [
        ("small.csv", SMALL, None),
        ("deep/large.bin", LARGE, None),
        ("deep/large.bin", LARGE, "bytes=1000-2000999"),
        ("empty.txt", b"", None),
    ],
)
def test_a_receipt_proves_what_was_sent(
    served: Served, path: str, data: bytes, asked: str | None, chunk_size: str
) -> None:
    headers = {} if asked is None else {"range": asked}
    answer = get(served, f"{path}?receipt=1{chunk_size}", **headers)
    assert answer.body == (data if asked is None else data[1000:2_001_000])
    receipt_url = f"{served.base}/v1/exports/{answer.export_id}/receipt"
    assert answer.link("receipt") == receipt_url
    receipt = ask(served.base, receipt_url).json()  # it is there before the last byte is
    assert receipt["outcome"] == "complete"
    assert receipt["bytes"] == len(answer.body)
    assert receipt["sha256"] == hashlib.sha256(answer.body).hexdigest()
    assert (receipt["rows"], receipt["snapshot"], receipt["db_seconds_held"]) == (None, None, 0.0)
    assert receipt["download"] == {
        "root": "files",
        "path": path,
        "etag": answer.headers["ETag"],
        "content_range": answer.headers["Content-Range"],
        "content_encoding": None,
    }


def test_several_ranges_are_proved_as_the_client_saves_them(served: Served) -> None:
    answer = get(served, "deep/large.bin?receipt=1", range="bytes=0-99999,200000-2999999")
    receipt = served.get(f"/v1/exports/{answer.export_id}/receipt")
    assert receipt["bytes"] == len(answer.body)
    assert receipt["sha256"] == hashlib.sha256(answer.body).hexdigest()


def test_a_record_is_listed_as_those_of_exports_are(served: Served) -> None:
    answer = get(served, "deep/large.bin?receipt=1", range="bytes=5-1000004")
    found = served.get("/v1/exports?kind=file&limit=1")["exports"][0]
    assert found["id"] == answer.export_id
    assert (found["kind"], found["source"], found["dataset"]) == ("file", "files", None)
    assert found["state"] == "succeeded"
    assert found["request"] == {
        "root": "files",
        "path": "deep/large.bin",
        "range": "bytes=5-1000004",
    }
    assert found["progress"]["bytes"] == found["progress"]["total_bytes"] == 1_000_000
    assert found["progress"]["fraction"] == 1.0
    assert ask(served.base, f"/v1/exports/{answer.export_id}/content").status == 404


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", {}, 200),
        ("GET", {"if_none_match": "*"}, 304),
        ("GET", {"if_match": '"a"'}, 412),
        ("GET", {"range": "bytes=9999-"}, 416),
    ],
)
def test_nothing_is_recorded_where_nothing_is_sent(
    served: Served, method: str, headers: dict[str, str], status: int
) -> None:
    before = served.get("/v1/exports?kind=file")["exports"]
    answer = get(served, "small.csv?receipt=1", method, **headers)
    assert (answer.status, answer.headers["X-Export-Id"]) == (status, None)
    assert served.get("/v1/exports?kind=file")["exports"] == before


def test_a_download_can_be_cancelled(served: Served) -> None:
    with stalled(served.base, "/v1/files/files/endless?receipt=1") as response:
        export = str(response.headers["X-Export-Id"])
        running = served.get(f"/v1/exports/{export}")
        assert (running["state"], running["progress"]["total_bytes"]) == ("running", ENDLESS)
        answer = post(served.base, f"/v1/exports/{export}/cancel").json()
        assert answer["cancelled"] is True
        assert answer["proof"]["backend_gone"] is True
    assert served.get(f"/v1/exports/{export}")["state"] == "cancelled"
    receipt = served.get(f"/v1/exports/{export}/receipt")
    assert receipt["outcome"] == "cancelled"
    assert receipt["bytes"] < ENDLESS


def test_a_client_that_leaves_is_told_of(served: Served) -> None:
    with stalled(served.base, "/v1/files/files/endless?receipt=1") as response:
        export = str(response.headers["X-Export-Id"])
    wait_until(
        lambda: served.get(f"/v1/exports/{export}")["state"] == "failed", within=10, what="it ends"
    )
    assert served.get(f"/v1/exports/{export}")["error"]["code"] == "client_left"
    assert served.get(f"/v1/exports/{export}/receipt")["outcome"] == "truncated"
