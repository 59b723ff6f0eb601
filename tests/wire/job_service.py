"""A service with datasets whose exports take as long as a test wants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.clients import Answer, ask
from tests.jobs import post
from tests.serving import Served, serving
from tests.session import EXPORTING, Session, gated
from tests.waiting import wait_until

WITHIN = 60.0  # seconds
BEFORE, AFTER = 3_000, 500  # rows of about a kilobyte on both sides of the gate
NUMBERS = 1_000
LARGE = 20_000  # rows: more than what goes first
DATASETS = f"""
[datasets.numbers]
sql = "select i as id, md5(i::text) as word from generate_series(1, {NUMBERS}) i"
key = ["id"]
[datasets.large]
sql = "select i as id from generate_series(1, {LARGE}) i"
[datasets.nothing]
sql = "select i as id from generate_series(1, 0) i"
[datasets.gated]
sql = '''{gated(BEFORE, AFTER)}'''
[datasets.closed]
sql = "select pg_advisory_xact_lock_shared(4711)::text as word from (select 1) s"
[datasets.broken]
sql = "select 1 / (i - 1) as id from generate_series(1, 10) i"
[datasets.breaking]
sql = '''
    select 1 / ({BEFORE + AFTER + 10} - id) as near, id, word from ({gated(BEFORE, AFTER)}) s
    union all
    select 1 / (i - 1), i, null from generate_series(1, 1) i
'''
"""
LONG = {"limits__prime_timeout": "120s", "limits__drain_timeout": "1s"}
ARRIVED = BEFORE * 900  # bytes that are written while the gate is closed


def job_service(
    folder: Path, url: str, *, arguments: tuple[str, ...] = (), config: str = "", **settings: str
) -> AbstractContextManager[Served]:
    return serving(folder, url, config=config + DATASETS, arguments=arguments, **LONG | settings)


def asked(base: str, dataset: str, headers: dict[str, str] | None = None, **wanted: Any) -> Answer:
    """The answer to a request for an export."""
    return post(base, "/v1/exports", {"dataset": dataset, **wanted}, headers)


def entered(base: str, dataset: str, **wanted: Any) -> str:
    """The id of a new export."""
    answer = asked(base, dataset, fresh=True, **wanted)
    assert answer.status == 202, answer.body
    return str(answer.json()["id"])


def shown(base: str, export: str) -> Any:
    """The export as the API shows it."""
    answer = ask(base, f"/v1/exports/{export}")
    assert answer.status == 200, answer.body
    return answer.json()


def reach(base: str, export: str, *states: str) -> Any:
    """The export, once it is in one of these states."""
    wait_until(
        lambda: shown(base, export)["state"] in states, within=WITHIN, what=f"it is {states}"
    )
    return shown(base, export)


def written(base: str, export: str, most: int = ARRIVED) -> None:
    """Wait until that many bytes of it have been reported."""
    wait_until(
        lambda: shown(base, export)["progress"]["bytes"] >= most,
        within=WITHIN,
        what=f"{most} bytes are written",
    )


def done(base: str, dataset: str, **wanted: Any) -> Any:
    """An export that has succeeded."""
    return reach(base, entered(base, dataset, **wanted), "succeeded", "failed", "cancelled")


def receipt(base: str, export: str) -> Any:
    answer = ask(base, f"/v1/exports/{export}/receipt")
    assert answer.status == 200, answer.body
    return answer.json()


def cancel(base: str, export: str) -> Answer:
    return post(base, f"/v1/exports/{export}/cancel")


@contextmanager
def closed_gate(database: Session, base: str) -> Iterator[None]:
    """Gated queries wait until the block opens the gate; at its end nothing is left of them."""
    database.close_gate()
    try:
        yield
    finally:
        database.open_gate()
        stop_all(base)
        wait_until(lambda: not database.value(EXPORTING), within=WITHIN, what="no query runs")


def stop_all(base: str) -> None:
    """Cancel every job that lives."""
    for state in ("queued", "running"):
        for export in ask(base, f"/v1/exports?kind=job&state={state}").json()["exports"]:
            cancel(base, export["id"])


@cache
def gated_csv() -> bytes:
    """The whole file of the dataset ``gated``."""
    rows = range(1, BEFORE + AFTER + 1)
    lines = [f"{i},{hashlib.md5(str(i).encode()).hexdigest() * 30}\n" for i in rows]  # noqa: S324 - PostgreSQL's md5()
    return b"id,word\n" + "".join(lines).encode()


@cache
def numbers_csv() -> bytes:
    """The whole file of the dataset ``numbers``."""
    rows = range(1, NUMBERS + 1)
    lines = [f"{i},{hashlib.md5(str(i).encode()).hexdigest()}\n" for i in rows]  # noqa: S324 - PostgreSQL's md5()
    return b"id,word\n" + "".join(lines).encode()
