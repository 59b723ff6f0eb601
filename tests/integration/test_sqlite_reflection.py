"""What Tailrace finds in a SQLite file: tables and views, their columns and keys; configured SQL."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from service.column import Kind
from service.dataset import Dataset
from service.errors import NotFound, SourceError
from service.export.encode import Rows
from tests.datasets import HOSTILE_NAMES
from tests.exporting import carried, records
from tests.sqlite_files import (
    LANES,
    catalog,
    folder_of,
    insert,
    open_file,
    queries,
    quoted,
    written,
)

SCHEMA = """
    CREATE TABLE base (a INTEGER PRIMARY KEY, b TEXT, c VARCHAR(5) NOT NULL);
    CREATE VIEW seen AS SELECT a, b || 'x' AS bx, count(*) AS n FROM base GROUP BY a;
    CREATE VIEW broken AS SELECT * FROM gone;
    CREATE VIEW nameless AS SELECT nowhere FROM base;
    CREATE VIRTUAL TABLE found USING fts5(title, body);
    CREATE TABLE made (
        a INT, b INT GENERATED ALWAYS AS (a * 2) STORED, c TEXT GENERATED ALWAYS AS (a || '!') VIRTUAL
    );
    CREATE TEMP TABLE passing (a);
"""
KEYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "none": ("a, b", ()),
    "rowid": ("a INTEGER PRIMARY KEY, b", ("a",)),
    "rowid apart": ("b, a integer, PRIMARY KEY (a DESC)", ("a",)),
    "not quite rowid": ("a INTEGER PRIMARY KEY DESC, b", ()),
    "int": ("a INT PRIMARY KEY, b", ()),
    "text": ("a TEXT PRIMARY KEY, b", ()),
    "filled": ("a TEXT PRIMARY KEY NOT NULL, b", ("a",)),
    "half filled": ("a TEXT NOT NULL, b INT, PRIMARY KEY (a, b)", ()),
    "two": ("a TEXT NOT NULL, b INT NOT NULL, c, PRIMARY KEY (b, a)", ("b", "a")),
    "without rowid": ("a TEXT, b INT, c, PRIMARY KEY (b, a)) WITHOUT ROWID --", ("b", "a")),
    "rowid without rowid": ("a INTEGER PRIMARY KEY, b) WITHOUT ROWID --", ("a",)),
    "strict": ("a TEXT PRIMARY KEY, b ANY) STRICT --", ("a",)),
    "unique": ("a TEXT UNIQUE NOT NULL, b", ()),
}
TYPES = {
    "": Kind.OTHER,
    "INTEGER": Kind.INTEGER,
    "bigint unsigned": Kind.INTEGER,
    "REAL": Kind.NUMBER,
    "double precision": Kind.NUMBER,
    "FLOAT": Kind.NUMBER,
    "NUMERIC": Kind.NUMBER,
    "DECIMAL(10,2)": Kind.NUMBER,
    "TEXT": Kind.TEXT,
    "nvarchar(5)": Kind.TEXT,
    "CLOB": Kind.TEXT,
    "BOOLEAN": Kind.BOOLEAN,
    "bool": Kind.BOOLEAN,
    "DATE": Kind.TEMPORAL,
    "DATETIME": Kind.TEMPORAL,
    "timestamp": Kind.TEMPORAL,
    "TIME": Kind.TEMPORAL,
    "JSON": Kind.JSON,
    "BLOB": Kind.OTHER,
    "UUID": Kind.OTHER,
}
# Words that SQLite reserves and SQLAlchemy does not know, and what some layer could take as its own.
NAMES = (
    *HOSTILE_NAMES,
    *("nothing", "returning", "generated", "within", "rowid", "oid", "true", "null", "c0", "r"),
    *(
        "line",
        "configured",
        "main",
        "?",
        "?1",
        "@x",
        "{cell}",
        "{}",
        "%%",
        "%(c0)s",
        " ",
        "\n",
        "[x]",
    ),
    *("`x`", '"', "'", "é", "😀", "UPPER", "param_1", "_end", "."),
)


async def datasets_of(path: Path, **sql: str) -> dict[str, Dataset]:
    async with open_file(path) as source:
        return await catalog(source, **queries(**sql)).datasets()


async def test_tables_and_views_and_nothing_else(tmp_path: Path) -> None:
    """Not SQLite's own tables, nor those that a virtual table keeps its data in."""
    path = tmp_path / "schema.db"
    with written(path, SCHEMA):
        found = await datasets_of(path)
        assert list(found) == ["base", "found", "made", "seen"]
        base = {column.name: (column.type, column.nullable) for column in found["base"].columns}
        assert base == {
            "a": ("integer", False),
            "b": ("text", True),
            "c": ("varchar(5)", False),
        }
        assert [column.name for column in found["found"].columns] == ["title", "body"]
        assert [column.name for column in found["made"].columns] == ["a", "b", "c"]
        assert [column.name for column in found["seen"].columns] == ["a", "bx", "n"]
        assert {name for name, dataset in found.items() if dataset.computed} == {"seen"}
        assert {dataset.estimated_rows for dataset in found.values()} == {None}


