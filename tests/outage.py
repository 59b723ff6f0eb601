"""A database that goes away and comes back, while the server that has it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import make_url

from tests.postgres import Databases, fetch, run_sql
from tests.waiting import wait_until

GONE_SECONDS = 20


@contextmanager
def away(databases: Databases, url: str) -> Iterator[None]:
    """Until the block ends nothing is connected to the database of ``url``, and nothing can be."""
    name = str(make_url(url).database)
    server = databases.server_url
    hidden = f"{name}_away"
    run_sql(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    wait_until(lambda: not _ended(server, name), within=GONE_SECONDS, what=f"{name} is idle")
    run_sql(server, f"ALTER DATABASE {name} RENAME TO {hidden}")
    try:
        yield
    finally:
        run_sql(server, f"ALTER DATABASE {hidden} RENAME TO {name}")
        run_sql(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def _ended(server: str, name: str) -> int:
    """How many backends of the database were there to be ended."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
    return len(fetch(server, query, name))
