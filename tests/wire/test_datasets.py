"""What may be read: the list of datasets, and one with its columns."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from service.api.addresses import quoted
from tests.clients import ask
from tests.postgres import run_sql
from tests.serving import Served, without_worker

TABLES = """
    create table numbers (id int primary key, name text not null, note text, secret text);
    comment on table numbers is 'Numbers & their <names>';
    comment on column numbers.name is 'How it is called';
    insert into numbers select i, 'n' || i, null, 's' from generate_series(1, 1000) i;
    analyze numbers;
    create table guarded as select * from numbers;
    create table pairs (b int, a int, word varchar(10), primary key (a, b));
    create table keyless (x numeric(10, 2)); create table other (x int);
    create view few as select id, name from numbers where id < 4;
    create materialized view picked as select id from numbers where id < 40;
    create table parted (id int primary key) partition by range (id);
    create table parted_1 partition of parted for values from (0) to (10);
    create table columnless ();
    create schema hidden;
    create table hidden.secrets (id int);
"""
CONFIG = """
[sources.main]
expose = ["public.*"]
[datasets.chosen]
table = "public.guarded"
columns = ["name", "id"]
title = "Chosen numbers"
description = "Two columns of four"
[datasets.joined]
sql = "select n.id, p.word from numbers n left join pairs p on p.a = n.id"
key = ["id"]
[datasets.broken]
table = "public.nothing"
[datasets.unkeyed]
table = "public.other"
key = ["nothing"]
"""
STRANGE = [
    *("with space", " edges ", "sla/sh", "a//b", "100%", "50%2Fx", "%", "ünïcödé", "日本語", "🌊"),
    *('quo"te', "apo'strophe", "back\\slash", "what?", "ha#sh", "semi;colon", "am&per=sand", "+"),
    *("x.csv", "x.json.gz", "dot.ted", "-dash", "..", "UPPER", "select", "refresh"),
    *("<script>alert(1)</script>", "$(reboot)", "`reboot`", "*", "a" * 63),
]


def create_strange() -> str:
    """Tables of one row that are called what nobody would call them."""
    quoted_names = ('"' + name.replace('"', '""') + '"' for name in STRANGE)
    return ";".join(f"create table {name} as select 1 as id, 'x' as word" for name in quoted_names)


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, TABLES + create_strange())
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=CONFIG
    ) as found:
        yield found


def test_the_list_has_what_is_exposed_and_configured_and_nothing_else(served: Served) -> None:
    answer = ask(served.base, "/v1/datasets")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "private, no-cache"
    listed = answer.json()["datasets"]
    names = [item["name"] for item in listed]
    ours = {"numbers", "pairs", "keyless", "few", "picked", "parted", "chosen", "joined"}
    assert set(names) == ours | set(STRANGE)
    assert names == sorted(names)


def test_a_listed_dataset_says_what_it_is(served: Served) -> None:
    listed = {item["name"]: item for item in ask(served.base, "/v1/datasets").json()["datasets"]}
    assert listed["numbers"] == {
        "name": "numbers",
        "title": None,
        "description": "Numbers & their <names>",
        "formats": ["json", "csv", "ndjson"],
        "estimated_rows": 1000,
        "links": {
            "self": f"{served.base}/v1/datasets/numbers",
            "json": f"{served.base}/v1/rows/numbers.json",
            "csv": f"{served.base}/v1/rows/numbers.csv",
            "ndjson": f"{served.base}/v1/rows/numbers.ndjson",
        },
    }
    assert (listed["chosen"]["title"], listed["chosen"]["description"]) == (
        "Chosen numbers",
        "Two columns of four",
    )
    assert listed["few"]["estimated_rows"] is None


def test_the_detail_adds_columns_and_key(served: Served) -> None:
    detail = ask(served.base, "/v1/datasets/numbers").json()
    assert detail["columns"] == [
        {"name": "id", "type": "integer", "nullable": False, "description": None},
        {"name": "name", "type": "text", "nullable": False, "description": "How it is called"},
        {"name": "note", "type": "text", "nullable": True, "description": None},
        {"name": "secret", "type": "text", "nullable": True, "description": None},
    ]
    assert detail["key"] == ["id"]
    assert ask(served.base, "/v1/datasets/pairs").json()["key"] == ["a", "b"]
    assert ask(served.base, "/v1/datasets/keyless").json()["key"] == []


def test_a_configured_query_is_described_by_its_result(served: Served) -> None:
    detail = ask(served.base, "/v1/datasets/joined").json()
    assert [(column["name"], column["type"]) for column in detail["columns"]] == [
        ("id", "integer"),
        ("word", "character varying"),
    ]
    assert detail["key"] == ["id"]


def test_only_allowed_columns_can_be_seen_or_asked_about(served: Served) -> None:
    detail = ask(served.base, "/v1/datasets/chosen").json()
    assert [column["name"] for column in detail["columns"]] == ["name", "id"]
    head = ask(served.base, "/v1/rows/chosen.csv?limit=1").body
    assert head.splitlines()[0] == b"name,id"
    for query in ("select=secret", "secret=eq.s", "order=secret", "select=*,secret"):
        answer = ask(served.base, f"/v1/rows/chosen.csv?{query}")
        assert (answer.status, answer.json()["code"]) == (400, "unknown_column")


@pytest.mark.parametrize(("name", "reason"), [("broken", "public.nothing"), ("unkeyed", "nothing")])
def test_a_dataset_that_cannot_be_offered_says_why(served: Served, name: str, reason: str) -> None:
    for path in (f"/v1/datasets/{name}", f"/v1/rows/{name}.csv"):
        answer = ask(served.base, path)
        assert answer.status == 404
        assert reason in answer.json()["detail"]
    assert reason in ask(served.base, "/v1/status").json()["datasets_unusable"][name]
    assert name in {line["dataset"] for line in served.events("dataset unusable")}


@pytest.mark.parametrize("name", ["numbers", "few", "pairs", "apo'strophe", "$(reboot)"])
def test_the_examples_work_in_a_shell(
    served: Served, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shell")
    for line in ask(served.base, f"/v1/datasets/{quoted(name)}").json()["examples"]:
        subprocess.run(["sh", "-c", line], cwd=folder, check=True, timeout=60)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_work_through_the_links_given_for_them(served: Served, name: str) -> None:
    listed = {item["name"]: item for item in ask(served.base, "/v1/datasets").json()["datasets"]}
    links = listed[name]["links"]
    assert ask(served.base, links["self"]).json()["name"] == name
    assert ask(served.base, links["csv"]).body == b"id,word\n1,x\n"
    assert ask(served.base, links["json"]).json() == [{"id": 1, "word": "x"}]
    assert ask(served.base, links["ndjson"] + "?end=0").body == b'{"id":1,"word":"x"}\n'


def test_a_refresh_finds_what_is_new_and_renames_nothing(
    served: Served, module_database_url: str
) -> None:
    def names() -> set[str]:
        return {item["name"] for item in ask(served.base, "/v1/datasets").json()["datasets"]}

    before = names()
    run_sql(module_database_url, "create table added (id int)")
    try:
        assert names() == before
        for _ in range(2):
            assert ask(served.base, "/v1/datasets/refresh", "POST").status == 204
            assert names() == before | {"added"}
    finally:
        run_sql(module_database_url, "drop table added")
        ask(served.base, "/v1/datasets/refresh", "POST")
    assert names() == before


def test_two_sources_share_names_without_mixing_them_up(
    databases: object, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_sql(
        database_url,
        "create table one as select 1 as id; create schema other; create table other.one as select 2 as id;",
    )
    config = """
        [sources.first]
        expose = ["public.*"]
        [sources.second]
        expose = ["public.*", "other.*"]
    """
    with without_worker(tmp_path_factory.mktemp("two"), database_url, config=config) as found:
        for _ in range(2):
            listed = {item["name"] for item in found.get("/v1/datasets")["datasets"]}
            assert listed == {"one", "second.public.one", "second.other.one"}
            assert ask(found.base, "/v1/rows/second.other.one.csv").body == b"id\n2\n"
            assert ask(found.base, "/v1/rows/one.csv").body == b"id\n1\n"
            ask(found.base, "/v1/datasets/refresh", "POST")
