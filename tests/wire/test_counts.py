"""``Prefer: count``: the total beside the rows, of the same snapshot, or alone with HEAD."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients import ask
from tests.postgres import run_sql
from tests.serving import Served, without_worker

ROWS = 1000
TABLES = f"""
    create table numbers as select i as id, i % 10 as digit from generate_series(1, {ROWS}) i;
    alter table numbers add primary key (id);
    analyze numbers;
"""
CONFIG = """
[sources.main]
expose = ["public.*"]
[sources.rows]
expose = ["public.*"]
lane = "rows"
[datasets.slow]
sql = "select 1 as id, pg_sleep(3600)::text as nap"
[datasets.broken]
sql = "select i as id, 1 / (i - 500) as x from generate_series(1, 1000) i"
"""
NAMES = ("X-Total-Count", "X-Total-Count-Kind", "Content-Range", "Preference-Applied")


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, TABLES)
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=CONFIG
    ) as found:
        yield found


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("dataset", ["numbers", "rows.numbers"])
@pytest.mark.parametrize(
    ("query", "total", "shown"),
    [
        ("", 1000, "0-999"),
        ("?limit=5", 1000, "0-4"),
        ("?limit=5&offset=998", 1000, "998-999"),
        ("?offset=1000", 1000, "*"),
        ("?digit=eq.3", 100, "0-99"),
        ("?digit=eq.3&limit=7&order=id.desc", 100, "0-6"),
        ("?or=(digit.eq.3,id.lt.3)", 102, "0-101"),
        ("?digit=eq.77", 0, "*"),
    ],
)
def test_an_exact_count_heeds_the_filters_alone(
    served: Served, dataset: str, query: str, total: int, shown: str, method: str
) -> None:
    answer = ask(served.base, f"/v1/rows/{dataset}{query}", method, {"Prefer": "count=exact"})
    assert answer.status == 200
    told = [answer.headers[name] for name in NAMES]
    assert told == [str(total), "exact", f"{shown}/{total}", "count=exact"]
    if method == "HEAD":
        assert answer.body == b""
        assert "X-Export-Id" not in answer.headers
    else:
        record = served.get(f"/v1/exports/{answer.export_id}")
        assert record["progress"]["rows"] == len(answer.json())


def test_an_estimate_is_the_planners_and_says_so(served: Served) -> None:
    for prefer in ("count=estimated", "count=planned"):
        answer = ask(served.base, "/v1/rows/numbers", headers={"Prefer": prefer})
        told = [answer.headers[name] for name in NAMES]
        assert told == ["1000", "estimate", "*/1000", "count=estimated"]


def test_nothing_is_counted_that_nobody_asked_for(served: Served) -> None:
    for prefer in ({}, {"Prefer": "return=minimal"}, {"Prefer": "count=many"}):
        answer = ask(served.base, "/v1/rows/numbers?limit=1", headers=prefer)
        assert not [name for name in NAMES if name in answer.headers]


def test_the_places_behind_a_cursor_are_not_known(served: Served) -> None:
    first = ask(served.base, "/v1/rows/numbers.ndjson?limit=10")
    cursor = served.get(f"/v1/exports/{first.export_id}/receipt")["next_cursor"]
    answer = ask(
        served.base, f"/v1/rows/numbers?limit=10&after={cursor}", headers={"Prefer": "count=exact"}
    )
    assert answer.headers["Content-Range"] == "*/1000"
    assert [row["id"] for row in answer.json()] == list(range(11, 21))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_count_that_fails_is_an_error_with_a_status(served: Served, method: str) -> None:
    answer = ask(served.base, "/v1/rows/broken?x=gt.0", method, {"Prefer": "count=exact"})
    assert answer.status == 502
    answer = ask(served.base, "/v1/rows/numbers?id=eq.x", method, {"Prefer": "count=exact"})
    assert answer.status == 400
