"""The operator's own SQL: what is placed as it was written, and what is refused."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from service.catalog import Catalog
from service.databases.postgresql.source import PostgresSource
from service.errors import NotFound, SourceError
from service.export.encode import Rows
from service.settings import DatasetSettings
from tests.exporting import as_role, carried, catalog_of, login_role, open_source, records
from tests.postgres import Databases, fetch, run_sql

ATTACK = "' || current_user || '"

SETUP = """
    CREATE TABLE canary AS SELECT 1 AS id;
    CREATE SEQUENCE counter;
    CREATE FUNCTION harm() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN DELETE FROM canary; RETURN 1; END $$;
    CREATE FUNCTION harm_in_passing() RETURNS SETOF int LANGUAGE sql AS
        $$ UPDATE canary SET id = 2 RETURNING id $$;
    CREATE VIEW harmful AS SELECT harm() AS a;
"""

# Each is read alone and with filters on every text column.
PLACED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "dollar in a literal": ("select 'costs $1 each' as a", [{"a": "costs $1 each"}]),
    "dollar in a name": ('select \'x\' as "price$1", \'y\' as "$1"', [{"price$1": "x", "$1": "y"}]),
    "comment at the end": ("select 'x' as a -- it's a comment", [{"a": "x"}]),
    "comments at the end": ("select 'x' as a\n--\n/* ' */ --)", [{"a": "x"}]),
    "comment in front": ("/* ; ' */ -- ;\nselect 'x' as a", [{"a": "x"}]),
    "semicolon at the end": (" select 'x' as a ;\n", [{"a": "x"}]),
    "semicolons in a comment": ("select 'x' as a -- ;;", [{"a": "x"}]),
    "semicolon in a literal": ("select ';' as a", [{"a": ";"}]),
    "percent": ("select '100%' as a, '%s%(x)s%%' as b, 7 % 4 as c", [{"a": "100%", "b": "%s%(x)s%%", "c": 3}]),
    "colons": ("select ':name' as a, '12:30'::time::text as b, 1::int as c", [{"a": ":name", "b": "12:30:00", "c": 1}]),
    "names with marks": ('select \'x\' as ":name", \'y\' as "%s"', [{":name": "x", "%s": "y"}]),
    "marks of SQLAlchemy": ("select '__[POSTCOMPILE_param_1]' as a", [{"a": "__[POSTCOMPILE_param_1]"}]),
    "marks of Python": ("select '{}' as a, '{query}' as b", [{"a": "{}", "b": "{query}"}]),
    "dollar quotes": ("select $$it's; $1 -- x$$ as a, $q$ $$ $q$ as b", [{"a": "it's; $1 -- x", "b": " $$ "}]),
    "escapes": (r"select E'\'; drop table canary; --' as a", [{"a": "'; drop table canary; --"}]),
    "unicode escapes": (r"select U&'\0027' as a", [{"a": "'"}]),
    "backslash": (r"select '\' as a, 'x\' as b", [{"a": "\\", "b": "x\\"}]),
    "parentheses in literals": ("select ')' as a, '(' as b", [{"a": ")", "b": "("}]),
    "quotes in a name": ('select \'x\' as "a""b"', [{'a"b': "x"}]),
    "names of ours": ("select 'x' as configured, 'y' as r, 'z' as c0", [{"configured": "x", "r": "y", "c0": "z"}]),
    "names of keywords": ('select \'x\' as "select", 2 as "table"', [{"select": "x", "table": 2}]),
    "with": ("with x as (select 'y' as a) select * from x", [{"a": "y"}]),
    "union": ("(select 'x' as a) union all (select 'y') order by 1", [{"a": "x"}, {"a": "y"}]),
    "values": ("values ('x'), ('y')", [{"column1": "x"}, {"column1": "y"}]),
    "table": ("table canary", [{"id": 1}]),
    "limit": ("select 'x' as a order by a limit 1 offset 0", [{"a": "x"}]),
    "no rows": ("select 'x' as a where false", []),
}  # fmt: skip

REFUSED = {
    "two statements": "select 1 as a; drop table canary",
    "two reads": "select 1 as a; select 2 as a",
    "a comment between": "select 1 as a /* */ ; -- x\n delete from canary",
    "closing parenthesis": "select 1) as q; drop table canary; --",
    "closed and opened": "select 1 as a) as q, (select 2 as b",
    "closed and continued": "select 1 as a) as configured union select current_user --",
    "open parenthesis": "select (1 as a",
    "open literal": "select 'x as a",
    "open comment": "select 1 as a /*",
    "open dollar quote": "select $$x as a",
    "delete": "delete from canary",
    "delete returning": "delete from canary returning id",
    "insert returning": "insert into canary values (2) returning id",
    "update returning": "update canary set id = 2 returning id",
    "merge": "merge into canary using canary c on false when not matched then do nothing",
    "delete in with": "with d as (delete from canary returning id) select * from d",
    "insert in with": "with d as (insert into canary values (2) returning id) select * from d",
    "select into": "select 1 as a into thief",
    "create": "create table thief (id int)",
    "create as": "create table thief as select 1 as a",
    "drop": "drop table canary",
    "copy": "copy canary to stdout",
    "copy program": "copy canary to program 'id'",
    "call": "call harm()",
    "do": "do $$ begin delete from canary; end $$",
    "set": "set transaction read write",
    "begin": "begin",
    "commit": "commit",
    "show": "show all",
    "explain": "explain select 1",
    "execute": "execute x",
    "empty": ";",
    "comment alone": "-- nothing",
    "parameter": "select $1::int as a",
    "no columns": "select from canary",
    "a column twice": "select 1 as a, 2 as a",
    "unnamed columns": "select 1, 2",
    "unknown table": "select * from nothing",
    "unknown column": "select nothing from canary",
}

BREAKS_WHEN_RUN = {
    "function that writes": ("select harm() as a", "25006"),
    "set of a writer": ("select * from harm_in_passing() as a", "25006"),
    "view that writes": ("select * from harmful", "25006"),
    "nextval": ("select nextval('counter') as a", "25006"),
    "setval": ("select setval('counter', 5) as a", "25006"),
    "row locks": ("select id from canary for update", "25006"),
    "large object": ("select lo_creat(-1) as a", "25006"),
    "writable again": ("select set_config('transaction_read_only', 'off', false) as a", "25001"),
}


@pytest.fixture(scope="module")
def role(databases: Databases) -> Iterator[str]:
    with login_role(databases.server_url) as name:
        yield name


@pytest.fixture(scope="module")
def url(role: str, module_database_url: str) -> str:
    """A database in which the service's role owns everything that could be harmed."""
    run_sql(
        module_database_url,
        f"GRANT CREATE ON SCHEMA public TO {role}; GRANT pg_monitor TO {role}",
    )
    mine = as_role(module_database_url, role)
    run_sql(mine, SETUP)
    return mine


