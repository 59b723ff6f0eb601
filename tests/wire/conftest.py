"""Fixtures that the tests over real sockets share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import Databases


@pytest.fixture(scope="module")
def source_url(databases: Databases) -> Iterator[str]:
    """A database of data alone: Tailrace's own is another one."""
    with databases.clone() as url:
        yield url
