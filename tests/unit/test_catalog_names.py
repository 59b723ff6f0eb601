"""Names that two sources offer alike: one of them answers, the same one everywhere."""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from service.catalog import Catalog, Found
from service.databases.postgresql.dialect import POSTGRESQL
from service.dataset import Dataset


def offer(source: str) -> Found:
    return Found(
        {"shop.orders": Dataset("shop.orders", source, (), sa.table("orders"), POSTGRESQL)}
    )


async def test_the_first_configured_source_has_a_name_that_two_offer() -> None:
    sources = cast(dict[str, Any], {"first": None, "second": None})
    catalog = Catalog(sources, {}, {}, lambda _: None)
    # Whichever answered first.
    catalog._found = {"second": offer("second"), "first": offer("first")}
    listed = await catalog.datasets()
    found = await catalog.dataset("shop.orders")
    assert [item.source for item in listed.values()] == ["first"]
    assert found.source == "first"