@pytest.mark.parametrize("lane", LANES)
async def test_what_is_found_can_be_read(tmp_path: Path, lane: str) -> None:
    path = tmp_path / "schema.db"
    fill = """
        INSERT INTO base VALUES (1, 'x', 'y'); INSERT INTO found VALUES ('t', 'b');
        INSERT INTO made VALUES (21)
    """
    with written(path, SCHEMA + fill):
        pass
    async with open_file(path, lane) as source:
        found = await catalog(source).datasets()
        exported = {name: await carried(source, found[name]) for name in found}
    assert exported == {
        "base": b'{"a":1,"b":"x","c":"y"}\n',
        "found": b'{"title":"t","body":"b"}\n',
        "made": b'{"a":21,"b":42,"c":"21!"}\n',
        "seen": b'{"a":1,"bx":"xx","n":1}\n',
    }


async def test_a_broken_view_says_so_when_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "schema.db"
    with written(path, SCHEMA):
        pass
    async with open_file(path) as source:
        with pytest.raises(NotFound):
            await catalog(source).dataset("broken")


@pytest.mark.parametrize(("columns", "key"), KEYS.values(), ids=KEYS)
async def test_a_key_is_one_that_holds_no_null(
    tmp_path: Path, columns: str, key: tuple[str, ...]
) -> None:
    path = tmp_path / "keys.db"
    with written(path, f"CREATE TABLE t ({columns}\n)".replace("--\n)", "")):
        found = (await datasets_of(path))["t"]
    assert found.key == key
    assert not any(column.nullable for column in found.columns if column.name in key)


async def test_declared_types(tmp_path: Path) -> None:
    path = tmp_path / "types.db"
    columns = ", ".join(f"c{place} {declared}" for place, declared in enumerate(TYPES))
    with written(path, f"CREATE TABLE t ({columns}); CREATE VIEW v AS SELECT * FROM t"):
        found = await datasets_of(path)
    for name in ("t", "v"):
        assert [column.type for column in found[name].columns] == [word.lower() for word in TYPES]
        assert [column.kind for column in found[name].columns] == list(TYPES.values())


async def test_statistics_tell_how_many_rows_there_are(tmp_path: Path) -> None:
    """A partial index has fewer entries, and their numbers are no texts: 9 is less than 12."""
    path = tmp_path / "statistics.db"
    script = """
        CREATE TABLE t (a, b); CREATE INDEX whole ON t (a); CREATE INDEX part ON t (b) WHERE b > 3;
        CREATE TABLE unknown (a);
    """
    with written(path, script) as connection:
        insert(connection, "t", [(n, n) for n in range(13)])
        connection.execute("ANALYZE t")
        found = await datasets_of(path)
    assert found["t"].estimated_rows == 13
    assert found["unknown"].estimated_rows is None


@pytest.mark.parametrize("lane", LANES)
async def test_names_that_bite(tmp_path: Path, lane: str) -> None:
    path = tmp_path / "names.db"
    values = [f"v{place}" for place in range(len(NAMES))]
    with written(path, f"CREATE TABLE wide ({', '.join(map(quoted, NAMES))})") as connection:
        insert(connection, "wide", [values])
        for place, name in enumerate(NAMES):
            connection.execute(f"CREATE TABLE {quoted(name)} ({quoted(name)} BOOLEAN, y JSON)")
            insert(connection, quoted(name), [(place, "[]")])
    async with open_file(path, lane) as source:
        found = await catalog(source).datasets()
        wide = found["wide"]
        (row,) = records(await carried(source, wide))
        assert row == dict(zip(NAMES, values, strict=True))
        for place, name in enumerate(NAMES):
            spelt = json.dumps(name, ensure_ascii=False).replace("\\n", "\n")
            pairs = (("select", f"x:{spelt}"), ("and", f"({spelt}.eq.v{place})"), ("order", spelt))
            assert (
                await carried(source, wide, *pairs, ("limit", "1"))
                == f'{{"x":"v{place}"}}\n'.encode()
            )
            csv = await carried(source, found[name], rows=Rows.CSV, excel=True)
            cell = {0: "false", 1: "true"}.get(place, str(place))
            assert csv.endswith(f"{cell},[]\r\n".encode())