@pytest.fixture(autouse=True)
def canary(url: str) -> Iterator[None]:
    yield
    query = "SELECT (SELECT string_agg(id::text, ',') FROM canary), to_regclass('thief'), last_value FROM counter"
    assert tuple(fetch(url, query)[0]) == ("1", None, 1)


def configured(source: PostgresSource, sql: Mapping[str, str]) -> Catalog:
    return catalog_of(source, {name: DatasetSettings(sql=text) for name, text in sql.items()})


async def test_configured_sql_is_placed_as_it_was_written(url: str, role: str) -> None:
    async with open_source(url) as source:
        catalog = configured(source, {name: sql for name, (sql, _) in PLACED.items()})
        for name, (_, expected) in PLACED.items():
            dataset = await catalog.dataset(name)
            assert records(await carried(source, dataset)) == expected
            data = await carried(source, dataset, rows=Rows.CSV)
            header, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
            assert header == [column.name for column in dataset.columns]
            assert rows == [[str(cell) for cell in record.values()] for record in expected]
            assert role.encode() not in data
        assert catalog.problems == {}


async def test_values_beside_configured_sql_stay_values(url: str) -> None:
    async with open_source(url) as source:
        catalog = configured(source, {name: sql for name, (sql, _) in PLACED.items()})
        for name, (_, expected) in PLACED.items():
            dataset = await catalog.dataset(name)
            texts = [
                c.name for c in dataset.columns if expected and isinstance(expected[0][c.name], str)
            ]
            for column in {*texts} - {"select"}:
                value = expected[0][column]
                found = records(await carried(source, dataset, (column, f"eq.{value}")))
                assert found == [row for row in expected if row[column] == value]
                both = f'not.in.("{ATTACK}"," || current_user || ","$1")'
                assert records(await carried(source, dataset, (column, both))) == expected
                for attack in (ATTACK, " || current_user || ", "$1", ":name", "%s"):
                    found = records(await carried(source, dataset, (column, f"eq.{attack}")))
                    assert found == [row for row in expected if row[column] == attack]


async def test_what_is_not_one_reading_statement_is_refused_before_any_request(url: str) -> None:
    async with open_source(url) as source:
        catalog = configured(source, {**REFUSED, "fine": "select 1 as a"})
        assert {*await catalog.datasets()} >= {"fine", "canary"}
        assert catalog.problems.keys() == REFUSED.keys()
        for name in REFUSED:
            with pytest.raises(NotFound, match=f"{name} is configured but cannot be used: ."):
                await catalog.dataset(name)
        assert records(await carried(source, await catalog.dataset("fine"))) == [{"a": 1}]


@pytest.mark.parametrize("name", BREAKS_WHEN_RUN)
async def test_what_would_write_fails_when_it_is_run(url: str, name: str) -> None:
    sql, sqlstate = BREAKS_WHEN_RUN[name]
    async with open_source(url) as source:
        dataset = await configured(source, {name: sql}).dataset(name)
        for rows in Rows:
            with pytest.raises(SourceError) as caught:
                await carried(source, dataset, rows=rows)
            assert caught.value.members == {"sqlstate": sqlstate}


SETTINGS = {
    "tailrace.secret": "leaked",
    "search_path": "pg_catalog",
    "work_mem": "123MB",
    "DateStyle": "SQL, DMY",
    "statement_timeout": "123s",
    "role": "pg_monitor",
}
STATE = "select pg_backend_pid() as pid, current_user::text as user, {}".format(
    ", ".join(f"current_setting('{name}', true) as \"{name}\"" for name in SETTINGS)
)
CHANGING = "select pg_backend_pid() as pid, {}".format(
    ", ".join(f"set_config('{n}', '{value}', false) as \"{n}\"" for n, value in SETTINGS.items())
)


async def test_settings_of_one_request_do_not_reach_the_next(url: str, role: str) -> None:
    async with open_source(url, connections=1) as source:
        catalog = configured(source, {"state": STATE, "changing": CHANGING})
        state, changing = await catalog.dataset("state"), await catalog.dataset("changing")
        (before,) = records(await carried(source, state))
        (changed,) = records(await carried(source, changing))
        (after,) = records(await carried(source, state))
    assert changed == {"pid": before["pid"], **SETTINGS}
    # A setting that was named once is known to the session from then on, and empty.
    assert after == {**before, "tailrace.secret": ""}
    assert before["tailrace.secret"] is None
    assert after["user"] == role
