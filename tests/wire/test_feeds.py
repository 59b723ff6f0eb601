"""A feed read page by page through cursors, over connections that break at random places."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.clients import ask
from tests.postgres import run_sql
from tests.serving import Served, without_worker

ROWS = 3000
SEEDS = range(40 if os.environ.get("TAILRACE_FAULTS") == "full" else 3)
TABLES = f"""
    create table readings as
    select i as id, case when i % 5 = 0 then null else i % 7 end as grade,
           'site ' || i % 3 as site, md5(i::text) as padding
    from generate_series(1, {ROWS}) i;
    alter table readings add primary key (site, id);
    create table keyless as select i as id from generate_series(1, 10) i;
"""
CONFIG = """
[sources.main]
expose = ["public.*"]
[sources.rows]
expose = ["public.*"]
lane = "rows"
"""
ORDERS = ("", "&order=grade.desc.nullsfirst,site", "&order=grade,padding.desc", "&order=id.desc")


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, TABLES)
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=CONFIG
    ) as found:
        yield found


def page(served: Served, path: str, cut: int | None) -> tuple[list[Any], dict[str, Any]] | None:
    """The rows of a page and its ``_end``; None where the connection is cut after ``cut`` bytes."""
    with closing(http.client.HTTPConnection(urlsplit(served.base).netloc, timeout=60)) as link:
        link.request("GET", path)
        response = link.getresponse()
        assert response.status == 200
        data = response.read(cut)
        if cut is not None and len(data) == cut:
            return None
    *lines, last, nothing = data.split(b"\n")
    assert nothing == b""
    end = json.loads(last)["_end"]
    body = b"".join(line + b"\n" for line in lines)
    assert end["sha256"] == hashlib.sha256(body).hexdigest()
    assert end["rows"] == len(lines)
    return [json.loads(line) for line in lines], end


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dataset", ["readings", "rows.readings"])
def test_each_row_comes_once_over_random_pages_and_cuts(
    served: Served, dataset: str, seed: int
) -> None:
    chance = random.Random(seed)
    order = chance.choice(ORDERS)
    whole = ask(served.base, f"/v1/rows/{dataset}?site=neq.site%201{order or '&limit=9999'}").json()
    found: list[Any] = []
    cursor = ""
    while True:
        size = chance.randint(1, 700)
        after = f"&after={quote(cursor)}" if cursor else ""
        path = f"/v1/rows/{dataset}.ndjson?site=neq.site%201{order}&limit={size}&end=1{after}"
        got = page(served, path, chance.choice([None, chance.randint(1, size * 40)]))
        if got is None:
            continue  # a page that was cut is asked for again
        rows, end = got
        found += rows
        if end["rows"] < size:
            break
        cursor = end["next_cursor"]
    assert found == whole
    assert len(found) == ROWS * 2 // 3


def test_the_receipt_says_the_same_cursor_whatever_the_format(served: Served) -> None:
    cursors = set()
    for suffix in ("csv", "ndjson", "json"):
        answer = ask(served.base, f"/v1/rows/readings.{suffix}?limit=10&select=id")
        receipt = served.get(f"/v1/exports/{answer.export_id}/receipt")
        cursors.add(receipt["next_cursor"])
    (cursor,) = cursors
    rest = ask(served.base, f"/v1/rows/readings?after={cursor}&limit=1")
    eleventh = ask(served.base, "/v1/rows/readings?offset=10&limit=1")
    assert rest.json() == eleventh.json()


def test_an_empty_page_repeats_its_cursor(served: Served) -> None:
    _, end = page(served, "/v1/rows/readings.ndjson?order=site&end=1", None) or ([], {})
    rows, again = page(
        served, f"/v1/rows/readings.ndjson?order=site&end=1&after={end['next_cursor']}", None
    ) or ([None], {})
    assert rows == []
    assert again["next_cursor"] == end["next_cursor"]


def test_where_nothing_can_be_continued_there_is_no_cursor(served: Served) -> None:
    for path in ("readings.ndjson?end=1", "keyless.ndjson?end=1&limit=5"):
        got = page(served, f"/v1/rows/{path}", None)
        assert got is not None
        assert got[1]["next_cursor"] is None


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("readings?order=id&after={cursor}", "order"),
        ("readings?id=gt.5&after={cursor}", "filter"),
        ("rows.readings?after={cursor}", "dataset"),
        ("readings?after={cursor}x", "cursor"),
        ("readings?after=x{cursor}", "cursor"),
        ("readings?after=", "cursor"),
        ("readings?after=%F0%9F%98%80", "cursor"),
        ("keyless?after={cursor}", "key"),
    ],
)
def test_a_cursor_is_for_its_own_query_alone(served: Served, path: str, word: str) -> None:
    answer = ask(served.base, "/v1/rows/readings?limit=10")
    cursor = served.get(f"/v1/exports/{answer.export_id}/receipt")["next_cursor"]
    refused = ask(served.base, "/v1/rows/" + path.format(cursor=cursor))
    assert refused.status == 400
    problem = refused.json()
    assert (problem["code"], problem["parameter"]) == ("invalid_parameter", "after")
    assert word in problem["detail"]


def test_a_cursor_outlives_the_process(
    served: Served, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("again")
    cursors: list[str] = []
    for _ in range(2):
        with without_worker(folder, module_database_url, config=CONFIG) as again:
            if cursors:
                assert ask(again.base, f"/v1/rows/readings?after={cursors[0]}").status == 200
            answer = ask(again.base, "/v1/rows/readings?limit=10")
            cursors.append(again.get(f"/v1/exports/{answer.export_id}/receipt")["next_cursor"])
    assert cursors[0] == cursors[1]
    # Another installation has another secret.
    assert ask(served.base, f"/v1/rows/readings?after={cursors[0]}").status == 400
