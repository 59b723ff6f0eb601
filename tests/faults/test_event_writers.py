"""Fifty writers of events, and readers that are cut all the time: nothing is missed or told twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import Any

import pytest

from tests.event_reader import EventReader, assert_each_seen_once
from tests.event_writers import Plan, entered, written
from tests.jobs import log_of
from tests.own_postgres import own_postgres
from tests.postgres import Databases
from tests.seeds import FULL, seeds
from tests.serving import Served, serving
from tests.session import Session, session

WRITERS = 50
WRITES = 60 if FULL else 20  # of each
EXPORTS = 4
READERS: dict[str, dict[str, Any]] = {  # of each export
    "cut": {"longest": 0.2},
    "cut, too": {"longest": 0.2},
    "new again and again": {"longest": 0.4, "forgetful": True},
    "never cut": {},
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A database of a server that has room for so many."""
    with own_postgres() as server:
        databases = Databases(server.url)
        with databases.clone() as found:
            yield found
        databases.close()


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Session]:
    with session(url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, url, arguments=("--no-worker",)) as found:
        yield found


@pytest.mark.parametrize("seed", seeds(20))
def test_every_reader_sees_each_event_once(
    served: Served, database: Session, url: str, seed: int
) -> None:
    exports = entered(url, EXPORTS)
    with ExitStack() as stack:
        readers = [
            EventReader(served, export, seed=1_000 * seed + number, **READERS[kind])
            for number, (export, kind) in enumerate(product(exports, READERS))
        ]
        for reader in readers:
            reader.going_on.set()
            stack.enter_context(reader)
        written(url, exports, Plan(seed, WRITERS, WRITES))
        for reader in readers:
            reader.going_on.clear()
        for reader in readers:
            reader.finish()
    logs = {export: log_of(database, export) for export in exports}
    for log in logs.values():
        assert [event.seq for event in log] == list(range(1, len(log) + 1))
        assert log[-1].name == "close"
    for reader in readers:
        log = logs[reader.export]
        assert_each_seen_once(reader.events, log)
        for life in filter(None, reader.lives):
            assert_each_seen_once(life, log[: life[-1].id])
