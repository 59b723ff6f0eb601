"""What an export carries reads back into PostgreSQL as it was, whatever the types."""

from __future__ import annotations

import os
from collections.abc import Iterator

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.export.encode import Rows
from tests.column_types import BUILT_IN, SETUP, ColumnType
from tests.optional_types import OPTIONAL
from tests.postgres import run_sql
from tests.typed_exports import Workshop, workshop
from tests.typed_tables import TypedTable, create, from_csv, from_ndjson, tables

FULL = os.environ.get("TAILRACE_FAULTS") == "full"
EXAMPLES = 1_000 if FULL else 40
SECONDS = 3_600 if FULL else 120


@pytest.fixture(scope="module")
def shop(module_database_url: str) -> Iterator[Workshop]:
    run_sql(module_database_url, SETUP)
    with workshop(module_database_url) as found:
        yield found


SETTINGS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


async def there_and_back(shop: Workshop, table: TypedTable) -> None:
    """Each export is also compared between the lanes."""
    name = await create(shop.connection, table)
    csv = await shop.exported(name, Rows.CSV)
    assert await from_csv(shop.connection, name, csv) == []
    await shop.exported(name, Rows.CSV, excel=True, delimiter=";")
    ndjson = await shop.exported(name, Rows.NDJSON)
    assert await from_ndjson(shop.connection, name, table, ndjson) == []


@pytest.mark.timeout(SECONDS)
@SETTINGS
@given(table=tables(BUILT_IN))
def test_every_type_comes_back(shop: Workshop, table: TypedTable) -> None:
    shop.run(there_and_back(shop, table))


@pytest.fixture(scope="module", params=sorted(OPTIONAL))
def optional(request: pytest.FixtureRequest, shop: Workshop) -> tuple[ColumnType, ...]:
    """The types of an extension, or of a feature, where the server has it."""
    found = OPTIONAL[request.param]
    try:
        shop.run(shop.connection.execute(found.setup))
    except asyncpg.PostgresError as error:
        pytest.skip(f"this server has no {request.param}: {error}")
    return found.types


@pytest.mark.timeout(SECONDS)
@settings(SETTINGS, max_examples=max(EXAMPLES // 5, 5))
@given(data=st.data())
def test_every_type_of_an_extension_comes_back(
    shop: Workshop, optional: tuple[ColumnType, ...], data: st.DataObject
) -> None:
    shop.run(there_and_back(shop, data.draw(tables(optional))))
