"""The read grammar: a query string's pairs → which rows, or the mistake with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.base import PGDialect

from service.column import Column
from service.errors import InvalidParameter, RequestError
from service.grammar.filters import Condition
from service.grammar.ordering import MAX_ORDER, Ordering
from service.grammar.query import MAX_ROWS, RowsQuery, build_select, parse_query
from service.grammar.selection import MAX_COLUMNS, Selected
from tests.datasets import AT, HOSTILE, ID, KINDS, NAME, ORDERS, PRICE, dataset

Pairs = list[tuple[str, str]]
BY_ID = (Ordering(ID),)


def selected(*columns: Column | tuple[str, Column]) -> tuple[Selected, ...]:
    pairs = (item if isinstance(item, tuple) else (item.name, item) for item in columns)
    return tuple(Selected(column, label) for label, column in pairs)


ALL = selected(*KINDS, *HOSTILE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", ALL),
        ("id", selected(ID)),
        ("name,id", selected(NAME, ID)),
        ("nr:id", selected(("nr", ID))),
        ("id,copy:id,again:id", selected(ID, ("copy", ID), ("again", ID))),
        ("name:id,id:name", selected(("name", ID), ("id", NAME))),
        ('"id"', selected(ID)),
        ('"id":"name"', selected(("id", NAME))),
        ('"a,b:(c)":id', selected(("a,b:(c)", ID))),
        ('" ":id', selected((" ", ID))),
        (r'"q\"\\":id', selected(('q"\\', ID))),
        ("straße:id", selected(("straße", ID))),
        ('"a b"', selected(HOSTILE[0])),
        ("a b", selected(HOSTILE[0])),
        (r'"a\"b"', selected(HOSTILE[1])),
        ('a"b', selected(HOSTILE[1])),
        ('"a.b,c:d(e)"', selected(HOSTILE[2])),
        ("price$1,$1,%s", selected(HOSTILE[3], HOSTILE[4], HOSTILE[5])),
        ("select", selected(HOSTILE[10])),
    ],
)
def test_select(text: str, expected: tuple[Selected, ...]) -> None:
    assert parse_query(ORDERS, [("select", text)]) == RowsQuery(select=expected)


def test_without_select_every_column_leaves_under_its_own_name() -> None:
    query = parse_query(ORDERS, [])
    assert query == RowsQuery(select=ALL)
    assert query.labels == tuple(column.name for column in ORDERS.columns)
    assert query.columns == ORDERS.columns


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("order", "name")], (Ordering(NAME), *BY_ID)),
        ([("order", "name.asc")], (Ordering(NAME), *BY_ID)),
        ([("order", "name.desc")], (Ordering(NAME, descending=True), *BY_ID)),
        ([("order", "name.nullsfirst")], (Ordering(NAME, nulls_first=True), *BY_ID)),
        ([("order", "name.desc.nullslast")], (Ordering(NAME, True, False), *BY_ID)),
        (
            [("order", "name.asc.nullsfirst,at")],
            (Ordering(NAME, False, True), Ordering(AT), *BY_ID),
        ),
        ([("order", "id.desc")], (Ordering(ID, descending=True),)),
        ([("order", "id.desc,name")], (Ordering(ID, descending=True), Ordering(NAME))),
        ([("order", '"a.b,c:d(e)".desc')], (Ordering(HOSTILE[2], descending=True), *BY_ID)),
        ([("limit", "5")], BY_ID),
        ([("offset", "5")], BY_ID),
    ],
)
def test_an_order_always_ends_in_the_key(pairs: Pairs, expected: tuple[Ordering, ...]) -> None:
    query = parse_query(ORDERS, pairs)
    assert query.ordered
    assert query.order == expected


def test_a_key_of_many_columns_is_appended_as_far_as_it_is_missing() -> None:
    lines = dataset(ID, NAME, PRICE, key=("id", "name", "price"))
    query = parse_query(lines, [("order", "name.desc")])
    assert query.order == (Ordering(NAME, descending=True), Ordering(ID), Ordering(PRICE))


def test_an_order_without_a_key_stays_as_it_was_asked_for() -> None:
    assert parse_query(dataset(ID, NAME), [("order", "name")]).order == (Ordering(NAME),)
    assert parse_query(dataset(ID, NAME), [("limit", "1")]).order == ()


def test_a_query_that_asks_for_no_order_has_none() -> None:
    query = parse_query(ORDERS, [("select", "id"), ("name", "eq.x")])
    assert not query.ordered
    assert query.order == ()


@pytest.mark.parametrize("text", ["0", "1", "007", str(MAX_ROWS)])
@pytest.mark.parametrize("name", ["limit", "offset"])
def test_limit_and_offset_are_whole_numbers_of_rows(name: str, text: str) -> None:
    assert getattr(parse_query(ORDERS, [(name, text)]), name) == int(text)


def test_filters_are_kept_in_their_order_and_may_repeat_a_column() -> None:
    query = parse_query(ORDERS, [("id", "gte.1"), ("name", "eq.x"), ("id", "not.in.(5,7)")])
    assert query.where == (
        Condition(ID, "gte", ("1",)),
        Condition(NAME, "eq", ("x",)),
        Condition(ID, "in", ("5", "7"), negated=True),
    )


MISTAKES: list[tuple[Pairs, str, str, int]] = [
    ([("select", "")], "invalid_parameter", "select", 1),
    ([("select", "id,")], "invalid_parameter", "select", 4),
    ([("select", ",id")], "invalid_parameter", "select", 1),
    ([("select", "id,,name")], "invalid_parameter", "select", 4),
    ([("select", ":id")], "invalid_parameter", "select", 1),
    ([("select", '"id')], "invalid_parameter", "select", 4),
    ([("select", '"id"x')], "invalid_parameter", "select", 5),
    ([("select", "*id")], "invalid_parameter", "select", 2),
    ([("select", "id)")], "invalid_parameter", "select", 3),
    ([("select", "id,id")], "invalid_parameter", "select", 4),
    ([("select", "*,id")], "invalid_parameter", "select", 3),
    ([("select", "id:name,id")], "invalid_parameter", "select", 9),
    ([("select", "nothing")], "unknown_column", "select", 1),
    ([("select", "id,x:nothing")], "unknown_column", "select", 6),
    ([("select", "a:")], "unknown_column", "select", 3),
    ([("select", "ID")], "unknown_column", "select", 1),
    ([("select", "id ")], "unknown_column", "select", 1),
    ([("select", "public.orders.id")], "unknown_column", "select", 1),
    ([("select", '"doc->a"')], "unknown_column", "select", 1),
    ([("select", "id::text")], "unsupported", "select", 3),
    ([("select", "x:id::text")], "unsupported", "select", 5),
    ([("select", "id,doc->a")], "unsupported", "select", 7),
    ([("select", "doc->>a")], "unsupported", "select", 4),
    ([("select", "price.sum()")], "unsupported", "select", 10),
    ([("select", "count()")], "unsupported", "select", 6),
    ([("select", "customers(name)")], "unsupported", "select", 10),
    ([("select", "customers!inner(name)")], "unsupported", "select", 16),
    ([("select", "id,...customers(name)")], "unsupported", "select", 16),
    ([("select", "...customers")], "unsupported", "select", 1),
    ([("order", "")], "unknown_column", "order", 1),
    ([("order", "nothing")], "unknown_column", "order", 1),
    ([("order", "id,")], "unknown_column", "order", 4),
    ([("order", "id desc")], "unknown_column", "order", 1),
    ([("order", "name,nothing.desc")], "unknown_column", "order", 6),
    ([("order", "doc->a.desc")], "unsupported", "order", 4),
    ([("order", "name(x)")], "unsupported", "order", 5),
    ([("order", "id.up")], "invalid_parameter", "order", 4),
    ([("order", "id.")], "invalid_parameter", "order", 4),
    ([("order", "id.DESC")], "invalid_parameter", "order", 4),
    ([("order", "id.desc.asc")], "invalid_parameter", "order", 9),
    ([("order", "id.nullslast.desc")], "invalid_parameter", "order", 14),
    ([("order", "id.nullslast.nullsfirst")], "invalid_parameter", "order", 14),
    ([("order", '"id"desc')], "invalid_parameter", "order", 5),
    ([("order", "id,id")], "invalid_parameter", "order", 4),
    ([("order", "id.desc,name,id")], "invalid_parameter", "order", 14),
    ([("limit", "")], "invalid_parameter", "limit", 1),
    ([("limit", "-1")], "invalid_parameter", "limit", 1),
    ([("limit", "+1")], "invalid_parameter", "limit", 1),
    ([("limit", "1.0")], "invalid_parameter", "limit", 2),
    ([("limit", " 1")], "invalid_parameter", "limit", 1),
    ([("limit", "1\n")], "invalid_parameter", "limit", 2),
    ([("limit", "\u0661")], "invalid_parameter", "limit", 1),
    ([("limit", "²")], "invalid_parameter", "limit", 1),
    ([("limit", str(MAX_ROWS + 1))], "invalid_parameter", "limit", 1),
    ([("limit", "9" * 5000)], "invalid_parameter", "limit", 1),
    ([("offset", "all")], "invalid_parameter", "offset", 1),
    ([("offset", "1;drop table canary")], "invalid_parameter", "offset", 2),
    ([("limit", "1"), ("limit", "1")], "invalid_parameter", "limit", 1),
    ([("select", "id"), ("select", "name")], "invalid_parameter", "select", 1),
    ([("after", "x")], "unsupported", "after", 1),
    ([("nothing", "eq.1")], "unknown_column", "nothing", 1),
    ([("", "eq.1")], "unknown_column", "", 1),
    ([("doc->a", "eq.1")], "unsupported", "doc->a", 4),
    ([("id::text", "eq.1")], "unsupported", "id::text", 3),
    ([("id", "fts.1")], "unsupported", "id", 1),
    ([("id", "1")], "invalid_parameter", "id", 1),
    ([("name", "eq.a\x00b")], "invalid_parameter", "name", 5),
    ([("na\x00me", "eq.ab")], "invalid_parameter", "name", 1),
    ([("select", "id\x00")], "invalid_parameter", "select", 3),
]


@pytest.mark.parametrize(("pairs", "code", "parameter", "character"), MISTAKES)
def test_every_mistake_names_its_parameter(
    pairs: Pairs, code: str, parameter: str, character: int
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_query(ORDERS, pairs)
    error = caught.value
    assert (error.status, error.code) == (400, code)
    assert error.members["parameter"] == parameter
    assert error.members["character"] == character
    assert error.detail.startswith(f"{parameter}: ")
    assert error.detail.endswith(f" at character {character}.")
    assert "\x00" not in error.detail


def test_a_select_has_no_more_columns_than_the_database_takes() -> None:
    labels = [f"label_{n}:id" for n in range(MAX_COLUMNS)]
    assert len(parse_query(ORDERS, [("select", ",".join(labels))]).select) == MAX_COLUMNS
    with pytest.raises(InvalidParameter) as caught:
        parse_query(ORDERS, [("select", ",".join([*labels, "id"]))])
    assert caught.value.members["parameter"] == "select"


def test_an_unknown_column_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_query(dataset(ID, NAME), [("select", "id,nmae")])
    assert caught.value.detail == (
        "select: orders has no column 'nmae' (it has id, name) at character 4."
    )
    assert caught.value.members == {"parameter": "select", "character": 4, "column": "nmae"}


def test_an_order_has_a_bounded_number_of_columns() -> None:
    columns = [Column(f"c{n}", "integer") for n in range(MAX_ORDER + 1)]
    names = [column.name for column in columns]
    found = parse_query(dataset(*columns), [("order", ",".join(names[:-1]))]).order
    assert [ordering.column for ordering in found] == columns[:-1]
    with pytest.raises(InvalidParameter) as caught:
        parse_query(dataset(*columns), [("order", ",".join(names))])
    assert caught.value.members["character"] == len(",".join(names[:-1])) + 2


def test_bare_names_may_have_hyphens_and_angles() -> None:
    odd = tuple(Column(name, "text") for name in ("a-b", "a>b", "a->b", "...c"))
    found = parse_query(dataset(*odd), [("select", 'a-b,a>b,a->b,"...c":a-b'), ("a->b", "eq.1")])
    assert found.select == selected(*odd[:3], ("...c", odd[0]))


NAMES = st.sampled_from(
    ["select", "order", "limit", "offset", "and", "not.or", "id", "name", "paid", "tags", "a b"]
)
PARTS = st.sampled_from(
    [
        *"*,.:(){}\"\\-' é\x00\n5",
        "and(",
        "or(",
        "like",
        "match",
        "isdistinct",
        "eq.1",
        "id",
        "name",
        "->",
        "desc",
        "nullslast",
        "eq",
        "in",
        "not.",
        "is",
        "null",
    ]
)
VALUES = st.text() | st.lists(PARTS, max_size=12).map("".join)
QUERIES = st.lists(st.tuples(NAMES | st.text(), VALUES), max_size=4)


@given(QUERIES)
def test_any_text_is_either_understood_or_the_callers_mistake(pairs: Pairs) -> None:
    found = answer(pairs)
    if isinstance(found, RequestError):
        assert found.members["parameter"] in {name.replace("\x00", "") for name, _ in pairs}
    else:
        assert len(set(found.labels)) == len(found.labels)
        assert compiled(found).startswith("SELECT ")


def answer(pairs: Pairs) -> RowsQuery | RequestError:
    try:
        return parse_query(ORDERS, pairs)
    except RequestError as error:
        return error


def compiled(query: RowsQuery) -> str:
    dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy's
    return str(build_select(ORDERS, query).compile(dialect=dialect))


def asked(value: str, label: str, operator: str) -> RowsQuery:
    inside = value.replace("\\", "\\\\").replace('"', '\\"')
    alias = label.replace("\\", "\\\\").replace('"', '\\"')
    return parse_query(
        ORDERS,
        [
            ("select", f'"{alias}":id,name'),
            ("name", f"{operator}.{value}"),
            ("tags", f"neq.{value}"),
            ("a b", f'in.("{inside}",x)'),
            ("order", "name.desc"),
            ("limit", "7"),
        ],
    )


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(TEXTS, TEXTS.filter(lambda label: label not in ("", "name")), st.sampled_from(["eq", "gt"]))
def test_the_sql_is_the_same_whatever_the_values_and_labels_are(
    value: str, label: str, operator: str
) -> None:
    assert compiled(asked(value, label, operator)) == compiled(asked("v", "label", operator))


def test_the_sql_of_a_query() -> None:
    text = compiled(asked("v", "label", "eq"))
    assert " ".join(text.split()) == (
        "SELECT public.orders.id AS c0, public.orders.name AS c1 FROM public.orders "
        "WHERE public.orders.name = :param_1 AND public.orders.tags != :param_2 "
        'AND (public.orders."a b" IN (:param_3, :param_4)) '
        "ORDER BY public.orders.name DESC, public.orders.id ASC LIMIT :param_5"
    )
