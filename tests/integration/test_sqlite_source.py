"""SQLite as a source: one state of a file that is only read, and what is wrong with files told."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from sqlalchemy.engine import make_url

from service.databases.opening import open_source
from service.databases.source import Source
from service.databases.sqlite.source import SqliteSource
from service.errors import Busy, SourceError, SourceUnavailable
from service.export.cells import TextOptions
from service.export.encode import Rows
from service.export.lane import Sink
from service.export.lanes import open_lane
from service.grammar.query import parse_query
from service.settings import DatasetSettings
from service.values import masked_url, source_url
from tests.exporting import SECONDS, carried, records
from tests.sqlite_files import LANES, catalog, folder_of, insert, open_file, queries, written

MANY = 3_000


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Nobody else can read meanwhile."""
    with written(path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection
        connection.execute("ROLLBACK")


async def export(source: Source, sink: Sink, name: str = "t") -> int:
    """All rows into ``sink``."""
    dataset = await catalog(source).dataset(name)
    lane = open_lane(source, dataset, parse_query(dataset, ()), TextOptions(Rows.NDJSON))
    async with lane.reading(max_seconds=SECONDS, lock_seconds=SECONDS) as reading:
        return await reading.carry(sink)


def many(path: Path, mode: str = "wal") -> None:
    """Rows enough for several batches, and for pages that are read while others are sent."""
    with written(path, f"PRAGMA journal_mode = {mode}; CREATE TABLE t (n, pad)") as connection:
        insert(connection, "t", [(number, "x" * 1000) for number in range(MANY)])


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    "name",
    [
        "mode=rwc?mode=rwc#",
        "plain.db",
        "with space.db",
        "50%.db",
        "%41.db",
        "ha#sh.db",
        "a&b=c;d+e.db",
        "ü😀.db",
        "file:x",
        "a:b@c",
    ],
)
async def test_names_of_files(tmp_path: Path, lane: str, name: str) -> None:
    path = tmp_path / name
    with written(path, "CREATE TABLE t (a); INSERT INTO t VALUES (7)"):
        pass
    async with open_file(path, lane) as source:
        assert await carried(source, await catalog(source).dataset("t")) == b'{"a":7}\n'
        assert masked_url(str(source.engine.url)) == f"sqlite:///{path}"
    assert [file.name for file in folder_of(path)] == [name]


@pytest.mark.parametrize("name", ["with space.db", "ha#sh.db", "50%25.db", "%41.db", "what%3F.db"])
def test_a_url_is_percent_decoded_once(name: str) -> None:
    url = make_url(source_url(f"sqlite:////data/{name}"))
    assert url.database == f"file:{quote(unquote(f'/data/{name}'))}"
    assert url.query["mode"] == "ro"


@pytest.mark.parametrize(
    "url",
    [
        *("sqlite:", "sqlite://", "sqlite:///", "sqlite:/data/x.db", "sqlite:///:memory:"),
        *("sqlite://host/x.db", "sqlite://user:secret@/x.db", "sqlite:////x.db?mode=rwc"),
        *("sqlite+pysqlite:////x.db", "sqlite://:99999/x"),
    ],
)
def test_a_url_that_names_no_file(url: str) -> None:
    with pytest.raises(ValueError, match=r"(SQLite file|names no file)") as refused:
        source_url(url)
    assert "secret" not in str(refused.value)


