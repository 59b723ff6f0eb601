"""The body that asks for an export: what it means, which are the same, and what is wrong in it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.column import Column, Kind
from service.dataset import Dataset
from service.errors import InvalidParameter
from service.export.assembly import Asked
from service.export.encode import FORMATS
from service.grammar.cursor import Cursor, Cursors
from service.grammar.query import OWN, parse_query
from service.jobs.request import ExportRequest, representation_of, understand
from service.preferences import Count
from service.representation import parse_representation
from tests.datasets import ID, NAME, ORDERS, PRICE, dataset

CURSORS = Cursors("a secret of the tests alone, long enough")
CHUNK = 64 * 1024
FULL: dict[str, Any] = {
    "dataset": "orders",
    "format": "csv",
    "select": ["id", "label:name"],
    "where": {"id": ["gt.1", "lt.9"], "name": "eq.x", "or": "(id.eq.1,id.eq.2)"},
    "order": ["price.desc", "id"],
    "limit": 10,
    "offset": 2,
    "after": None,
    "compression": "gzip",
    "profile": "machine",
    "delimiter": ";",
    "header": False,
    "end": False,
    "filename": "mine.csv",
    "count": "exact",
}
OTHERS: dict[str, Any] = {
    "dataset": "others",
    "format": "ndjson",
    "select": ["label:name", "id"],
    "where": {"id": ["lt.9", "gt.1"], "name": "eq.x", "or": "(id.eq.1,id.eq.2)"},
    "order": ["id", "price.desc"],
    "limit": None,
    "offset": 3,
    "after": "x",
    "compression": "zstd",
    "profile": "excel",
    "delimiter": None,
    "header": True,
    "end": True,
    "filename": None,
}


def request(**given: Any) -> ExportRequest:
    """As it comes out of a body."""
    text = json.dumps({"dataset": "orders", **given})
    return ExportRequest.model_validate(json.loads(text))


def understood(of: Dataset = ORDERS, **given: Any) -> Asked:
    return understand(request(**given), of, CURSORS, CHUNK)


def spelt(*parameters: tuple[str, str]) -> Asked:
    """What ``GET /v1/rows/orders.csv?…`` means by these parameters."""
    query = parse_query(ORDERS, parameters, cursors=CURSORS)
    return Asked(ORDERS, query, parse_representation(FORMATS["csv"], [], chunk_size=CHUNK))


def refused(of: Dataset = ORDERS, **given: Any) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        understood(of, **given)
    return caught.value


def places(**given: Any) -> list[tuple[int | str, ...]]:
    """Where the mistakes are that the model itself finds."""
    with pytest.raises(ValidationError) as caught:
        request(**given)
    return [item["loc"] for item in caught.value.errors()]


def shuffled(value: Any, dice: random.Random) -> Any:
    """The same JSON with the members of objects in another order."""
    if not isinstance(value, dict):
        return value
    items = [(key, shuffled(member, dice)) for key, member in value.items()]
    dice.shuffle(items)
    return dict(items)


def test_a_dataset_is_enough() -> None:
    assert request().stored() == {
        "dataset": "orders",
        "format": "csv",
        "select": None,
        "where": {},
        "order": [],
        "limit": None,
        "offset": None,
        "after": None,
        "compression": "none",
        "profile": "machine",
        "delimiter": None,
        "header": True,
        "end": False,
        "filename": None,
        "count": None,
    }
    assert understood() == spelt()


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "not fresh"])
def test_what_is_stored_reads_back_and_knows_nothing_of_fresh(*, fresh: bool) -> None:
    asked = request(**FULL, fresh=fresh)
    assert asked.stored() == FULL
    assert ExportRequest.model_validate(asked.stored()) == request(**FULL)


@given(dice=st.randoms(use_true_random=False), fresh=st.booleans(), counted=st.booleans())
def test_the_fingerprint_knows_no_order_of_members_no_fresh_and_no_count(
    dice: random.Random, *, fresh: bool, counted: bool
) -> None:
    """None of them makes another file."""
    one = request(**FULL).fingerprint("anonymous")
    asked = shuffled(FULL | {"count": "exact" if counted else None}, dice)
    other = request(**asked, fresh=fresh).fingerprint("anonymous")
    assert other == one
    assert len(bytes.fromhex(one)) == 32


def test_the_fingerprint_knows_no_count_since_the_file_is_the_same() -> None:
    asked = FULL | {"count": None}
    assert request(**asked).fingerprint("anna") == request(**FULL).fingerprint("anna")


@pytest.mark.parametrize("name", OTHERS)
def test_the_fingerprint_knows_everything_else(name: str) -> None:
    one = request(**FULL).fingerprint("anonymous")
    assert request(**FULL | {name: OTHERS[name]}).fingerprint("anonymous") != one


def test_the_fingerprint_is_of_one_owner() -> None:
    assert request().fingerprint("anna") != request().fingerprint("bert")


def test_nothing_is_left_out_of_these_tables() -> None:
    assert OTHERS.keys() == FULL.keys() - {"count"}
    assert FULL.keys() == ExportRequest.model_fields.keys() - {"fresh"}


@pytest.mark.parametrize(
    ("given", "parameters"),
    [
        ({"select": ["id", "label:name"]}, [("select", "id,label:name")]),
        ({"select": ["*"]}, [("select", "*")]),
        ({"where": {"id": "gt.1"}}, [("id", "gt.1")]),
        ({"where": {"id": ["gt.1", "lt.9"]}}, [("id", "gt.1"), ("id", "lt.9")]),
        ({"where": {"and": "(id.gt.1,id.lt.9)"}}, [("and", "(id.gt.1,id.lt.9)")]),
        ({"where": {"or": ["(id.eq.1)", "(id.eq.2)"]}}, [("or", "(id.eq.1)"), ("or", "(id.eq.2)")]),
        ({"where": {"not.or": "(id.eq.1)"}}, [("not.or", "(id.eq.1)")]),
        ({"where": {"a b": "is.null"}}, [("a b", "is.null")]),
        ({"order": ["price.desc.nullslast", "id"]}, [("order", "price.desc.nullslast,id")]),
        ({"order": []}, []),
        ({"limit": 0}, [("limit", "0")]),
        ({"limit": 5, "offset": 7}, [("limit", "5"), ("offset", "7")]),
        ({"where": {}, "select": None, "limit": None}, []),
    ],
    ids=str,
)
def test_it_means_what_the_query_string_says(
    given: dict[str, Any], parameters: list[tuple[str, str]]
) -> None:
    assert understood(**given) == spelt(*parameters)


def test_an_alias_is_what_the_column_is_called() -> None:
    assert understood(select=["label:name", "id"]).query.labels == ("label", "id")


def test_what_is_counted_is_handed_on() -> None:
    assert understood(count="exact").count is Count.EXACT


def test_what_continues_goes_on_behind_its_row() -> None:
    order = understood(order=["id"]).query
    after = CURSORS.sign(Cursor("orders", order.digest, (41,)))
    assert after is not None
    assert understood(order=["id"], after=after) == spelt(("order", "id"), ("after", after))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, {"compression": "none", "delimiter": ",", "header": True, "end": False}),
        ({"compression": "zstd"}, {"compression": "zstd"}),
        ({"profile": "excel", "delimiter": ";"}, {"profile": "excel", "delimiter": ";"}),
        ({"header": False}, {"header": False}),
        ({"format": "ndjson", "end": True}, {"format": FORMATS["ndjson"], "end": True}),
        ({"format": "json"}, {"format": FORMATS["json"]}),
    ],
    ids=str,
)
def test_it_is_written_as_it_says(given: dict[str, Any], said: dict[str, Any]) -> None:
    found = representation_of(request(**given), CHUNK)
    assert {name: getattr(found, name) for name in said} == said
    assert (found.chunk_size, found.encoding) == (CHUNK, None)


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_column_called_like_a_parameter_is_told_how_to_say_it(name: str) -> None:
    here = dataset(ID, Column(name, "text", Kind.TEXT), key=("id",))
    error = refused(here, where={name: "eq.5"})
    assert error.members["parameter"] == f"where.{name}"
    assert f'{{"and": "({name}.eq.…)"}}' in error.detail
    said = understood(here, where={"and": f"({name}.eq.5)"})
    assert [condition.column.name for condition in said.query.conditions()] == [name]


@pytest.mark.parametrize("name", ["id", "nope", "and", "not.or", "nope\0"])
def test_no_conditions_are_a_mistake(name: str) -> None:
    error = refused(where={name: []})
    assert error.members["parameter"] == f"where.{name}"
    assert error.detail == f"where: {name} has no conditions."


@pytest.mark.parametrize(
    ("given", "code", "parameter"),
    [
        ({"select": ["nope"]}, "unknown_column", "select"),
        ({"select": []}, "invalid_parameter", "select"),
        ({"select": ["id::text"]}, "unsupported", "select"),
        ({"where": {"nope": "eq.1"}}, "unknown_column", "nope"),
        ({"where": {"id": "1"}}, "invalid_parameter", "id"),
        ({"where": {"id": ["gt.1", "eq.x"]}}, "invalid_parameter", "id"),
        ({"where": {"name": "eq.a\0"}}, "invalid_parameter", "name"),
        ({"where": {"and": "id.eq.1"}}, "invalid_parameter", "and"),
        ({"where": {"or": "(nope.eq.1)"}}, "unknown_column", "or"),
        ({"order": ["nope.desc"]}, "unknown_column", "order"),
        ({"order": ["id.up"]}, "invalid_parameter", "order"),
        ({"limit": 2**63}, "invalid_parameter", "limit"),
        ({"offset": 2**63}, "invalid_parameter", "offset"),
        ({"after": "made up"}, "invalid_parameter", "after"),
        ({"delimiter": ";;"}, "invalid_parameter", "delimiter"),
        ({"delimiter": ""}, "invalid_parameter", "delimiter"),
        ({"format": "json", "delimiter": ";"}, "invalid_parameter", "delimiter"),
        ({"format": "ndjson", "header": False}, "invalid_parameter", "header"),
        ({"format": "csv", "end": True}, "invalid_parameter", "end"),
        ({"format": "ndjson", "profile": "excel"}, "invalid_parameter", "profile"),
        ({"profile": "excel", "limit": 2_000_000}, "invalid_parameter", "limit"),
    ],
    ids=str,
)
def test_a_mistake_is_named_by_its_field(given: dict[str, Any], code: str, parameter: str) -> None:
    error = refused(**given)
    assert (error.code, error.members["parameter"]) == (code, parameter)
    assert error.detail.startswith(f"{parameter}: ")


def test_what_has_no_key_cannot_be_continued() -> None:
    error = refused(dataset(ID, NAME, PRICE), after="x")
    assert error.members["parameter"] == "after"


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"dataset": ""}, [("dataset",)]),
        ({"dataset": None}, [("dataset",)]),
        ({"dataset": "a\0"}, [("dataset",)]),
        ({"format": "xml"}, [("format",)]),
        ({"select": "id"}, [("select",)]),
        ({"select": ["id", 1]}, [("select", 1)]),
        ({"where": []}, [("where",)]),
        ({"where": {"id": 1}}, [("where", "id", "str"), ("where", "id", "list[str]")]),
        ({"order": "id"}, [("order",)]),
        ({"limit": -1}, [("limit",)]),
        ({"limit": "5"}, [("limit",)]),
        ({"limit": True}, [("limit",)]),
        ({"limit": 1.0}, [("limit",)]),
        ({"offset": -1}, [("offset",)]),
        ({"after": 5}, [("after",)]),
        ({"compression": "brotli"}, [("compression",)]),
        ({"profile": "human"}, [("profile",)]),
        ({"delimiter": 5}, [("delimiter",)]),
        ({"header": "0"}, [("header",)]),
        ({"end": 1}, [("end",)]),
        ({"filename": ""}, [("filename",)]),
        ({"filename": "x" * 256}, [("filename",)]),
        ({"filename": "a\0b"}, [("filename",)]),
        ({"count": "estimate"}, [("count",)]),
        ({"fresh": "yes"}, [("fresh",)]),
        ({"chunk_size": 5}, [("chunk_size",)]),
        ({"limit": -1, "order": 5, "nope": 1}, [("order",), ("limit",), ("nope",)]),
    ],
    ids=str,
)
def test_what_is_of_the_wrong_shape_is_named_by_its_place(
    given: dict[str, Any], where: list[tuple[int | str, ...]]
) -> None:
    assert places(**given) == where


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        request().limit = 5  # type: ignore[misc]  # it is frozen
