"""The same attacks through a served process: query string, path, headers and configuration."""

from __future__ import annotations

import asyncio
import csv
import http.client
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import asyncpg
import pytest

from tests.attacks import ATTACKS, LONG, NAMES, WITH_NUL, identifier, in_grammar
from tests.exporting import as_role, login_role, records
from tests.postgres import Databases, fetch, libpq_url, run_sql
from tests.serving import without_worker

CONFIGURED = {
    "costs": "select 'costs $1 each' as a",
    "price": "select 'x' as \"price$1\", '%s :name' as a -- it's a comment;",
    "broken": "select 1) as q; drop table canary; --",
    "deleting": "with d as (delete from canary returning id) select * from d",
    "writing": "select harm() as a",
}
FUNCTION = """
    CREATE TABLE canary AS SELECT 1 AS id;
    CREATE FUNCTION harm() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN DELETE FROM canary; RETURN 1; END $$;
    CREATE TABLE attacked (id int PRIMARY KEY, t text);
"""


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["Content-Type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Client:
    """One connection; ``role`` must be in no answer."""

    connection: http.client.HTTPConnection
    role: str

    def get(
        self, path: str, *pairs: tuple[str, str], headers: dict[str, str] | None = None
    ) -> Answer:
        query = f"?{urlencode(pairs)}" if pairs else ""
        self.connection.request("GET", f"/v1/rows/{path}{query}", headers=headers or {})
        response = self.connection.getresponse()
        body = response.read()
        assert self.role.encode() not in body + bytes(response.headers)
        return Answer(response.status, response.headers, body)


@pytest.fixture(scope="module")
def role(databases: Databases) -> Iterator[str]:
    with login_role(databases.server_url) as name:
        yield name


@pytest.fixture(scope="module")
def client(
    role: str, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    grants = f"GRANT CREATE ON SCHEMA public TO {role}; CREATE SCHEMA named AUTHORIZATION {role}"
    run_sql(module_database_url, grants)
    url = as_role(module_database_url, role)
    asyncio.run(_fill(url))
    config = f'[sources.main]\nurl = {json.dumps(url)}\nexpose = ["named.*"]\n'
    config += '[datasets.attacked]\ntable = "public.attacked"\n'
    config += "".join(
        f"[datasets.{name}]\nsql = {json.dumps(sql)}\n" for name, sql in CONFIGURED.items()
    )
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=config
    ) as served:
        address = urlsplit(served.base)
        with closing(http.client.HTTPConnection(address.netloc, timeout=30)) as connection:
            yield Client(connection, role)
    query = "SELECT (SELECT count(*) FROM canary), (SELECT count(*) FROM attacked)"
    assert tuple(fetch(url, query)[0]) == (1, len(ATTACKS))


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(libpq_url(url))
    try:
        await connection.execute(FUNCTION)
        await connection.executemany("INSERT INTO attacked VALUES ($1, $2)", enumerate(ATTACKS))
        for name in NAMES:
            await connection.execute(f"CREATE TABLE named.{identifier(name)} AS SELECT 'here' AS a")
    finally:
        await connection.close()


def test_values_of_the_query_string_stay_values(client: Client) -> None:
    for number, attack in enumerate(ATTACKS):
        answer = client.get("attacked.ndjson", ("t", f"eq.{attack}"), ("select", "id,t"))
        assert answer.status == 200
        assert records(answer.body) == [{"id": number, "t": attack}]


def test_lists_of_the_query_string_stay_values(client: Client) -> None:
    listed = ",".join(in_grammar(attack) for attack in ATTACKS)
    pairs = [("t", f"in.({listed})"), ("order", "id.desc"), ("select", "id,t")]
    answer = client.get("attacked.csv", *pairs)
    _, *rows = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    assert rows == [[str(n), attack] for n, attack in reversed([*enumerate(ATTACKS)])]


def test_labels_of_the_query_string_stay_labels(client: Client) -> None:
    select = ",".join(f"{in_grammar(attack)}:id" for attack in ATTACKS)
    answer = client.get("attacked.ndjson", ("select", select), ("id", "eq.5"))
    assert records(answer.body) == [dict.fromkeys(ATTACKS, 5)]


def test_names_in_the_path_are_names_of_datasets_and_files(client: Client) -> None:
    for name in (name for name in NAMES if "\n" not in name):  # which Starlette does not route
        answer = client.get(f"{quote(name, safe='')}.csv")
        assert (name, answer.status, answer.body) == (name, 200, b"a\nhere\n")
        disposition = answer.headers["Content-Disposition"]
        assert disposition.startswith('attachment; filename="')
        assert not set(disposition.split('"')[1]) & set('/\\:*?<>|%"')


def test_names_that_are_no_dataset_are_not_there(client: Client) -> None:
    for name in NAMES:
        answer = client.get(quote(f"public.{name}", safe=""))
        assert (answer.status, answer.problem["code"]) == (404, "not_found")


@pytest.mark.parametrize("text", WITH_NUL, ids=range(len(WITH_NUL)))
def test_nul_is_refused(client: Client, text: str) -> None:
    for pair in (("t", f"eq.{text}"), ("select", text), (f"t{text}", "eq.1")):
        answer = client.get("attacked", pair)
        assert (answer.status, answer.problem["code"]) == (400, "invalid_parameter")
    assert client.get(quote(text, safe="")).status == 404


@pytest.mark.parametrize("query", ["t=eq.%ff", "%ff=eq.1", "select=%c3%28", "t=eq.%ed%a0%80"])
def test_what_is_not_utf_8_is_refused(client: Client, query: str) -> None:
    answer = client.get(f"attacked?{query}")
    assert (answer.status, answer.problem["code"]) == (400, "invalid_parameter")


def test_long_values_pass_as_far_as_the_server_reads(client: Client) -> None:
    for text in (long[:9000] for long in LONG):
        answer = client.get("attacked.ndjson", ("t", f"eq.{text}"))
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("name", ["Accept", "Accept-Encoding", "X-Request-Id", "Prefer", "Range"])
def test_headers_are_negotiated_and_never_told_back(client: Client, name: str) -> None:
    for attack in ATTACKS:
        text = attack.encode("ascii", "replace").decode()
        if text.isprintable() and text != "*":
            answer = client.get("costs.csv", headers={name: text})
            assert (answer.status, answer.body) == (200, b"a\ncosts $1 each\n")
            assert set(answer.headers["X-Request-Id"]) <= {*"-._", *map(chr, range(48, 123))}


def test_configured_sql_is_placed_as_it_was_written(client: Client) -> None:
    (record,) = records(client.get("price.ndjson").body)
    assert record == {"price$1": "x", "a": "%s :name"}
    for attack in (" || current_user || ", *ATTACKS):
        found = {
            name: client.get(f"{name}.ndjson", ("a", f"eq.{attack}")) for name in ("costs", "price")
        }
        expected = b'{"a":"costs $1 each"}\n' if attack == "costs $1 each" else b""
        assert (found["costs"].status, found["costs"].body) == (200, expected)
        assert (found["price"].status, found["price"].body) == (200, b"")


@pytest.mark.parametrize("name", ["broken", "deleting"])
def test_configured_sql_that_is_no_reading_statement_is_not_there(
    client: Client, name: str
) -> None:
    answer = client.get(f"{name}.csv")
    assert answer.status == 404
    assert answer.problem["detail"].startswith(
        f"The dataset {name} is configured but cannot be used: "
    )


def test_configured_sql_that_writes_fails_before_the_first_byte(client: Client) -> None:
    answer = client.get("writing.csv")
    assert (answer.status, answer.problem["sqlstate"]) == (502, "25006")
