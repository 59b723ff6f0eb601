"""Fixtures that every test may use: a PostgreSQL server, and databases of a test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mariadb import database, running_mariadb
from tests.postgres import Databases, running_postgres


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """One PostgreSQL server for the whole run."""
    with running_postgres() as url:
        found = Databases(url)
        yield found
        found.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A database of this test's own, with Tailrace's tables."""
    with databases.clone() as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(databases: Databases) -> Iterator[str]:
    """A database that the tests of one module share."""
    with databases.clone() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    """One MariaDB server for the whole run."""
    with running_mariadb() as url:
        yield url


@pytest.fixture
def mariadb_url(mariadb_server: str) -> Iterator[str]:
    """A MariaDB database of this test's own."""
    with database(mariadb_server) as url:
        yield url


@pytest.fixture(scope="module")
def module_mariadb_url(mariadb_server: str) -> Iterator[str]:
    """A MariaDB database that the tests of one module share."""
    with database(mariadb_server) as url:
        yield url
