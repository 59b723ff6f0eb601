"""A MariaDB source through ``tailrace serve``, beside the PostgreSQL of Tailrace's own tables."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator

import pytest

from tests.clients import ask
from tests.mariadb import fetch, run_sql
from tests.peer import Peer
from tests.serving import Served, without_worker
from tests.waiting import wait_until

ROWS = 20_000


@pytest.fixture(scope="module")
def served(
    module_database_url: str, module_mariadb_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    run_sql(
        module_mariadb_url,
        "CREATE TABLE numbers (id INT PRIMARY KEY, name VARCHAR(20), price DECIMAL(9,2), "
        "paid BOOLEAN) COMMENT 'some numbers'",
        "INSERT INTO numbers SELECT seq, IF(seq % 7 = 0, NULL, CONCAT('näme, ', seq)), ROUND(seq / 8, 2), "
        f"seq % 2 FROM seq_1_to_{ROWS}",
        "CREATE TABLE wide (id INT PRIMARY KEY, text TEXT)",
        "INSERT INTO wide SELECT seq, REPEAT('x', 10000) FROM seq_1_to_5000",
    )
    name = module_mariadb_url.rpartition("/")[2]
    config = f'[sources.maria]\nurl = "{module_mariadb_url}"\nexpose = ["{name}.*"]\n'
    with without_worker(
        tmp_path_factory.mktemp("maria"), module_database_url, config=config
    ) as found:
        yield found


def test_csv_has_every_row_and_a_receipt(served: Served) -> None:
    answer = ask(served.base, "/v1/rows/numbers.csv?order=id", headers={"Prefer": "count=exact"})
    assert answer.status == 200
    assert answer.headers["X-Total-Count"] == str(ROWS)
    names, *rows = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    assert names == ["id", "name", "price", "paid"]
    assert rows[:2] == [["1", "näme, 1", "0.13", "true"], ["2", "näme, 2", "0.25", "false"]]
    assert [int(row[0]) for row in rows] == list(range(1, ROWS + 1))
    receipt = ask(served.base, answer.link("receipt") or "").json()
    assert (receipt["outcome"], receipt["rows"]) == ("complete", ROWS)
    assert receipt["sha256"] == hashlib.sha256(answer.body).hexdigest()
    assert receipt["snapshot"]["lsn"] is None


def test_ndjson_is_filtered_and_goes_on_behind_a_cursor(served: Served) -> None:
    path = "/v1/rows/numbers.ndjson?paid=is.true&name=like.*1&select=id,name&limit=2&end=1"
    answer = ask(served.base, path)
    first, second, end = map(json.loads, answer.body.splitlines())
    assert [first["id"], second["id"]] == [1, 11]
    cursor = end["_end"]["next_cursor"]
    answer = ask(served.base, f"{path}&after={cursor}")
    assert [json.loads(line)["id"] for line in answer.body.splitlines()[:2]] == [31, 41]


def test_the_dataset_is_described(served: Served) -> None:
    found = served.get("/v1/datasets/numbers")
    assert found["description"] == "some numbers"
    assert [(column["name"], column["type"]) for column in found["columns"]] == [
        ("id", "int(11)"),
        ("name", "varchar(20)"),
        ("price", "decimal(9,2)"),
        ("paid", "tinyint(1)"),
    ]
    listed = served.get("/v1/datasets")
    assert {"numbers", "wide"} <= {item["name"] for item in listed["datasets"]}


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/rows/numbers?name=match.(", "invalid_parameter"),
        ("/v1/rows/numbers?price=eq.inf", "unsupported"),
        ("/v1/rows/numbers?nothing=eq.1", "unknown_column"),
    ],
)
def test_a_mistake_is_the_callers(served: Served, path: str, code: str) -> None:
    answer = ask(served.base, path)
    assert answer.status == 400
    assert answer.json()["code"] == code


def test_a_client_that_leaves_ends_the_query(served: Served, module_mariadb_url: str) -> None:
    running = (
        "SELECT COUNT(*) FROM information_schema.processlist "
        "WHERE command <> 'Sleep' AND id <> CONNECTION_ID() AND INSTR(info, '`wide`') > 0"
    )
    peer = Peer(served.base, receive_buffer=4096)
    peer.ask("/v1/rows/wide.csv")
    peer.read_at_least(10_000)
    assert fetch(module_mariadb_url, running) == [(1,)]
    peer.finish()
    wait_until(lambda: fetch(module_mariadb_url, running) == [(0,)], within=2, what="it has ended")
