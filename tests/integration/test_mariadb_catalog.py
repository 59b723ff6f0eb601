"""MariaDB's data dictionary, the operator's own SQL, and texts that were made to do harm."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from service.column import Column, Kind
from service.databases.mysql.source import MysqlSource
from service.errors import NotFound, SourceError
from service.export.encode import Rows
from service.settings import DatasetSettings, SourceSettings
from tests.attacks import ATTACKS, in_grammar
from tests.exporting import carried, catalog_of, records
from tests.mariadb import catalog, connected, open_source, rows, run

STEP = 1 if os.environ.get("TAILRACE_FAULTS") == "full" else 4
LANES = ("auto", "rows")


async def test_tables_and_views_are_described(mariadb_url: str) -> None:
    await run(
        mariadb_url,
        "CREATE TABLE things (b INT UNSIGNED, a BIGINT COMMENT 'first''s', d JSON, word VARCHAR(9) "
        "NOT NULL, at TIMESTAMP NULL, e ENUM('x'), f TINYINT(1), g TINYINT(1) UNSIGNED, "
        "PRIMARY KEY (word, a)) COMMENT 'all of them'",
        "CREATE VIEW seen AS SELECT a, word, CONCAT(word, '!') AS loud FROM things",
        "INSERT INTO things (a, word) VALUES (1, 'x')",
        "CREATE TABLE `Größe 50%/day ``x`` :y` (`se``lect %s` INT)",
    )
    async with open_source(mariadb_url) as source:
        found = await catalog(source).datasets()
    assert list(found) == ["Größe 50%/day `x` :y", "seen", "things"]
    things, seen = found["things"], found["seen"]
    assert things.key == ("word", "a")
    assert things.description == "all of them"
    assert things.estimated_rows in (0, 1)  # it is InnoDB's guess
    assert things.columns == (
        Column("b", "int(10) unsigned", Kind.INTEGER),
        Column("a", "bigint(20)", Kind.INTEGER, nullable=False, description="first's", bits=64),
        Column("d", "longtext", Kind.JSON),
        Column("word", "varchar(9)", Kind.TEXT, nullable=False),
        Column("at", "timestamp", Kind.TEMPORAL),
        Column("e", "enum('x')", Kind.TEXT),
        Column("f", "tinyint(1)", Kind.BOOLEAN),
        Column("g", "tinyint(1) unsigned", Kind.INTEGER),
    )
    assert (seen.key, seen.computed, seen.description) == ((), True, None)
    assert [column.name for column in seen.columns] == ["a", "word", "loud"]


async def test_the_servers_own_tables_are_never_shown(mariadb_url: str) -> None:
    exposed = SourceSettings.model_construct(expose=("mysql.*", "sys.*", "performance_schema.*"))
    async with open_source(mariadb_url) as source:
        assert await catalog_of(source, {}, exposed).datasets() == {}


async def test_another_database_of_the_server(mariadb_url: str) -> None:
    other = "tailrace_test_other"
    await run(
        mariadb_url, f"CREATE DATABASE {other}", f"CREATE TABLE {other}.t (id INT PRIMARY KEY)"
    )
    try:
        async with open_source(mariadb_url) as source:
            exposed = SourceSettings(expose=(f"{other}.*",))
            dataset = await catalog_of(source, {}, exposed).dataset("t")
            assert await carried(source, dataset, rows=Rows.CSV) == b"id\n"
    finally:
        await run(mariadb_url, f"DROP DATABASE {other}")


CONFIGURED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "percent": ("SELECT '100%' AS a, '%s%(x)s%%' AS b, 7 % 4 AS c", [{"a": "100%", "b": "%s%(x)s%%", "c": 3}]),
    "colons": ("SELECT ':name' AS a", [{"a": ":name"}]),
    "names": ("SELECT 'x' AS `:name`, 'y' AS `%s`", [{":name": "x", "%s": "y"}]),
    "comments": ("SELECT 'x' AS a -- it's a comment", [{"a": "x"}]),
    "a number sign": ("SELECT 'x' AS a # it's one, too", [{"a": "x"}]),
    "a semicolon": (" SELECT ';' AS a ;\n", [{"a": ";"}]),
    "double quotes": ('SELECT "x" AS a', [{"a": "x"}]),
    "escapes": (r"SELECT 'it\'s; \\' AS a", [{"a": "it's; \\"}]),
    "with": ("WITH x AS (SELECT 'y' AS a) SELECT * FROM x", [{"a": "y"}]),
    "union": ("(SELECT 'x' AS a) UNION ALL (SELECT 'y') ORDER BY a", [{"a": "x"}, {"a": "y"}]),
    "names of ours": ("SELECT 'x' AS configured, 'y' AS r, 'z' AS c0", [{"configured": "x", "r": "y", "c0": "z"}]),
    "types": (
        (
            "SELECT CAST(1.50 AS DECIMAL(5,2)) AS d, 0.1e0 AS f, CAST('2026-02-28' AS DATE) AS day,"
            " X'00FF' AS raw, TRUE AS flag, b'101' AS bits, NULL AS none"
        ),
        [{"d": 1.5, "f": 0.1, "day": "2026-02-28", "raw": "\\x00ff", "flag": 1, "bits": "\\x05", "none": None}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURED)
async def test_configured_sql_is_placed_as_it_is(mariadb_url: str, name: str) -> None:
    sql, expected = CONFIGURED[name]
    configured = {"it": DatasetSettings(source="main", sql=sql)}
    for lane in LANES:
        async with open_source(mariadb_url, lane=lane) as source:
            dataset = await catalog(source, configured).dataset("it")
            assert records(await carried(source, dataset)) == expected


async def test_configured_sql_knows_the_types_of_a_table(mariadb_url: str) -> None:
    kinds = (
        "a TINYINT(1), b BIGINT UNSIGNED, c INT(4) ZEROFILL, d DECIMAL(9,3), e ENUM('x'), f FLOAT, "
        "g TIMESTAMP NULL, h BIT(9), i BLOB, j DATETIME(6), k YEAR, l POINT, m VARCHAR(3)"
    )
    values = "1, 2, 3, 4.5, 'x', 0.1, '2026-02-28 12:30:00', 5, X'00', '2026-02-28', 2026, POINT(1, 2), 'y'"
    await run(mariadb_url, f"CREATE TABLE kinds ({kinds})", f"INSERT INTO kinds VALUES ({values})")
    configured = {"it": DatasetSettings(source="main", sql="SELECT * FROM kinds")}
    async with open_source(mariadb_url) as source:
        found = catalog(source, configured)
        table, query = await found.dataset("kinds"), await found.dataset("it")
        for form in Rows:
            assert await carried(source, query, rows=form) == await carried(
                source, table, rows=form
            )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS a; SELECT 2 AS b",
        "SELECT 1) AS a; DROP TABLE canary; -- ",
        "SELECT 1 AS a) AS x, (SELECT 2 AS b",
        "SELECT ? AS a",
        "INSERT INTO canary VALUES (2)",
        "DROP TABLE canary",
        "SELECT 1 AS a /* without an end",
        "SHOW TABLES",
        "SELECT 1 AS a, 2 AS a",
        "CALL something()",
    ],
)
async def test_what_is_no_query_is_refused(mariadb_url: str, sql: str) -> None:
    await run(mariadb_url, "CREATE TABLE canary (id INT)", "INSERT INTO canary VALUES (1)")
    configured = {"it": DatasetSettings(source="main", sql=sql)}
    async with open_source(mariadb_url) as source:
        with pytest.raises(NotFound, match="cannot be used"):
            await catalog(source, configured).dataset("it")
    assert await rows(mariadb_url, "SELECT id FROM canary") == [(1,)]


async def test_what_is_gone_is_told(mariadb_url: str) -> None:
    await run(mariadb_url, "CREATE TABLE t (id INT)")
    async with open_source(mariadb_url) as source:
        dataset = await catalog(source).dataset("t")
        await run(mariadb_url, "ALTER TABLE t CHANGE id other INT")
        with pytest.raises(SourceError, match="Unknown column") as caught:
            await carried(source, dataset)
        assert caught.value.members == {"sqlstate": "42S22"}
        await run(mariadb_url, "DROP TABLE t")
        with pytest.raises(SourceError, match="1146") as caught:
            await carried(source, dataset)
        assert caught.value.members == {"sqlstate": "42S02"}


@pytest.mark.parametrize("lane", LANES)
async def test_hostile_values_stay_values(mariadb_url: str, lane: str) -> None:
    attacks = list(enumerate(ATTACKS))
    await run(
        mariadb_url,
        "CREATE TABLE canary (id INT)",
        "CREATE TABLE `costs $1` (id INT PRIMARY KEY, `a%s` TEXT COLLATE utf8mb4_nopad_bin)",
    )
    async with connected(mariadb_url) as connection, connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO `costs $1` VALUES (%s, %s)", attacks)
    async with open_source(mariadb_url, lane=lane) as source:
        dataset = await catalog(source).dataset("costs $1")
        for number, attack in attacks[::STEP]:
            expected = [{"id": number, "a%s": attack}]
            for value in (f"eq.{attack}", f"in.({in_grammar(attack)})"):
                assert records(await carried(source, dataset, ("a%s", value))) == expected
        assert len(records(await carried(source, dataset, ("select", "id")))) == len(ATTACKS)
    assert await rows(mariadb_url, "SELECT * FROM canary") == []


async def test_hostile_names_and_labels_stay_names(mariadb_url: str) -> None:
    # An identifier holds at most 64 characters of the basic plane, and ends in no space.
    names = [
        name
        for name in ATTACKS[::STEP]
        if len(name) <= 60 and name.isprintable() and name.strip() == name and max(name) <= "\uffff"
    ]
    await run(mariadb_url, "CREATE TABLE canary (id INT)")
    async with open_source(mariadb_url) as source:
        for name in names:
            await _one_name(source, mariadb_url, name)
    assert await rows(mariadb_url, "SELECT * FROM canary") == []


async def _one_name(source: MysqlSource, url: str, name: str) -> None:
    quoted = "`" + name.replace("`", "``") + "`"
    await run(
        url, f"CREATE OR REPLACE TABLE hostile ({quoted} INT)", "INSERT INTO hostile VALUES (1)"
    )
    dataset = await catalog(source).dataset("hostile")
    assert [column.name for column in dataset.columns] == [name]
    data = await carried(source, dataset, ("select", f"{in_grammar(name)}:{in_grammar(name)}"))
    assert json.loads(data) == {name: 1}
    assert json.loads(await carried(source, dataset, ("order", in_grammar(name)))) == {name: 1}
