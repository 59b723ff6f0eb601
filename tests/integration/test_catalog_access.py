"""What a role may not read is not shown, and a source that is away takes nothing else with it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from service.catalog import Catalog
from service.databases.postgresql.source import PostgresSource
from service.errors import NotFound, SourceError, SourceUnavailable
from service.settings import DatasetSettings
from tests.exporting import (
    PUBLIC,
    as_role,
    carried,
    catalog_of,
    ignored,
    login_role,
    open_source,
    records,
)
from tests.postgres import Databases, libpq_url, run_sql
from tests.serving import without_worker

SETUP = """
    CREATE TABLE allowed AS SELECT 1 AS id, 'x' AS name;
    CREATE TABLE denied AS SELECT 1 AS id, 'secret' AS name;
    CREATE TABLE partly (id int, part int, name text, secret text, PRIMARY KEY (id, part));
    INSERT INTO partly VALUES (1, 2, 'x', 'secret');
    CREATE TABLE writable (id int);
    CREATE VIEW window_into AS SELECT name FROM denied;
    CREATE SCHEMA closed;
    CREATE TABLE closed.inside AS SELECT 'secret' AS name;
    GRANT SELECT ON allowed, window_into, closed.inside TO {role};
    GRANT SELECT (id, name) ON partly TO {role};
    GRANT INSERT, UPDATE, DELETE ON writable TO {role};
