"""Which datasets there are: what the database has, what is exposed, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest
from pydantic import ValidationError

from service.catalog import Catalog
from service.column import Column, Kind
from service.databases.postgresql.source import PostgresSource
from service.errors import NotFound, UnknownColumn
from service.observe import DatasetUnusable, Event
from service.settings import DatasetSettings, SourceSettings
from tests.exporting import carried, catalog_of, ignored, open_source, records
from tests.postgres import fetch, libpq_url, run_sql

SETUP = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id int PRIMARY KEY, name text, secret text, gone int);
    ALTER TABLE shop.orders DROP COLUMN gone;
    INSERT INTO shop.orders VALUES (1, 'one', 'hidden 1'), (2, 'two', 'hidden 2');
    COMMENT ON TABLE shop.orders IS 'What was sold';
    COMMENT ON COLUMN shop.orders.name IS 'The buyer''s name';
    CREATE TABLE shop."Odd Name" ("A b" int);
    CREATE TABLE shop.lines (a int, b int, c int, PRIMARY KEY (c, a));
    CREATE TABLE shop.keyless (id int UNIQUE, name text);
    CREATE TABLE shop.nothing ();
    CREATE VIEW shop.view AS SELECT id, name FROM shop.orders;
    COMMENT ON VIEW shop.view IS 'A view';
    CREATE MATERIALIZED VIEW shop.stored AS SELECT id FROM shop.orders;
    CREATE TABLE shop.parted (id int PRIMARY KEY, at date) PARTITION BY RANGE (id);
    CREATE TABLE shop.part_1 PARTITION OF shop.parted FOR VALUES FROM (0) TO (10);
    CREATE TABLE shop.part_2 PARTITION OF shop.parted FOR VALUES FROM (10) TO (99)
        PARTITION BY RANGE (id);
    CREATE TABLE shop.part_2_1 PARTITION OF shop.part_2 FOR VALUES FROM (10) TO (20);
    INSERT INTO shop.parted VALUES (5, '2026-01-01'), (15, '2026-01-02');
    CREATE TABLE shop.parent (id int NOT NULL, name text);
    CREATE TABLE shop.child () INHERITS (shop.parent);
    ALTER TABLE ONLY shop.parent ADD CHECK (id > 0) NO INHERIT;
    CREATE SEQUENCE shop.counter;
    CREATE TYPE shop.pair AS (a int, b int);
    CREATE FOREIGN DATA WRAPPER elsewhere;
    CREATE SERVER far FOREIGN DATA WRAPPER elsewhere;
    CREATE FOREIGN TABLE shop.foreign_rows (id int NOT NULL) SERVER far;
    CREATE SCHEMA other;
    CREATE TABLE other.orders (id int);
    CREATE TABLE other.single (id int);
    CREATE TABLE orders (n int PRIMARY KEY);
    ANALYZE shop.orders;
"""
SHOP = SourceSettings(expose=("shop.*",))
SHOWN = {
    "Odd Name", "child", "foreign_rows", "keyless", "lines", "orders", "parent", "parted",
    "stored", "view",
}  # fmt: skip


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    run_sql(module_database_url, SETUP)
    return module_database_url


def table(name: str, **settings: Any) -> DatasetSettings:
    return DatasetSettings(table=name, **settings)


async def test_tables_and_views_are_shown_and_partitions_stand_behind_their_parent(
    url: str,
) -> None:
    async with open_source(url) as source:
        datasets = await catalog_of(source, exposed=SHOP).datasets()
        assert list(datasets) == sorted(SHOWN)
        parted = records(await carried(source, datasets["parted"], ("order", "id")))
        assert parted == [{"id": 5, "at": "2026-01-01"}, {"id": 15, "at": "2026-01-02"}]
        for name in ("view", "stored"):
            found = records(await carried(source, datasets[name], ("select", "id")))
            assert found == [{"id": 1}, {"id": 2}]


async def test_comments_are_descriptions(url: str) -> None:
    async with open_source(url) as source:
        configured = {"told": table("shop.orders", title="Orders", description="As told here")}
        datasets = await catalog_of(source, configured, SHOP).datasets()
        view = await catalog_of(source, exposed=SHOP).dataset("orders")
    assert view.description == "What was sold"
    assert [column.description for column in view.columns] == [None, "The buyer's name", None]
    assert view.title is None
    assert (datasets["told"].title, datasets["told"].description) == ("Orders", "As told here")
    assert datasets["view"].description == "A view"


async def test_the_planners_estimate_is_told_where_there_is_one(url: str) -> None:
    async with open_source(url) as source:
        datasets = await catalog_of(source, exposed=SHOP).datasets()
    assert datasets["orders"].estimated_rows == 2
    assert datasets["keyless"].estimated_rows is None
    assert datasets["view"].estimated_rows is None


