"""Clients of PostgREST, in Python and in JavaScript, against our rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from postgrest import CountMethod, SyncPostgrestClient
from postgrest.exceptions import APIError

from tests.clients import ask
from tests.postgres import run_sql
from tests.serving import Served, without_worker
from tests.wire.postgrest_js import called
from tests.wire.postgrest_questions import CASES, CONFIG, EVERYBODY, ORDERS, TABLE, Build, Step


@dataclass(frozen=True)
class Call:
    """A call of the JavaScript client, for what is no plain list of ids."""

    select: str = "*"
    steps: list[Step] = field(default_factory=list)
    table: str = "people"
    options: dict[str, Any] = field(default_factory=dict)


BY_ID: Step = ("order", "id")
FEW: Step = ("lt", "id", 3)
CALLS = {
    "alias": Call('label:name, id, n:"odd, one"', [FEW, BY_ID]),
    "values": Call("*", [("eq", "id", 5)]),
    "csv": Call("id,name", [FEW, BY_ID, ("csv",)]),
    "maybe one": Call("id", [("eq", "id", 3), ("maybeSingle",)]),
    "maybe none": Call("id", [("eq", "id", 99), ("maybeSingle",)]),
    "count": Call("id", [BY_ID, ("limit", 3)], options={"count": "exact"}),
    "count of a range": Call("id", [BY_ID, ("range", 5, 6)], options={"count": "exact"}),
    "count of nothing": Call("id", [("eq", "id", 99)], options={"count": "exact"}),
    "count with a filter": Call("id", [FEW], options={"count": "exact"}),
    "head": Call("*", [("gt", "id", 2)], options={"count": "exact", "head": True}),
    "no column": Call("id,nmae"),
    "no table": Call("id", table="poeple"),
    "no value": Call("id", [("eq", "id", "one")]),
    "thrown": Call("id,nmae", [("throwOnError",)]),
    "single": Call("id", [("eq", "id", 1), ("single",)]),
}


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, TABLE)
    folder = tmp_path_factory.mktemp("served")
    with without_worker(folder, module_database_url, config=CONFIG) as found:
        yield found


@pytest.fixture(scope="module")
def python(served: Served) -> Iterator[SyncPostgrestClient]:
    with SyncPostgrestClient(f"{served.base}/v1/rows") as client:
        yield client


@pytest.fixture(scope="module")
def javascript(served: Served) -> dict[str, dict[str, Any]]:
    """Every call at once: a process costs more than they all."""
    plain = {name: Call("id", [*case.javascript, BY_ID]) for name, case in CASES.items()}
    ordered = {name: Call("id", case.javascript) for name, case in ORDERS.items()}
    calls = plain | ordered | CALLS
    answers = called(f"{served.base}/v1/rows", [vars(call) for call in calls.values()])
    return dict(zip(calls, answers, strict=True))


def ids(rows: Any) -> list[int]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize("name", CASES)
def test_filters_in_python(python: SyncPostgrestClient, name: str) -> None:
    rows = CASES[name].python(python.from_("people").select("id")).order("id")
    assert ids(rows.execute().data) == CASES[name].ids


@pytest.mark.parametrize("name", CASES)
def test_filters_in_javascript(javascript: dict[str, dict[str, Any]], name: str) -> None:
    answer = javascript[name]
    assert (answer["status"], answer["error"]) == (200, None)
    assert ids(answer["data"]) == CASES[name].ids


@pytest.mark.parametrize("name", ORDERS)
def test_order_and_parts_in_python(python: SyncPostgrestClient, name: str) -> None:
    rows = ORDERS[name].python(python.from_("people").select("id"))
    assert ids(rows.execute().data) == ORDERS[name].ids


@pytest.mark.parametrize("name", ORDERS)
def test_order_and_parts_in_javascript(javascript: dict[str, dict[str, Any]], name: str) -> None:
    answer = javascript[name]
    assert (answer["status"], answer["error"]) == (200, None)
    assert ids(answer["data"]) == ORDERS[name].ids


RENAMED = [{"label": "Ada", "id": 1, "n": 1}, {"label": "bob", "id": 2, "n": 2}]
FIFTH = {
    "id": 5,
    "name": 'quo"te',
    "city": None,
    "age": 36,
    "active": False,
    "born": "1990-02-28",
    "odd, one": None,
}


def test_select_in_python(python: SyncPostgrestClient) -> None:
    people = python.from_("people")
    chosen = people.select("label:name", "id", 'n:"odd, one"').lt("id", 3).order("id")
    assert chosen.execute().data == RENAMED
    assert people.select().eq("id", 5).execute().data == [FIFTH]
    assert len(people.select("*").execute().data) == len(EVERYBODY)


def test_select_in_javascript(javascript: dict[str, dict[str, Any]]) -> None:
    assert javascript["alias"]["data"] == RENAMED
    assert javascript["values"]["data"] == [FIFTH]


def test_at_most_one_row(
    python: SyncPostgrestClient, javascript: dict[str, dict[str, Any]]
) -> None:
    found = python.from_("people").select("id").eq("id", 3).maybe_single().execute()
    assert found is not None
    assert found.data == javascript["maybe one"]["data"] == {"id": 3}
    assert python.from_("people").select("id").eq("id", 99).maybe_single().execute() is None
    assert (javascript["maybe none"]["data"], javascript["maybe none"]["error"]) == (None, None)


def test_csv(
    served: Served, python: SyncPostgrestClient, javascript: dict[str, dict[str, Any]]
) -> None:
    text = "id,name\n1,Ada\n2,bob\n"
    assert ask(served.base, "/v1/rows/people.csv?select=id,name&id=lt.3").body.decode() == text
    rows = python.from_("people").select("id,name").lt("id", 3).order("id").csv().execute()
    assert rows.data == javascript["csv"]["data"] == text


def test_count_in_python(python: SyncPostgrestClient) -> None:
    people, exact = python.from_("people"), CountMethod.exact
    page = people.select("id", count=exact).order("id").limit(3).execute()
    assert (ids(page.data), page.count) == ([1, 2, 3], 8)
    page = people.select("id", count=exact).order("id").range(5, 6).execute()
    assert (ids(page.data), page.count) == ([6, 7], 8)
    assert people.select("id", count=exact).lt("id", 3).execute().count == 2
    nothing = people.select("id", count=exact).eq("id", 99).execute()
    assert (nothing.data, nothing.count) == ([], 0)
    head = people.select("*", count=exact, head=True).gt("id", 2).execute()
    assert (head.data, head.count) == ([], 6)
    assert people.select("id").limit(3).execute().count is None


@pytest.mark.parametrize(
    ("name", "found", "count"),
    [
        ("count", [1, 2, 3], 8),
        ("count of a range", [6, 7], 8),
        ("count of nothing", [], 0),
        ("count with a filter", [1, 2], 2),
    ],
)
def test_count_in_javascript(
    javascript: dict[str, dict[str, Any]], name: str, found: list[int], count: int
) -> None:
    answer = javascript[name]
    assert (sorted(ids(answer["data"])), answer["count"]) == (found, count)


def test_count_alone_in_javascript(javascript: dict[str, dict[str, Any]]) -> None:
    head = javascript["head"]
    assert (head["data"], head["error"], head["count"]) == (None, None, 6)


ERRORS: dict[str, tuple[Build, str, str]] = {
    "no column": (lambda rows: rows.eq("nmae", 1), "unknown_column", "nmae"),
    "no value": (lambda rows: rows.eq("id", "one"), "invalid_parameter", "'one'"),
    "single": (lambda rows: rows.eq("id", 1).single(), "not_acceptable", "application/json"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_in_python(python: SyncPostgrestClient, name: str) -> None:
    build, code, said = ERRORS[name]
    with pytest.raises(APIError) as caught:
        build(python.from_("people").select("id")).execute()
    assert caught.value.code == code
    assert said in str(caught.value.message)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ERRORS)
def test_errors_in_javascript(javascript: dict[str, dict[str, Any]], name: str) -> None:
    _, code, said = ERRORS[name]
    error = javascript[name]["error"]
    assert (javascript[name]["data"], error["code"]) == (None, code)
    assert said in error["message"]


def test_an_unknown_table(
    python: SyncPostgrestClient, javascript: dict[str, dict[str, Any]]
) -> None:
    with pytest.raises(APIError, match="poeple") as caught:
        python.from_("poeple").select("id").execute()
    assert caught.value.code == "not_found"
    answer = javascript["no table"]
    assert (answer["status"], answer["error"]["code"]) == (404, "not_found")
    assert "poeple" in answer["error"]["message"]


def test_an_error_that_is_thrown(javascript: dict[str, dict[str, Any]]) -> None:
    thrown = javascript["thrown"]["thrown"]
    assert (thrown["name"], thrown["code"]) == ("PostgrestError", "unknown_column")
    assert "nmae" in thrown["message"]


def test_message_is_for_the_rows_alone(served: Served) -> None:
    """It repeats the detail, for clients that look for nothing else."""
    document = ask(served.base, "/v1/rows/people?limit=x").json()
    assert document["message"] == document["detail"]
    assert "message" not in ask(served.base, "/v1/datasets/poeple").json()
