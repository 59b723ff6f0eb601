"""HEAD wherever GET is, and what is answered to the other methods (RFC 9110, section 9)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.clients import TIMEOUT, Answer, ask
from tests.serving import Served, without_worker
from tests.wire.problems import check_problem

CONFIG = """
[sources.main]
[datasets.small]
sql = "select i as id from generate_series(1, 10) i"
"""
PAGES = ("/", "/docs", "/openapi.json", "/static/style.css")
PATHS = (
    *("/v1/datasets", "/v1/datasets/small", "/v1/exports", "/v1/exports?limit=1"),
    *("/v1/exports/{}", "/v1/exports/{}/receipt", "/livez", "/readyz", *PAGES),
)
LIVE = ("/metrics", "/v1/status")  # two answers differ, and so may their lengths
OF_ONE_ANSWER = {"date", "x-request-id"}
ALLOWED = {
    **dict.fromkeys([*PATHS, *LIVE, "/v1/rows/small.csv", "/v1/rows/nothing"], "GET, HEAD"),
    **dict.fromkeys(["/v1/exports", "/v1/exports?limit=1"], "GET, HEAD, POST"),
    "/v1/exports/{}": "DELETE, GET, HEAD",
    "/v1/exports/{}/cancel": "POST",
    "/v1/exports/{}/retry": "POST",
    "/v1/exports/{}/content": "GET, HEAD",
    "/v1/exports/{}/events": "GET, HEAD",
    "/v1/events": "GET, HEAD",
    # These are also names, of an export or a dataset.
    "/v1/exports/estimate": "DELETE, GET, HEAD, POST",
    "/v1/exports/preview": "DELETE, GET, HEAD, POST",
    "/v1/datasets/refresh": "GET, HEAD, POST",
}
METHODS = ("PUT", "DELETE", "PATCH", "OPTIONS", "PURGE")
REFUSED = [
    (method, path)
    for method in METHODS
    for path, allowed in ALLOWED.items()
    if method not in allowed
]

UNKNOWN = "01a20000-0000-7000-8000-000000000000"  # a UUIDv7 that nobody was given


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with without_worker(folder, module_database_url, config=CONFIG) as found:
        yield found


@pytest.fixture(scope="module")
def export_id(served: Served) -> str:
    return ask(served.base, "/v1/rows/small.csv").export_id


def head_of(answer: Answer, without: set[str] = OF_ONE_ANSWER) -> dict[str, str]:
    headers = {name.lower(): text for name, text in answer.headers.items()}
    return {name: text for name, text in headers.items() if name not in without}


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_headers_of_get(served: Served, export_id: str, path: str) -> None:
    path = path.format(export_id)
    got, head = (ask(served.base, path, method) for method in ("GET", "HEAD"))
    assert (got.status, head.status) == (200, 200)
    assert head_of(head) == head_of(got)
    assert head.headers["Content-Length"] == str(len(got.body))
    assert head.headers["X-Request-Id"] != got.headers["X-Request-Id"]


@pytest.mark.parametrize("path", LIVE)
def test_head_has_the_headers_of_a_live_answer(served: Served, path: str) -> None:
    got, head = (ask(served.base, path, method) for method in ("GET", "HEAD"))
    assert (got.status, head.status) == (200, 200)
    without = {*OF_ONE_ANSWER, "content-length"}
    assert head_of(head, without) == head_of(got, without)
    assert int(head.headers["Content-Length"]) > 0


def test_head_of_rows_promises_neither_a_length_nor_an_export(served: Served) -> None:
    got, head = (ask(served.base, "/v1/rows/small.csv?limit=1", m) for m in ("GET", "HEAD"))
    of_the_stream = {*OF_ONE_ANSWER, "x-export-id", "link", "transfer-encoding"}
    assert head_of(got).keys() >= {"x-export-id", "link", "transfer-encoding"}
    assert head_of(head) == head_of(got, of_the_stream)
    (newest,) = ask(served.base, "/v1/exports?limit=1").json()["exports"]
    assert newest["id"] == got.export_id


@pytest.mark.parametrize("path", [*PATHS, *LIVE, "/v1/rows/small.csv", "/nothing"])
def test_no_byte_of_a_body_follows_a_head(served: Served, export_id: str, path: str) -> None:
    """On one connection: what came too much would stand before the next answer."""
    lines = f"HEAD {path.format(export_id)} HTTP/1.1\r\nHost: a\r\n\r\n"
    lines += "GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    _, _, following = exchanged(served.base, lines.encode()).partition(b"\r\n\r\n")
    assert following.startswith(b"HTTP/1.1 200 OK\r\n")
    assert following.endswith(b'{"status":"ok"}')


def exchanged(base: str, data: bytes) -> bytes:
    """Every byte that comes back until the server closes the connection."""
    parts = urlsplit(base)
    with socket.create_connection((parts.hostname, parts.port), TIMEOUT) as plain:
        plain.sendall(data)
        with plain.makefile("rb") as file:
            return file.read()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/v1/datasets/nothing", 404),
        ("/v1/datasets/refresh", 404),
        ("/v1/rows/nothing.csv", 404),
        ("/v1/rows/small?limit=x", 400),
        ("/v1/exports?limit=0", 422),
        ("/v1/exports?cursor=x", 400),
        ("/v1/exports/no-uuid", 422),
        (f"/v1/exports/{UNKNOWN}", 404),
        (f"/v1/exports/{UNKNOWN}/receipt", 404),
    ],
)
def test_head_of_an_error_is_that_error_without_its_body(
    served: Served, path: str, status: int
) -> None:
    known = {"X-Request-Id": "one-and-the-same"}
    got, head = (ask(served.base, path, method, known) for method in ("GET", "HEAD"))
    assert (got.status, head.status, head.body) == (status, status, b"")
    assert head_of(head, {"date"}) == head_of(got, {"date"})
    assert head.headers["Content-Type"] == "application/problem+json"
    assert head.headers["Content-Length"] == str(len(got.body))


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_a_method_that_is_not_offered_names_those_that_are(
    served: Served, method: str, path: str
) -> None:
    answer = ask(served.base, path.format(uuid4()), method)
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == ALLOWED[path]
    assert method in answer.json()["detail"]


def test_every_documented_get_answers_head(served: Served) -> None:
    """Also those that are added after this test was written."""
    documented = ask(served.base, "/openapi.json").json()["paths"]
    paths = [path for path, item in documented.items() if "get" in item]
    assert len(paths) >= len(PATHS) - len(PAGES)
    for path in paths:
        assert ask(served.base, path.replace("{", "").replace("}", ""), "HEAD").status != 405