ONE_SELECT = {
    "plain": "SELECT a FROM t",
    "semicolon": "SELECT a FROM t;",
    "semicolons": " SELECT a FROM t;; ",
    "line comment": "SELECT a FROM t -- all of it",
    "comments": "/* one */ SELECT a /* two */ FROM t",
    "with": "WITH x AS (SELECT a FROM t) SELECT a FROM x",
    "recursive": "WITH RECURSIVE c(a) AS (SELECT 7) SELECT a FROM c",
    "values": "SELECT column1 AS a FROM (VALUES (7))",
    "compound": "SELECT a FROM t UNION SELECT 7 ORDER BY 1 LIMIT 1",
    "marks": "SELECT a FROM t WHERE ':x ? %(a)s {} ;' <> '--'",
    "pragma": "SELECT 7 AS a FROM pragma_table_info('t') WHERE name = 'a'",
}
NOT_ONE_SELECT = {
    "two": "SELECT a FROM t; SELECT 2",
    "two with a comment": "SELECT a FROM t; -- more",
    "insert": "INSERT INTO t VALUES (9)",
    "delete": "DELETE FROM t RETURNING a",
    "insert behind with": "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
    "pragma": "PRAGMA query_only = 0",
    "pragma that answers": "PRAGMA table_info(t)",
    "attach": "ATTACH 'other.db' AS other",
    "vacuum": "VACUUM INTO 'copy.db'",
    "create": "CREATE TABLE x (a)",
    "explain": "EXPLAIN SELECT a FROM t",
    "begin": "BEGIN",
    "closing": "SELECT a FROM t) UNION SELECT (2",
    "opening": "SELECT (a FROM t",
    "open comment": "SELECT a FROM t /* and",
    "open text": "SELECT 'a AS a FROM t",
    "parameter": "SELECT ? AS a",
    "named parameter": "SELECT :x AS a",
    "no column": "SELECT nowhere FROM t",
    "no table": "SELECT a FROM nowhere",
    "own view": "SELECT * FROM tailrace_configured",
}


@pytest.mark.parametrize("sql", ONE_SELECT.values(), ids=ONE_SELECT)
async def test_configured_sql(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "configured.db"
    with written(path, "CREATE TABLE t (a); INSERT INTO t VALUES (7)"):
        pass
    for lane in LANES:
        async with open_file(path, lane) as source:
            dataset = await catalog(source, **queries(q=sql)).dataset("q")
            assert await carried(source, dataset, ("a", "eq.7")) == b'{"a":7}\n'


async def test_configured_sql_that_is_not_one_select(tmp_path: Path) -> None:
    """One mistake does not spoil the others, nor the connection on which it was found."""
    path = tmp_path / "configured.db"
    with written(path, "CREATE TABLE t (a); INSERT INTO t VALUES (7)"):
        pass
    before = path.read_bytes()
    named = {name.replace(" ", "_"): sql for name, sql in NOT_ONE_SELECT.items()}
    async with open_file(path, connections=1) as source:
        known = catalog(source, **queries(**named, right="SELECT a FROM t"))
        found = await known.datasets()
        assert list(found) == ["right", "t"]
        assert known.problems.keys() == named.keys()
        assert not any(why.endswith("..") for why in known.problems.values())
        assert "one statement" in known.problems["two"]
        async with source.snapshot(max_seconds=5, lock_seconds=5) as snapshot:
            connection = snapshot.connection  # type: ignore[attr-defined]  # SqliteSnapshot's
            (only,) = (await connection.exec_driver_sql("PRAGMA query_only")).one()
            views = await connection.exec_driver_sql("SELECT * FROM sqlite_temp_schema")
            assert (only, views.all()) == (1, [])
    assert path.read_bytes() == before
    assert folder_of(path) == [path]


async def test_what_changed_since_it_was_looked_at_is_an_error(tmp_path: Path) -> None:
    """SQLite would take the name of a column that is gone for a text."""
    path = tmp_path / "changed.db"
    with written(
        path, "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2); CREATE TABLE u (a)"
    ) as connection:
        async with open_file(path) as source:
            found = await catalog(source, **queries(q="SELECT * FROM t")).datasets()
            connection.execute("ALTER TABLE t DROP COLUMN b")
            connection.execute("DROP TABLE u")
            for name, state in (("t", "42703"), ("q", "42703"), ("u", "42P01")):
                with pytest.raises(SourceError) as refused:
                    await carried(source, found[name])
                assert refused.value.members == {"sqlstate": state}


def test_the_version_of_sqlite() -> None:
    """PRAGMA table_list and STRICT came with 3.37."""
    assert sqlite3.sqlite_version_info >= (3, 37)