"""


@pytest.fixture(scope="module")
def role(databases: Databases) -> Iterator[str]:
    with login_role(databases.server_url) as name:
        yield name


@pytest.fixture(scope="module")
def url(role: str, module_database_url: str) -> Iterator[str]:
    """As a role that may read little."""
    run_sql(module_database_url, SETUP.format(role=role))
    yield as_role(module_database_url, role)
    run_sql(module_database_url, f"DROP OWNED BY {role}")


async def test_only_what_the_role_may_read_is_shown(url: str) -> None:
    exposed = PUBLIC.model_copy(update={"expose": ("public.*", "closed.*")})
    async with open_source(url) as source:
        datasets = await catalog_of(source, exposed=exposed).datasets()
        assert [*datasets] == ["allowed", "partly", "window_into"]
        assert records(await carried(source, datasets["allowed"])) == [{"id": 1, "name": "x"}]
        assert records(await carried(source, datasets["window_into"])) == [{"name": "secret"}]


async def test_columns_that_the_role_may_not_read_are_not_shown_nor_a_key_with_them(
    url: str,
) -> None:
    async with open_source(url) as source:
        dataset = await catalog_of(source).dataset("partly")
        assert [column.name for column in dataset.columns] == ["id", "name"]
        assert dataset.key == ()
        assert records(await carried(source, dataset)) == [{"id": 1, "name": "x"}]


@pytest.mark.parametrize("table", ["denied", "writable", "closed.inside", "tailrace.exports"])
async def test_a_configured_table_without_the_privilege_is_not_there(url: str, table: str) -> None:
    # Not validated: the settings would refuse our own schema first.
    configured = {"it": DatasetSettings.model_construct(table=table)}
    async with open_source(url) as source:
        with pytest.raises(NotFound, match="that this role may read"):
            await catalog_of(source, configured).dataset("it")


async def test_configured_sql_over_what_may_not_be_read_gives_nothing(url: str) -> None:
    configured = {"it": DatasetSettings(sql="select name from denied")}
    async with open_source(url) as source:
        dataset = await catalog_of(source, configured).dataset("it")
        with pytest.raises(SourceError) as caught:
            await carried(source, dataset)
    assert caught.value.members == {"sqlstate": "42501"}


@pytest.fixture
def later(databases: Databases) -> Iterator[str]:
    """The name of a database that is not there yet."""
    name = f"tailrace_later_{uuid4().hex[:12]}"
    yield name
    for left in (name, f"{name}_away"):
        run_sql(databases.server_url, f"DROP DATABASE IF EXISTS {left} WITH (FORCE)")


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(libpq_url(url))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_source_that_is_away_is_looked_at_again(databases: Databases, later: str) -> None:
    async with open_source(databases.url(later)) as source:
        catalog = catalog_of(source, {"it": DatasetSettings(table="numbers")})
        for _ in range(2):
            with pytest.raises(SourceUnavailable):
                await catalog.datasets()
            with pytest.raises(SourceUnavailable):
                await catalog.dataset("it")
        await execute(databases.server_url, f"CREATE DATABASE {later}")
        await execute(databases.url(later), "CREATE TABLE numbers AS SELECT 7 AS n")
        assert records(await carried(source, await catalog.dataset("it"))) == [{"n": 7}]


@pytest.fixture
def numbers(databases: Databases, later: str) -> str:
    """The URL of a database that is there, until ``away`` renames it."""
    run_sql(databases.server_url, f"CREATE DATABASE {later}")
    run_sql(databases.url(later), "CREATE TABLE numbers AS SELECT 7 AS n")
    return databases.url(later)


def away(name: str) -> tuple[str, ...]:
    """The statements that take the database ``name`` away, whoever is connected."""
    closed = f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"
    end = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
    return closed, end, f"ALTER DATABASE {name} RENAME TO {name}_away"


def back(name: str) -> tuple[str, ...]:
    opened = f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"
    return f"ALTER DATABASE {name}_away RENAME TO {name}", opened


async def test_a_source_that_goes_away_and_comes_back(
    databases: Databases, later: str, numbers: str
) -> None:
    async with open_source(numbers) as source:
        catalog = catalog_of(source)
        dataset = await catalog.dataset("numbers")
        assert records(await carried(source, dataset)) == [{"n": 7}]
        await execute(databases.server_url, *away(later))
        with pytest.raises(SourceUnavailable):
            await carried(source, dataset)
        with pytest.raises(SourceUnavailable):
            await catalog.refresh()
        assert [*await catalog.datasets()] == ["numbers"]
        await execute(databases.server_url, *back(later))
        await catalog.refresh()
        assert records(await carried(source, await catalog.dataset("numbers"))) == [{"n": 7}]


async def test_a_source_that_is_away_takes_no_other_with_it(
    url: str, databases: Databases, later: str
) -> None:
    async with open_source(url) as source, open_source(databases.url(later)) as missing:
        missing.name = "away"
        sources: dict[str, PostgresSource] = {"away": missing, "main": source}
        configured = {
            "mine": DatasetSettings(table="allowed"),
            "other": DatasetSettings(table="x", source="away"),
        }
        catalog = Catalog(sources, {"away": PUBLIC, "main": PUBLIC}, configured, ignored)
        found = await catalog.datasets()
        assert {item.source for item in found.values()} == {"main"}
        assert len(records(await carried(source, await catalog.dataset("mine")))) == 1
        for name in ("other", "unheard-of"):
            with pytest.raises(SourceUnavailable):
                await catalog.dataset(name)


def asked(base: str, path: str, method: str = "GET") -> tuple[int, str | None, Any]:
    """Status, Retry-After and the JSON."""
    with closing(http.client.HTTPConnection(urlsplit(base).netloc, timeout=30)) as client:
        client.request(method, path)
        response = client.getresponse()
        body = response.read()
        return response.status, response.headers["Retry-After"], json.loads(body) if body else None


def test_over_http_a_source_that_is_away_is_a_503_until_it_comes_back(
    databases: Databases, database_url: str, later: str, numbers: str, tmp_path: Path
) -> None:
    config = f'[sources.main]\nurl = {json.dumps(numbers)}\nexpose = ["public.*"]\n'
    config += '[datasets.gone]\ntable = "gone"\n'
    with without_worker(tmp_path, database_url, config=config) as served:
        assert asked(served.base, "/v1/rows/numbers") == (200, None, [{"n": 7}])
        status, _, problem = asked(served.base, "/v1/rows/gone")
        assert (status, problem["code"]) == (404, "not_found")
        assert "there is no relation public.gone that this role may read" in problem["detail"]
        asyncio.run(execute(databases.server_url, *away(later)))
        for method, path in (("GET", "/v1/rows/numbers.csv"), ("POST", "/v1/datasets/refresh")):
            status, retry, problem = asked(served.base, path, method)
            assert (status, retry, problem["code"]) == (503, "5", "source_unavailable")
        asyncio.run(execute(databases.server_url, *back(later)))
        assert asked(served.base, "/v1/datasets/refresh", "POST") == (204, None, None)
        assert asked(served.base, "/v1/rows/numbers") == (200, None, [{"n": 7}])
