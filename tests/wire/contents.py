"""Exports whose content is looked at while they grow: what they hold, and how far they are."""

from __future__ import annotations

import http.client
import select
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.clients import TIMEOUT, Answer, ask
from tests.jobs import awaited, content, grown, post, start
from tests.serving import Served, serving
from tests.session import GATE, Session, gated
from tests.waiting import wait_until

SECOND_GATE = GATE + 1
WAITS = "pg_advisory_xact_lock_shared({})::text"
CONFIG = f"""
[sources.main]
max_jobs = 2
[datasets.small]
sql = "select i as id from (select generate_series(1, 3) as i) s"
[datasets.gated]
sql = '''{gated(1_000, 10)}'''
[datasets.large]
sql = '''{gated(20_000, 10)}'''
[datasets.stepped]
sql = '''
    select i as id,
           case i when 1001 then {WAITS.format(GATE)} when 2001 then {WAITS.format(SECOND_GATE)}
                  else '' end || repeat(md5(i::text), 30) as word
    from (select generate_series(1, 2010) as i) s
'''
[datasets.failing]
sql = '''
    select i / least(abs(1005 - i), 1) as id,
           case i when 1001 then {WAITS.format(GATE)} else '' end
               || repeat(md5(i::text), 30) as word
    from (select generate_series(1, 1010) as i) s
'''
[datasets.changing]
sql = '''
    select i as id,
           case i when 1001 then {WAITS.format(GATE)} else '' end
               || repeat(md5(salt || i), 30) as word
    from (select generate_series(1, 1010) as i) s, public.salts
'''
[datasets.failed]
sql = "select 1 / (i - 1) as id from generate_series(1, 10) i"
"""
LIMITS: dict[str, Any] = {"limits__prime_timeout": "60s", "limits__drain_timeout": "1s"}
SALTS = "CREATE TABLE public.salts AS SELECT 'first' AS salt"
HEADER = b"id,word\n"
ARRIVED = 900_000  # bytes that are there while the gate is closed
LARGE_ARRIVED = 18_000_000


def csv(last: int, salt: str = "") -> bytes:
    """What the datasets give, up to the row ``last``."""
    return HEADER + b"".join(_row(number, salt) for number in range(1, last + 1))


def _row(number: int, salt: str) -> bytes:
    word = md5(f"{salt}{number}".encode(), usedforsecurity=False).hexdigest()
    return f"{number},{word * 30}\n".encode()


SMALL = b"id\n1\n2\n3\n"
GATED = csv(1_010)
LARGE = csv(20_010)  # more than every buffer between us and a client


def content_service(folder: Path, url: str) -> AbstractContextManager[Served]:
    return serving(folder, url, config=CONFIG, **LIMITS)


@contextmanager
def closed_gates(database: Session) -> Iterator[None]:
    """Gated queries wait until the block opens the gates; none is left at its end."""
    database.close_gate()
    database.execute(f"SELECT pg_advisory_lock({SECOND_GATE})")
    try:
        yield
    finally:
        database.open_gate()
        wait_until(lambda: not database.exporting(), within=30, what="no export runs")


def open_first_gate(database: Session) -> None:
    assert database.value(f"SELECT pg_advisory_unlock({GATE})")


def arrived(served: Served, database: Session, dataset: str, least: int = ARRIVED) -> str:
    """An export that waits at its gate, with the bytes that are there by then."""
    export = start(served, dataset)
    found = awaited(database, export, "running")
    wait_until(lambda: grown(served, found) > least, within=30, what="rows arrive")
    return export


def whole(served: Served, export: str, **headers: str) -> Answer:
    """The content, of one that does not grow any more."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()}
    return ask(served.base, content(served, export), headers=fields)


def tag(export: str, attempt: int = 1) -> str:
    """The ETag of an attempt."""
    return f'"{export.replace("-", "")}.{attempt}"'


@contextmanager
def asking(
    url: str, headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPConnection]:
    """A connection on which a GET has been sent."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=TIMEOUT)
    with closing(connection):
        connection.request("GET", f"{address.path}?{address.query}", headers=dict(headers or {}))
        yield connection


@contextmanager
def answering(
    url: str, headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """An answer of which only the head has been read."""
    with asking(url, headers) as connection, connection.getresponse() as response:
        yield response


def is_silent(connection: http.client.HTTPConnection) -> bool:
    """Whether nothing has come on it."""
    return not select.select([connection.sock], [], [], 0)[0]


def being_sent(served: Served, count: int) -> None:
    """Wait until that many streams are being sent, those that wait for a byte included."""
    wait_until(
        lambda: served.get("/v1/status")["streams"] == count, within=10, what=f"{count} streams"
    )


def cancel(served: Served, export: str) -> None:
    answer = post(served.base, f"/v1/exports/{export}/cancel")
    assert (answer.status, answer.json()["cancelled"]) == (200, True)


def delete(served: Served, export: str) -> None:
    assert ask(served.base, f"/v1/exports/{export}", "DELETE").status == 204