@pytest.mark.parametrize(
    ("expose", "names"),
    [
        ([], set[str]()),
        (["other.single"], {"single"}),
        (["other.*"], {"orders", "single"}),
        (["other.single", "shop.lines", "shop.lines"], {"single", "lines"}),
        (["shop.part_1"], set()),
        (["shop.nothing", "shop.counter", "shop.pair", "nowhere.*"], set()),
        (["other.*", "shop.orders"], {"other.orders", "shop.orders", "single"}),
        (["public.*"], {"orders"}),
    ],
    ids=lambda found: " ".join(sorted(found)),  # the same in every process
)
async def test_patterns_expose_schemas_and_tables(
    url: str, expose: list[str], names: set[str]
) -> None:
    async with open_source(url) as source:
        found = await catalog_of(source, exposed=SourceSettings(expose=tuple(expose))).datasets()
    assert set(found) == names


@pytest.mark.parametrize(
    "pattern",
    [
        *("tailrace.*", "tailrace.exports", "pg_catalog.*", "pg_catalog.pg_authid", "pg_toast.x"),
        *("information_schema.*", "*", "*.*", "orders"),
    ],
)
def test_system_schemas_and_our_own_are_never_exposed(pattern: str) -> None:
    with pytest.raises(ValidationError):
        SourceSettings(expose=(pattern,))
    if "*" not in pattern and "." in pattern:
        with pytest.raises(ValidationError):
            table(pattern)


NAMED = SourceSettings(expose=("other.*", "public.*", "shop.orders"))


async def names(catalog: Catalog) -> dict[str, str]:
    found = await catalog.datasets()
    return {name: f"{item.source} {item.relation}" for name, item in found.items()}


async def test_names_that_collide_are_told_apart_by_schema_and_source(url: str) -> None:
    async with open_source(url) as source:
        second = PostgresSource("second", url, max_connections=2, slot_timeout=5)
        sources = {"main": source, "second": second}
        catalog = Catalog(sources, dict.fromkeys(sources, NAMED), {}, ignored)
        try:
            found = await names(catalog)
            for _ in range(2):
                await catalog.refresh()
                assert await names(catalog) == found
            for name in sources:
                catalog.forget(name)
                assert await names(catalog) == found
        finally:
            await second.close()
    assert found == {
        "other.orders": "main other.orders",
        "public.orders": "main public.orders",
        "shop.orders": "main shop.orders",
        "single": "main other.single",
        "second.other.orders": "second other.orders",
        "second.public.orders": "second public.orders",
        "second.shop.orders": "second shop.orders",
        "second.single": "second other.single",
    }


async def test_configured_names_come_first_and_what_finds_no_name_is_told(url: str) -> None:
    sql = DatasetSettings(sql="select 1 as configured")
    configured = dict.fromkeys(["single", "other.single", "orders", "shop.orders"], sql)
    events: list[Event] = []
    async with open_source(url) as source:
        catalog = Catalog({"main": source}, {"main": NAMED}, configured, events.append)
        datasets = await catalog.datasets()
    assert {*datasets} == {*configured, "other.orders", "public.orders"}
    assert all(datasets[name].columns[0].name == "configured" for name in configured)
    assert [event.dataset for event in events if isinstance(event, DatasetUnusable)] == [
        "other.single",
        "shop.orders",
    ]


async def test_a_refresh_shows_what_changed_and_keeps_every_name(database_url: str) -> None:
    connection = await asyncpg.connect(libpq_url(database_url))
    await connection.execute("CREATE TABLE a (id int); CREATE TABLE b (id int)")
    async with open_source(database_url) as source:
        catalog = catalog_of(source)
        assert list(await catalog.datasets()) == ["a", "b"]
        await connection.execute(
            "ALTER TABLE a ADD name text; COMMENT ON COLUMN a.name IS 'New';"
            "CREATE TABLE c (id int); DROP TABLE b"
        )
        assert list(await catalog.datasets()) == ["a", "b"]
        await catalog.refresh()
        assert list(await catalog.datasets()) == ["a", "c"]
        new = Column("name", "text", Kind.TEXT, description="New")
        assert (await catalog.dataset("a")).columns[1:] == (new,)
        assert records(await carried(source, await catalog.dataset("a"))) == []
        await connection.execute("DROP TABLE c")
        catalog.forget("main")
        assert list(await catalog.datasets()) == ["a"]
    await connection.close()


async def columns_of(source: PostgresSource, settings: DatasetSettings) -> list[str]:
    dataset = await catalog_of(source, {"it": settings}).dataset("it")
    return [column.name for column in dataset.columns]


async def test_only_allowed_columns_may_leave_in_their_order(url: str) -> None:
    async with open_source(url) as source:
        allowed = table("shop.orders", columns=("name", "id", "name"))
        assert await columns_of(source, allowed) == ["name", "id"]
        assert await columns_of(source, table("shop.orders", columns=("id", "*"))) == [
            "id", "name", "secret",
        ]  # fmt: skip
        dataset = await catalog_of(source, {"it": allowed}).dataset("it")
        data = await carried(source, dataset, ("order", "id"))
        assert data == b'{"name":"one","id":1}\n{"name":"two","id":2}\n'
        for pair in (("select", "secret"), ("secret", "eq.hidden 1"), ("order", "secret")):
            with pytest.raises(UnknownColumn) as caught:
                await carried(source, dataset, pair)
            assert "(it has name, id)" in caught.value.detail


