"""Every error is a problem document (RFC 9457), wherever it is found."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx2
import pytest

from service.app import create_app
from service.grammar.logic import MAX_CONDITIONS
from service.settings import Settings
from tests.clients import ask, send_raw
from tests.commands import launched
from tests.outage import away
from tests.postgres import Databases, run_sql
from tests.serving import Served, environment, without_worker
from tests.waiting import wait_until
from tests.wire.problems import MEMBERS, check_problem
from tests.wire.things import EXPOSED, TABLE

NOBODY = UUID("01a203ef-8aee-74ea-aabc-6500ea4d2b62")


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, TABLE)
    folder = tmp_path_factory.mktemp("served")
    with without_worker(folder, module_database_url, config=EXPOSED) as found:
        yield found


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not_found"),
        ("POST", "/v1/rows/things.csv", 405, "method_not_allowed"),
        ("PATCH", "/", 405, "method_not_allowed"),
        ("DELETE", "/v1/datasets", 405, "method_not_allowed"),
        ("GET", "/v1/rows/nothing.csv", 404, "not_found"),
        ("GET", "/v1/rows/%ff%00.csv", 404, "not_found"),
        ("GET", "/v1/datasets/nothing", 404, "not_found"),
        ("GET", f"/v1/exports/{NOBODY}", 404, "not_found"),
        ("GET", f"/v1/exports/{NOBODY}/receipt", 404, "not_found"),
        ("GET", "/static/../../etc/passwd", 404, "not_found"),
    ],
)
def test_what_is_not_there(served: Served, method: str, path: str, status: int, code: str) -> None:
    check_problem(ask(served.base, path, method), status, code)


def test_an_unknown_dataset_is_named(served: Served) -> None:
    assert "nøthing at/all" in ask(served.base, "/v1/rows/n%C3%B8thing%20at%2Fall").json()["detail"]


def test_what_is_not_acceptable_lists_what_is_offered(served: Served) -> None:
    answer = ask(served.base, "/v1/rows/things", headers={"Accept": "image/png, text/html;q=0.9"})
    check_problem(answer, 406, "not_acceptable")
    for offered in ("text/csv", "application/x-ndjson", "application/json"):
        assert offered in answer.json()["detail"]


@pytest.mark.parametrize(
    ("format_name", "query", "parameter", "code"),
    [
        ("csv", "limit=ten", "limit", "invalid_parameter"),
        ("csv", "limit=-1", "limit", "invalid_parameter"),
        ("csv", "limit=9223372036854775808", "limit", "invalid_parameter"),
        ("csv", "limit=1&limit=2", "limit", "invalid_parameter"),
        ("csv", "offset=%C2%B2", "offset", "invalid_parameter"),
        ("csv", "order=nothing.desc", "order", "unknown_column"),
        ("csv", "order=id.down", "order", "invalid_parameter"),
        ("csv", "select=id,nothing", "select", "unknown_column"),
        ("csv", "select=id,id", "select", "invalid_parameter"),
        ("csv", "select=id::text", "select", "unsupported"),
        ("csv", "select=doc->i", "select", "unsupported"),
        ("csv", "select=id.sum()", "select", "unsupported"),
        ("csv", "name=fts.word", "name", "unsupported"),
        ("csv", "nothing=eq.1", "nothing", "unknown_column"),
        ("csv", "id=about.1", "id", "invalid_parameter"),
        ("csv", "id=eq.one", "id", "invalid_parameter"),
        ("csv", "small=eq.40000", "small", "invalid_parameter"),
        ("csv", "uid=eq.1234", "uid", "invalid_parameter"),
        ("csv", "at=gt.yesterday-ish", "at", "invalid_parameter"),
        ("csv", "mood=eq.angry", "mood", "invalid_parameter"),
        ("csv", "tags=eq.1", "tags", "invalid_parameter"),
        ("csv", "net=eq.300.0.0.1", "net", "invalid_parameter"),
        ("csv", "id=in.(1,2", "id", "invalid_parameter"),
        ("csv", 'name=in.("a', "name", "invalid_parameter"),
        ("csv", "compression=rar", "compression", "invalid_parameter"),
        ("csv", "delimiter=ab", "delimiter", "invalid_parameter"),
        ("csv", "delimiter=%0A", "delimiter", "invalid_parameter"),
        ("csv", "header=yes", "header", "invalid_parameter"),
        ("csv", "end=1", "end", "invalid_parameter"),
        ("json", "delimiter=;", "delimiter", "invalid_parameter"),
        ("csv", "chunk_size=1", "chunk_size", "invalid_parameter"),
        ("csv", "chunk_size=999999999999", "chunk_size", "invalid_parameter"),
        ("csv", "name=eq.%00", "name", "invalid_parameter"),
        ("csv", "name=eq.%FF", "name", "invalid_parameter"),
        ("csv", "%FF=eq.1", "\ufffd", "invalid_parameter"),
        ("csv", "&".join(["id=gt.0"] * 1001), "query", "invalid_parameter"),
    ],
)
def test_a_wrong_parameter_is_named(
    served: Served, format_name: str, query: str, parameter: str, code: str
) -> None:
    answer = ask(served.base, f"/v1/rows/things.{format_name}?{query}")
    check_problem(answer, 400, code)
    assert answer.json()["parameter"] == parameter
    assert parameter in answer.json()["detail"]


def test_a_wrong_column_is_named_beside_those_there_are(served: Served) -> None:
    document = ask(served.base, "/v1/rows/things.csv?select=id,nmae").json()
    assert document["column"] == "nmae"
    assert "'nmae'" in document["detail"]
    assert "name" in document["detail"]


def test_a_query_that_is_not_percent_encoded_is_refused(served: Served) -> None:
    """Bare UTF-8 is not HTTP; it must not silently mean the rows of another text."""
    line = "GET /v1/rows/things.ndjson?name=eq.näme HTTP/1.1\r\nHost: a\r\n\r\n"
    for encoding in ("utf-8", "latin-1"):
        check_problem(send_raw(served.base, line.encode(encoding)), 400, "malformed")


@pytest.mark.parametrize(
    ("path", "loc"),
    [
        ("/v1/exports?limit=abc", ["query", "limit"]),
        ("/v1/exports?limit=0", ["query", "limit"]),
        ("/v1/exports?limit=501", ["query", "limit"]),
        ("/v1/exports?state=nothing", ["query", "state"]),
        ("/v1/exports?kind=nothing", ["query", "kind"]),
        ("/v1/exports/no-uuid", ["path", "export_id"]),
        ("/v1/exports/%00", ["path", "export_id"]),
        ("/v1/exports/no-uuid/receipt", ["path", "export_id"]),
    ],
)
def test_422_says_where_and_why(served: Served, path: str, loc: list[str]) -> None:
    answer = ask(served.base, path)
    check_problem(answer, 422, "invalid_request")
    (found,) = answer.json()["errors"]
    assert found.keys() == {"loc", "msg"}
    assert found["loc"] == loc
    assert found["msg"]
    assert loc[-1] in answer.json()["detail"]


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "",
        "%00",
        "ü",
        _cursor("yesterday 1"),
        _cursor(f"2026-01-01T00:00:00 {NOBODY} more"),
        _cursor("2026-01-01T00:00:00+00:00 no-uuid"),
        _cursor(f"0001-01-01T00:00:00+14:00 {NOBODY}"),
        _cursor(f"9999-12-31T23:59:59-14:00 {NOBODY}"),
    ],
)
def test_a_cursor_of_other_origin_is_refused(served: Served, cursor: str) -> None:
    answer = ask(served.base, f"/v1/exports?cursor={quote(cursor)}")
    check_problem(answer, 400, "invalid_parameter")
    assert answer.json()["parameter"] == "cursor"


def test_nul_in_a_filter_of_exports_is_refused(served: Served) -> None:
    answer = ask(served.base, "/v1/exports?dataset=%00")
    check_problem(answer, 400, "invalid_parameter")
    assert answer.json()["parameter"] == "dataset"


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-\x00: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_a_problem_too(served: Served, data: bytes) -> None:
    answer = send_raw(served.base, data)
    check_problem(answer, 400, "malformed")
    assert answer.headers["Connection"] == "close"
    assert ask(served.base, "/livez").status == 200


@pytest.mark.parametrize(
    "host", ["[", "[::1", "a b", "a:b", "a/b", "", '"><script>', "\xff", "a@b"]
)
@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/rows/things.csv?limit=1", "/", "/nothing"])
def test_a_hostile_host_header_breaks_nothing(served: Served, host: str, path: str) -> None:
    line = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    answer = send_raw(served.base, line.encode("latin-1"))
    assert answer.status in (200, 400, 404)
    assert b"<script>" not in answer.body


def test_a_query_at_the_limit_is_answered(served: Served) -> None:
    conditions = ["id=gt.0"] * MAX_CONDITIONS
    assert ask(served.base, "/v1/rows/things.csv?" + "&".join(conditions)).status == 200
    answer = ask(served.base, "/v1/rows/things.csv?" + "&".join([*conditions, "name=eq.x"]))
    check_problem(answer, 400, "invalid_parameter")
    assert answer.json()["parameter"] == "name"
    values = ",".join(map(str, range(10_000)))
    answer = ask(served.base, f"/v1/rows/things.ndjson?id=in.({values})")
    assert (answer.status, answer.body.count(b"\n")) == (200, 20)


def test_more_columns_than_the_database_takes_are_refused(served: Served) -> None:
    """Before anything is made of them: the statement alone would cost seconds."""
    aliases = ",".join(f"c{place}:id" for place in range(6_000))
    answer = ask(served.base, f"/v1/rows/things.csv?limit=1&select={aliases}")
    check_problem(answer, 400, "invalid_parameter")
    assert answer.json()["parameter"] == "select"


def test_as_many_columns_as_the_database_takes_are_given(served: Served) -> None:
    aliases = ",".join(f"c{place}:id" for place in range(1_664))
    for form in ("csv", "ndjson"):
        answer = ask(served.base, f"/v1/rows/things.{form}?id=eq.7&select={aliases}")
        assert answer.status == 200
        assert answer.body.splitlines()[-1].count(b"7") >= 1_664


def test_a_harmless_request_id_is_kept_and_logged(served: Served) -> None:
    given_id = f"client.made_it-{uuid4()}"
    for path in ("/livez", "/nothing", "/v1/rows/things.csv"):
        answer = ask(served.base, path, headers={"X-Request-Id": given_id})
        assert answer.headers.get_all("X-Request-Id") == [given_id]
        wait_until(
            lambda path=path: any(  # type: ignore[misc]  # mypy infers no default of a lambda
                line["request_id"] == given_id and line["path"] == path
                for line in served.events("request")
            ),
            within=10,
            what=f"the log line of {path}",
        )


@pytest.mark.parametrize(
    "hostile", ["", " ", "a b", "x" * 129, '{"a":1}', "é", "a;b", "<script>", "a\tb", "${jndi:x}"]
)
def test_a_hostile_request_id_is_replaced(served: Served, hostile: str) -> None:
    line = f"GET /nothing HTTP/1.1\r\nHost: a\r\nX-Request-Id: {hostile}\r\n\r\n"
    answer = send_raw(served.base, line.encode("latin-1"))
    check_problem(answer, 404, "not_found")
    assert UUID(answer.headers["X-Request-Id"]).version == 7


def test_two_requests_have_two_ids(served: Served) -> None:
    first, second = (ask(served.base, "/livez").headers["X-Request-Id"] for _ in range(2))
    assert first != second


def test_a_source_that_is_away_is_503_with_retry_after(
    databases: Databases, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("away")
    with databases.clone() as source:
        run_sql(source, TABLE)
        config = f'[sources.main]\nurl = "{source}"\nexpose = ["public.*"]'
        with without_worker(folder, database_url, config=config) as found:
            assert ask(found.base, "/v1/rows/things.csv").status == 200
            with away(databases, source):
                answer = ask(found.base, "/v1/rows/things.csv")
                check_problem(answer, 503, "source_unavailable")
                assert int(answer.headers["Retry-After"]) > 0
            assert ask(found.base, "/v1/rows/things.csv").status == 200


def test_a_source_that_refuses_connections_from_the_start_is_503(
    database_url: str, tmp_path: Path
) -> None:
    config = """
        [sources.main]
        url = "postgresql://nobody@127.0.0.1:1/away"
        [datasets.things]
        table = "public.things"
    """
    file = tmp_path / "tailrace.toml"
    file.write_text(config)
    arguments = ("serve", "--config", str(file), "--port", "0")
    with launched(tmp_path, *arguments, environ=environment(database_url)) as found:
        for path in ("/v1/rows/things.csv", "/v1/datasets/things", "/v1/datasets"):
            answer = ask(found.base, path)
            check_problem(answer, 503, "source_unavailable")
            assert int(answer.headers["Retry-After"]) > 0


def test_a_source_that_is_away_takes_no_other_with_it(database_url: str, tmp_path: Path) -> None:
    config = """
        [sources.away]
        url = "postgresql://nobody@127.0.0.1:1/away"
        [sources.main]
        [datasets.lost]
        source = "away"
        table = "public.lost"
        [datasets.small]
        sql = "select 1 as id"
    """
    file = tmp_path / "tailrace.toml"
    file.write_text(config)
    arguments = ("serve", "--config", str(file), "--port", "0")
    with launched(tmp_path, *arguments, environ=environment(database_url)) as found:
        for path in ("/v1/rows/lost.csv", "/v1/datasets/lost"):
            check_problem(ask(found.base, path), 503, "source_unavailable")
        for path in ("/v1/rows/small.csv", "/v1/datasets/small"):
            assert ask(found.base, path).status == 200


async def test_an_unexpected_error_is_a_problem_that_tells_nothing(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No request is known to cause one, so a route is added that does; in-process, for once."""
    app = create_app(Settings(), database_url)
    secret = "secret"

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError(secret)

    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/boom")
        metrics = (await client.get("/metrics")).text
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document.keys() == MEMBERS
    assert document["code"] == "internal"
    assert document["request_id"] == answer.headers["X-Request-Id"]
    assert secret not in answer.text
    assert "tailrace_unexpected_errors_total 1.0" in metrics
    assert 'tailrace_requests_total{method="GET",route="/boom",status="500"} 1.0' in metrics
    logged = [line for line in capsys.readouterr().out.splitlines() if "unexpected error" in line]
    assert len(logged) == 1
    assert document["request_id"] in logged[0]