async def test_a_relative_path_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with written(tmp_path / "here.db", "CREATE TABLE t (a)"):
        pass
    monkeypatch.chdir(tmp_path)
    url = source_url("sqlite:///here.db")
    monkeypatch.undo()
    source = open_source("main", url, max_connections=1, slot_timeout=1, lane="auto")
    assert list(await catalog(source).datasets()) == ["t"]
    await source.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_nothing_can_be_written(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "read.db"
    many(path, mode)
    before = await asyncio.to_thread(path.read_bytes)
    async with open_file(path) as source:
        assert await export(source, _away) == MANY
        async with source.snapshot(max_seconds=5, lock_seconds=5) as snapshot:
            connection = snapshot.connection  # type: ignore[attr-defined]  # SqliteSnapshot's
            for sql in ("DELETE FROM t", "CREATE TABLE x (a)", "CREATE TEMP TABLE x (a)"):
                with pytest.raises(SourceError, match="readonly"), source.translated():
                    await connection.exec_driver_sql(sql)
            # Not even where somebody takes the guard away.
            await connection.exec_driver_sql("PRAGMA query_only = 0")
            with pytest.raises(SourceError, match="readonly"), source.translated():
                await connection.exec_driver_sql("DELETE FROM t")
            await connection.exec_driver_sql("PRAGMA query_only = 1")
    assert await asyncio.to_thread(path.read_bytes) == before


@pytest.mark.parametrize("lane", LANES)
async def test_an_export_is_one_state_while_a_writer_commits(tmp_path: Path, lane: str) -> None:
    path = tmp_path / "wal.db"
    many(path)
    pieces: list[bytes] = []
    with written(path) as writer:

        async def sink(data: bytes) -> None:
            pieces.append(data)
            writer.execute("UPDATE t SET n = n + 1")
            writer.execute("INSERT INTO t VALUES (-1, '')")

        async with open_file(path, lane) as source:
            assert await export(source, sink) == MANY
            assert [row["n"] for row in records(b"".join(pieces))] == list(range(MANY))
            # The next one sees what was committed meanwhile.
            assert await export(source, _away) == MANY + len(pieces)


@pytest.mark.parametrize("lane", LANES)
async def test_the_state_is_left_when_an_export_breaks(tmp_path: Path, lane: str) -> None:
    """A read transaction that stays open would keep the log growing, and show the past."""
    path = tmp_path / "wal.db"
    many(path)
    kept: list[BaseException] = []

    async def refusing(_: bytes) -> None:
        raise OSError("nobody takes this")

    with written(path) as writer:
        async with open_file(path, lane, connections=1) as source:
            try:
                await export(source, refusing)
            except SourceUnavailable as error:
                kept.append(error)  # with its frames, which hold the cursor
            writer.execute("DELETE FROM t WHERE n >= 10")
            assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            assert await export(source, _away) == 10
    assert kept


async def _away(_: bytes) -> None:
    """A sink that keeps nothing."""


async def test_a_file_that_is_locked_is_waited_for_and_told(tmp_path: Path) -> None:
    path = tmp_path / "locked.db"
    many(path, "delete")
    async with open_file(path) as source:
        assert await export(source, _away) == MANY
        with locked(path):
            with pytest.raises(SourceUnavailable, match="locked by a writer"):
                async with source.snapshot(max_seconds=5, lock_seconds=0.2):
                    pass
            waiting = asyncio.create_task(export(source, _away))
            await asyncio.wait({waiting}, timeout=0.3)
            assert not waiting.done()
        assert await waiting == MANY


async def test_who_waits_for_a_lock_can_leave(tmp_path: Path) -> None:
    path = tmp_path / "locked.db"
    many(path, "delete")
    async with open_file(path, connections=1) as source:
        dataset = await catalog(source).dataset("t")
        with locked(path):
            waiting = asyncio.create_task(carried(source, dataset))
            await asyncio.wait({waiting}, timeout=0.3)
            waiting.cancel()
            done, _ = await asyncio.wait({waiting}, timeout=1.0)
            assert done
        assert len(records(await carried(source, dataset))) == MANY


def _damage(path: Path) -> None:
    """Leave the schema as it is, and spoil the rows."""
    data = bytearray(path.read_bytes())
    data[8192:] = os.urandom(len(data) - 8192)
    path.write_bytes(data)


async def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_bytes(b"Dear Sir or Madam, " * 500)
    (tmp_path / "folder.db").mkdir()
    for name, told in (
        ("missing.db", "missing, or cannot be opened"),
        ("no/folder.db", "missing, or cannot be opened"),
        ("letter.db", "no SQLite database"),
        ("folder.db", "cannot be"),
    ):
        async with open_file(tmp_path / name) as source:
            with pytest.raises(SourceUnavailable, match=told):
                await catalog(source).datasets()
            with pytest.raises(SourceUnavailable, match=told):
                async with source.snapshot(max_seconds=5, lock_seconds=5):
                    pass
    assert not (tmp_path / "missing.db").exists()


@pytest.mark.parametrize("lane", LANES)
async def test_a_damaged_file_breaks_the_export(tmp_path: Path, lane: str) -> None:
    path = tmp_path / "damaged.db"
    many(path, "delete")
    _damage(path)
    async with open_file(path, lane) as source:
        with pytest.raises(SourceUnavailable, match="damaged"):
            await export(source, _away)


async def test_a_file_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    path, away = tmp_path / "file.db", tmp_path / "away.db"
    many(path, "delete")
    async with open_file(path) as source:
        dataset = await catalog(source).dataset("t")
        path.rename(away)
        with pytest.raises(SourceUnavailable):
            await source.ping()
        with pytest.raises(SourceUnavailable):
            await carried(source, dataset)
        away.rename(path)
        await source.ping()
        assert len(records(await carried(source, dataset))) == MANY


async def test_a_file_that_is_replaced_is_read_from_then_on(tmp_path: Path) -> None:
    """An open connection would go on with the old one, which no name leads to any more."""
    path, newer = tmp_path / "file.db", tmp_path / "newer.db"
    many(path)
    with written(newer, "CREATE TABLE t (n, pad); INSERT INTO t VALUES (7, NULL)"):
        pass
    async with open_file(path) as source:
        dataset = await catalog(source).dataset("t")
        assert len(records(await carried(source, dataset))) == MANY
        newer.replace(path)
        assert await carried(source, dataset) == b'{"n":7,"pad":null}\n'


async def test_an_empty_file_has_no_datasets(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    async with open_file(tmp_path / "empty.db") as source:
        assert await catalog(source).datasets() == {}


async def test_no_thread_and_no_connection_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    many(path)
    before = threading.active_count()
    async with open_file(path, connections=3) as source:
        dataset = await catalog(source).dataset("t")
        await asyncio.gather(*(carried(source, dataset) for _ in range(3)))
        assert threading.active_count() > before
    assert threading.active_count() == before
    # The last one to close a file with a log takes the log away, unless it may only read.
    with written(path) as connection:
        connection.execute("PRAGMA journal_mode = delete")
    assert folder_of(path) == [path]


async def test_slots_are_waited_for_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    many(path)
    url = source_url(f"sqlite:///{path}")
    source = SqliteSource("main", url, max_connections=1, slot_timeout=0.1)
    dataset = await catalog(source).dataset("t")
    await source.slots.acquire()
    with pytest.raises(Busy):
        await source.slots.acquire()
    source.slots.release()
    assert len(records(await carried(source, dataset))) == MANY
    await source.close()


async def test_a_query_may_not_load_code(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    many(path)
    sql = queries(q="SELECT load_extension('./x') AS a", f="SELECT writefile('x', 'y') AS a")
    async with open_file(path) as source:
        known = catalog(source, **sql)
        dataset = await known.dataset("q")
        with pytest.raises(SourceError, match="not authorized"):
            await carried(source, dataset)
        assert "no such function" in known.problems["f"]


async def test_the_settings_of_a_dataset_hold(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    with written(path, "CREATE TABLE t (a, b, c); INSERT INTO t VALUES (1, 2, 3)"):
        pass
    chosen = DatasetSettings(table="t", columns=("c", "a"), key=("a",))
    async with open_file(path) as source:
        found = await catalog(source, chosen=chosen, missing=DatasetSettings(table="x")).datasets()
        assert list(found) == ["chosen"]
        assert await carried(source, found["chosen"], ("limit", "9")) == b'{"c":3,"a":1}\n'