async def test_allowed_columns_of_configured_sql(url: str) -> None:
    sql = "select id, secret as hidden, name from shop.orders"
    async with open_source(url) as source:
        settings = DatasetSettings(sql=sql, columns=("name",), key=("name",))
        dataset = await catalog_of(source, {"it": settings}).dataset("it")
        assert b"hidden" not in await carried(source, dataset)
        with pytest.raises(UnknownColumn):
            await carried(source, dataset, ("hidden", "is.null"))


async def test_a_table_with_an_entry_of_its_own_is_not_exposed_beside_it(url: str) -> None:
    configured = {"public_orders": table("shop.orders", columns=("id",))}
    broken = {"orders": table("shop.orders", columns=("id", "typo"))}
    async with open_source(url) as source:
        found = await catalog_of(source, configured, SHOP).datasets()
        without = await catalog_of(source, broken, SHOP).datasets()
    assert {*found} == SHOWN - {"orders"} | {"public_orders"}
    assert {*without} == SHOWN - {"orders"}


KEYS: list[tuple[DatasetSettings, tuple[str, ...]]] = [
    (table("shop.orders"), ("id",)),
    (table("shop.lines"), ("c", "a")),
    (table("shop.parted"), ("id",)),
    (table("shop.keyless"), ()),
    (table("shop.view"), ()),
    (table("shop.view", key=("id",)), ("id",)),
    (table("shop.orders", key=("name", "id")), ("name", "id")),
    (table("shop.lines", columns=("a", "b", "c")), ("c", "a")),
    (table("shop.lines", columns=("a", "b")), ()),
    (table("orders"), ("n",)),
    (DatasetSettings(sql="select id from shop.orders"), ()),
    (DatasetSettings(sql="select id from shop.orders", key=("id",)), ("id",)),
]


@pytest.mark.parametrize(("settings", "key"), KEYS, ids=range(len(KEYS)))
async def test_keys(url: str, settings: DatasetSettings, key: tuple[str, ...]) -> None:
    async with open_source(url) as source:
        assert (await catalog_of(source, {"it": settings}).dataset("it")).key == key


UNUSABLE: Mapping[str, tuple[DatasetSettings, str]] = {
    "missing": (table("shop.missing"), "there is no relation shop.missing that this role may read."),
    "schema": (table("nowhere.orders"), "there is no relation nowhere.orders that this role may"),
    "partition": (table("shop.part_1"), "there is no relation shop.part_1 that this role may read."),
    "sequence": (table("shop.counter"), "there is no relation shop.counter that this role may"),
    "column": (table("orders", columns=("n", "x", "y")), "there is no column x, y."),
    "key": (table("orders", key=("x",)), "its key names x, which is not among its columns."),
    "hidden key": (table("shop.lines", columns=("a",), key=("b",)), "its key names b, which is not"),
    "empty": (table("shop.nothing"), "it has no columns."),
    "sql": (DatasetSettings(sql="select * from missing"), 'relation "missing" does not exist'),
    "sql key": (DatasetSettings(sql="select 1 as a", key=("b",)), "its key names b, which is not"),
}  # fmt: skip


async def test_what_is_configured_wrongly_is_not_there_says_why_and_leaves_the_rest(
    url: str,
) -> None:
    events: list[Event] = []
    configured = {name: settings for name, (settings, _) in UNUSABLE.items()}
    async with open_source(url) as source:
        all_of_them = {**configured, "fine": table("shop.orders")}
        catalog = Catalog({"main": source}, {"main": SHOP}, all_of_them, events.append)
        for name, (_, why) in UNUSABLE.items():
            with pytest.raises(NotFound) as caught:
                await catalog.dataset(name)
            told = f"The dataset {name} is configured but cannot be used: {why}"
            assert caught.value.detail.startswith(told)
        assert len(records(await carried(source, await catalog.dataset("fine")))) == 2
        assert catalog.problems.keys() == UNUSABLE.keys()
        assert {event.dataset for event in events if isinstance(event, DatasetUnusable)} == {
            *UNUSABLE
        }
        with pytest.raises(NotFound, match=r"^There is no dataset 'unheard-of'\.$"):
            await catalog.dataset("unheard-of")


async def test_what_was_missing_is_there_after_a_refresh(database_url: str) -> None:
    async with open_source(database_url) as source:
        catalog = catalog_of(source, {"later": table("later")})
        with pytest.raises(NotFound):
            await catalog.dataset("later")
        connection = await asyncpg.connect(libpq_url(database_url))
        await connection.execute("CREATE TABLE later AS SELECT 1 AS id")
        await connection.close()
        await catalog.refresh()
        assert records(await carried(source, await catalog.dataset("later"))) == [{"id": 1}]
        assert catalog.problems == {}


def test_our_own_tables_are_there_and_not_shown(url: str) -> None:
    query = "SELECT count(*) FROM pg_class WHERE relnamespace = 'tailrace'::regnamespace"
    assert fetch(url, query)[0][0] > 0
