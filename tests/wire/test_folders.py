"""Folders as pages of JSON, and precompressed files."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import zstandard

from tests.clients import Answer, ask
from tests.serving import Served, without_worker
from tests.wire.problems import check_problem
from tests.wire.shared_files import LARGE, OLD, SMALL, get, put, sharing

NAMES = sorted(
    ["a", "ab", "größe.csv", "with space", "100%", "what?", "hash#", "line\nbreak", "%41", '"'],
    key=str.encode,
)
OFF = '[files.files]\npath = "{}"\nlisting = false\n[files.other]\npath = "{}"\nhidden = true'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for name in NAMES:
        put(folder / "names" / name, name.encode())
    put(folder / "deep" / "dö wn" / "file", b"x")
    put(folder / ".hidden" / "file", b"x")
    (folder / "link").symlink_to("deep")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with sharing(folder, module_database_url, root, "precompressed = true") as found:
        yield found


def page(answer: Answer) -> list[dict[str, Any]]:
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    entries: list[dict[str, Any]] = answer.json()["entries"]
    return entries


def test_the_roots(served: Served) -> None:
    expected = [{"name": "files", "links": {"self": f"{served.base}/v1/files/files/"}}]
    assert served.get("/v1/files") == {"roots": expected}


@pytest.mark.parametrize("path", ["", "deep/"])
def test_a_folder(served: Served, root: Path, path: str) -> None:
    answer = get(served, path)
    assert (answer.json()["root"], answer.json()["path"]) == ("files", path)
    names = {"": ["deep", "empty", "names"], "deep/": ["dö wn"]}[path]
    assert [(one["name"], one["kind"], one["size"]) for one in page(answer)] == [
        (name, "folder", None) for name in names
    ]
    assert [one["links"]["self"] for one in page(answer)] == [
        f"{served.base}/v1/files/files/{path}{quote(name)}/" for name in names
    ]


def test_every_link_leads_to_its_file(served: Served) -> None:
    entries = page(get(served, "names/"))
    assert [one["name"] for one in entries] == NAMES
    for one in entries:
        answer = ask(served.base, one["links"]["self"])
        assert (answer.status, answer.body) == (200, one["name"].encode())
        assert one["size"] == len(answer.body)
        assert one["modified"] == "2020-02-29T12:00:00Z"


@pytest.mark.parametrize("limit", [1, 3, 9, 10, 11])
def test_pages_lead_on_to_the_end(served: Served, limit: int) -> None:
    url: str | None = f"{served.base}/v1/files/files/names/?limit={limit}"
    found: list[str] = []
    while url is not None:
        answer = ask(served.base, url)
        names = [one["name"] for one in page(answer)]
        assert 0 < len(names) <= limit
        found += names
        url = answer.link("next")
    assert found == NAMES


def test_an_empty_folder_is_an_empty_page(served: Served) -> None:
    answer = get(served, "empty/")
    assert (page(answer), answer.link("next")) == ([], None)


@pytest.mark.parametrize(
    "path", ["nowhere/", "link/", ".hidden/", "names/a/", "/", "deep//", "../", "..%2f", "deep"]
)
def test_what_is_no_folder_is_a_404(served: Served, path: str) -> None:
    check_problem(get(served, path), 404, "not_found")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", ""])
def test_a_page_has_a_size(served: Served, limit: str) -> None:
    answer = get(served, f"names/?limit={limit}")
    check_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0]["loc"] == ["query", "limit"]


@pytest.mark.parametrize("cursor", ["!", "_w", "a", "YQ==YQ", "\u00e4"])
def test_a_cursor_comes_from_a_page(served: Served, cursor: str) -> None:
    answer = get(served, f"names/?cursor={quote(cursor)}")
    check_problem(answer, 400, "invalid_parameter")
    assert answer.json()["parameter"] == "cursor"


@pytest.mark.parametrize("parameter", ["chunk_size=4096", "receipt=1", "x=1"])
def test_a_folder_has_its_own_parameters(served: Served, parameter: str) -> None:
    check_problem(get(served, f"names/?{parameter}"), 400, "invalid_parameter")


def test_listing_may_be_off_and_hidden_names_on(
    database_url: str, tmp_path: Path, root: Path
) -> None:
    with without_worker(tmp_path, database_url, config=OFF.format(root, root)) as served:
        for path in ("", "names/", "nowhere/", "link/"):
            check_problem(get(served, path), 404, "not_found")
        assert get(served, "names/a").body == b"a"
        entries = page(ask(served.base, "/v1/files/other/"))
        assert [one["name"] for one in entries] == [".hidden", "deep", "empty", "names"]
        assert ask(served.base, "/v1/files/other/.hidden/file").body == b"x"


CODED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": (".gz", partial(gzip.compress, mtime=0)),
    "zstd": (".zst", zstandard.ZstdCompressor().compress),
}


@pytest.mark.parametrize(
    ("siblings", "accepted", "coding"),
    [
        (("gzip", "zstd"), "gzip, zstd", "zstd"),
        (("gzip", "zstd"), "gzip", "gzip"),
        (("gzip", "zstd"), "zstd;q=0.5, gzip", "gzip"),
        (("gzip", "zstd"), "br", None),
        (("gzip", "zstd"), "", None),
        (("gzip", "zstd"), "gzip;q=0", None),
        (("gzip", "zstd"), "identity, gzip;q=0.5", None),
        (("gzip",), "gzip, zstd", "gzip"),
        (("gzip",), "zstd", None),
        ((), "gzip, zstd", None),
    ],
)
def test_a_precompressed_sibling_is_sent_in_place(
    served: Served, root: Path, siblings: tuple[str, ...], accepted: str, coding: str | None
) -> None:
    name = f"{'-'.join(('with', *siblings))}.csv"
    put(root / "coded" / name, LARGE)
    for sibling in siblings:
        suffix, compress = CODED[sibling]
        put(root / "coded" / f"{name}{suffix}", compress(LARGE))
    plain = get(served, f"coded/{name}")
    answer = get(served, f"coded/{name}", accept_encoding=accepted)
    assert answer.headers["Content-Encoding"] == coding
    assert answer.body == (CODED[coding][1](LARGE) if coding else LARGE)
    assert (answer.headers["ETag"] == plain.headers["ETag"]) is (coding is None)
    for found in (plain, answer):
        assert found.headers["Vary"] == "Accept-Encoding"
        assert found.headers["Content-Type"] == "text/csv"
        assert found.headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_what_is_older_than_its_file_is_of_another(served: Served, root: Path) -> None:
    put(root / "coded" / "older", SMALL, OLD + timedelta(seconds=1))
    put(root / "coded" / "older.gz", gzip.compress(b"what it was"))
    answer = get(served, "coded/older", accept_encoding="gzip")
    assert (answer.headers["Content-Encoding"], answer.body) == (None, SMALL)


def test_a_coded_file_has_ranges_conditions_and_a_receipt(served: Served, root: Path) -> None:
    coded = gzip.compress(SMALL)
    put(root / "coded" / "parts", SMALL)
    put(root / "coded" / "parts.gz", coded)
    answer = get(served, "coded/parts?receipt=1", accept_encoding="gzip", range="bytes=5-9")
    assert (answer.status, answer.body) == (206, coded[5:10])
    assert answer.headers["Content-Range"] == f"bytes 5-9/{len(coded)}"
    tag = answer.headers["ETag"]
    again = get(served, "coded/parts", accept_encoding="gzip", if_none_match=tag)
    assert (again.status, again.headers["Vary"]) == (304, "Accept-Encoding")
    assert get(served, "coded/parts", if_none_match=tag).status == 200
    receipt = served.get(f"/v1/exports/{answer.export_id}/receipt")
    assert (receipt["bytes"], receipt["encoded_bytes"]) == (None, 5)
    assert receipt["download"]["content_encoding"] == "gzip"


def test_links_are_of_the_address_that_the_client_used(served: Served) -> None:
    host = urlsplit(served.base).netloc
    answer = ask(served.base, "/v1/files/files/", headers={"Host": "files.example"})
    assert host not in answer.body.decode()
    links = [one["links"]["self"] for one in page(answer)]
    assert "http://files.example/v1/files/files/deep/" in links
