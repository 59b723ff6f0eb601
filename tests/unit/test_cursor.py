"""Cursors: what they are tied to, what is refused, and the rows that they leave."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql import ClauseElement

from service.column import Column, Kind
from service.dataset import Dataset
from service.errors import InvalidParameter
from service.grammar.cursor import MAX_LENGTH, Cursor, Cursors, Values
from service.grammar.keyset import After
from service.grammar.query import RowsQuery, build_last, build_select, parse_query
from tests.datasets import ID, NAME, ORDERS, PRICE, dataset

Pairs = list[tuple[str, str]]
CURSORS = Cursors("a secret")
NUMBER = Column("n", "integer", Kind.INTEGER, nullable=False, bits=32)
LINES = dataset(ID, NUMBER, NAME, PRICE, key=("id", "n"))

SCALARS = (
    st.none()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.integers()
    | st.floats(allow_nan=False)
)


def signed(found: RowsQuery, values: Values, source: Dataset = ORDERS) -> str:
    text = CURSORS.sign(Cursor(source.name, found.digest, values))
    assert text is not None
    return text


def refused(text: str, pairs: Pairs, source: Dataset = ORDERS) -> str:
    """Why ``text`` is no cursor for ``pairs``."""
    with pytest.raises(InvalidParameter) as caught:
        parse_query(source, [*pairs, ("after", text)], cursors=CURSORS)
    assert caught.value.code == "invalid_parameter"
    assert caught.value.members == {"parameter": "after", "character": 1}
    return caught.value.detail.removeprefix("after: ").removesuffix(" at character 1.")


@given(st.lists(SCALARS, max_size=5).map(tuple))
@example((float("inf"), -0.0, 2**80, "", "'\n"))
def test_what_is_signed_reads_back(values: Values) -> None:
    text = CURSORS.sign(Cursor("orders", "digest", values))
    assert text is not None
    assert re.fullmatch(r"[\w.-]+", text, re.ASCII)
    found = Cursors(b"a secret").read(text, "orders", "digest", len(values))
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_a_cursor_is_refused_by_another_secret() -> None:
    other = Cursors("another").sign(Cursor("orders", parse_query(ORDERS, []).digest, ("1",)))
    assert other is not None
    assert refused(other, []) == "this is not a cursor of this service, or not a whole one"


@given(st.data())
def test_a_cursor_that_was_changed_is_refused(data: st.DataObject) -> None:
    text = signed(parse_query(ORDERS, [("limit", "1")]), ("5",))
    place = data.draw(st.integers(0, len(text) - 2))  # a last letter may hold unused bits
    letter = data.draw(
        st.characters(exclude_characters=text[place] + "\x00", exclude_categories=["Cs"])
    )
    assert refused(text[:place] + letter + text[place + 1 :], [("limit", "1")])
    assert refused(text[:place], [("limit", "1")])


@given(st.text(st.characters(exclude_characters="\x00")))
@example("ü")
@example("\ud800")
def test_any_text_is_no_cursor(text: str) -> None:
    assert refused(text, []) == "this is not a cursor of this service, or not a whole one"


def test_a_cursor_has_a_bounded_length() -> None:
    fitting = CURSORS.sign(Cursor("orders", "digest", (str(list(range(1000))),)))
    assert fitting is not None
    assert len(fitting) <= MAX_LENGTH
    incompressible = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    assert CURSORS.sign(Cursor("orders", "digest", (incompressible,))) is None
    assert refused("x" * (MAX_LENGTH + 1), []).startswith(f"a cursor has at most {MAX_LENGTH}")


def test_a_cursor_belongs_to_its_dataset() -> None:
    text = signed(parse_query(ORDERS, [("limit", "1")]), ("5",))
    assert refused(text, [], replace(ORDERS, name="others")) == (
        "this cursor belongs to another dataset"
    )


FIRST: Pairs = [("name", "eq.x"), ("or", "(id.gt.1,price.in.(1,2))"), ("order", "price")]


@pytest.mark.parametrize(
    "pairs",
    [
        [*FIRST, ("select", "id,x:name")],
        [*FIRST, ("limit", "5"), ("offset", "2")],
        FIRST[::-1],
        [("and", "(or(price.in.(2,1),id.gt.1),name.eq.x)"), ("order", "price.asc.nullslast")],
        [("and", "(and(name.eq.x))"), ("or", "(or(id.gt.1),price.in.(2,1,1))"), FIRST[2]],
        [*FIRST[:2], ("order", "price,id")],
    ],
)
def test_a_cursor_does_not_depend_on_how_the_rows_are_shown_or_spelt(pairs: Pairs) -> None:
    text = signed(parse_query(ORDERS, FIRST), ("1", "5"))
    found = parse_query(ORDERS, [*pairs, ("after", text)], cursors=CURSORS)
    assert found.after == After(found.order, ("1", "5"))


@pytest.mark.parametrize(
    "pairs",
    [
        FIRST[1:],
        [*FIRST, ("id", "gt.0")],
        [("name", "not.eq.x"), *FIRST[1:]],
        [("name", "neq.x"), *FIRST[1:]],
        [("name", "eq.y"), *FIRST[1:]],
        [FIRST[0], ("not.or", FIRST[1][1]), FIRST[2]],
        [FIRST[0], ("and", FIRST[1][1]), FIRST[2]],
        [*FIRST[:2], ("order", "price.desc")],
        [*FIRST[:2], ("order", "price.nullsfirst")],
        [*FIRST[:2], ("order", "name")],
        [*FIRST[:2], ("order", "price,id.desc")],
        [*FIRST[:2], ("order", "price,name")],
        FIRST[:2],
    ],
)
def test_a_cursor_belongs_to_its_filter_and_order(pairs: Pairs) -> None:
    text = signed(parse_query(ORDERS, FIRST), ("1", "5"))
    assert refused(text, pairs) == "this cursor belongs to another filter or order"


def test_a_cursor_has_a_value_for_each_column_of_the_order() -> None:
    found = parse_query(ORDERS, FIRST)
    for values in ((), ("1",), ("1", "2", "3")):
        assert refused(signed(found, values), FIRST) == (
            "this cursor belongs to another filter or order"
        )


def test_after_alone_implies_the_order_of_the_key() -> None:
    text = signed(parse_query(LINES, [("limit", "1")]), ("5", "6"), LINES)
    found = parse_query(LINES, [("after", text)], cursors=CURSORS)
    assert [item.column for item in found.order] == [ID, NUMBER]
    assert found.ordered
    assert found.continuable


def test_a_dataset_without_a_key_has_no_cursors() -> None:
    keyless = dataset(ID, NAME)
    assert refused("x", [("order", "id")], keyless) == (
        "orders has no key, so nothing can be continued"
    )
    assert not parse_query(keyless, [("order", "id")]).continuable
    assert not parse_query(LINES, []).continuable
    assert parse_query(LINES, [("offset", "0")]).continuable


def compiled(statement: ClauseElement) -> str:
    dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy's
    text = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    return " ".join(text.replace("public.orders.", "").split())


@pytest.mark.parametrize(
    ("order", "values", "sql"),
    [
        ("id", ("1", "2"), "(id, n) > ('1', '2')"),
        ("id.desc,n.desc", ("1", "2"), "(id, n) < ('1', '2')"),
        ("id.desc", ("1", "2"), "id <= '1' AND (id < '1' OR id = '1' AND n > '2')"),
        (
            "price",
            ("7", "1", "2"),
            (
                "price > '7' OR price IS NOT DISTINCT FROM NULL OR price = '7' AND id > '1' "
                "OR price = '7' AND id = '1' AND n > '2'"
            ),
        ),
        (
            "price.nullsfirst",
            ("7", "1", "2"),
            (
                "price >= '7' AND (price > '7' OR price = '7' AND id > '1' "
                "OR price = '7' AND id = '1' AND n > '2')"
            ),
        ),
        (
            "price.desc",
            ("7", "1", "2"),
            (
                "price <= '7' AND (price < '7' OR price = '7' AND id > '1' "
                "OR price = '7' AND id = '1' AND n > '2')"
            ),
        ),
        (
            "price.desc.nullslast",
            ("7", "1", "2"),
            (
                "price < '7' OR price IS NOT DISTINCT FROM NULL OR price = '7' AND id > '1' "
                "OR price = '7' AND id = '1' AND n > '2'"
            ),
        ),
        (
            "price",
            (None, "1", "2"),
            (
                "price IS NOT DISTINCT FROM NULL AND (price IS NOT DISTINCT FROM NULL AND id > '1' "
                "OR price IS NOT DISTINCT FROM NULL AND id = '1' AND n > '2')"
            ),
        ),
        (
            "price.nullsfirst",
            (None, "1", "2"),
            (
                "price IS DISTINCT FROM NULL OR price IS NOT DISTINCT FROM NULL AND id > '1' "
                "OR price IS NOT DISTINCT FROM NULL AND id = '1' AND n > '2'"
            ),
        ),
    ],
)
def test_the_rows_behind_a_row(order: str, values: Values, sql: str) -> None:
    found = parse_query(LINES, [("order", order)])
    after = After(found.order, values)
    whole = compiled(build_select(LINES, replace(found, after=after)))
    assert whole.partition(" WHERE ")[2].partition(" ORDER BY ")[0] == sql


def test_a_key_of_one_column_is_one_comparison() -> None:
    found = parse_query(ORDERS, [("limit", "1")])
    text = signed(found, ("5",))
    asked = parse_query(ORDERS, [("select", "id"), ("after", text)], cursors=CURSORS)
    assert compiled(build_select(ORDERS, asked)) == (
        "SELECT id AS c0 FROM public.orders WHERE id > '5' ORDER BY id ASC"
    )


LAST = (
    "SELECT CASE WHEN (r.c0 IS DISTINCT FROM NULL) THEN format('%s', r.c0) END AS anon_1, "
    "CASE WHEN (r.c1 IS DISTINCT FROM NULL) THEN format('%s', r.c1) END AS anon_2 "
    "FROM (SELECT name AS c0, id AS c1 FROM public.orders WHERE price > '1' {rest}) AS r"
)


@pytest.mark.parametrize(
    ("pairs", "rows", "rest"),
    [
        ([], 5, "ORDER BY name ASC, id DESC LIMIT 1"),
        ([("limit", "6")], 5, "ORDER BY name ASC, id DESC LIMIT 1"),
        ([("limit", "6"), ("offset", "3")], 5, "ORDER BY name ASC, id DESC LIMIT 1"),
        ([("limit", "5")], 5, "ORDER BY name DESC, id ASC LIMIT 1 OFFSET 4"),
        ([("limit", "1")], 1, "ORDER BY name DESC, id ASC LIMIT 1"),
        ([("limit", "5"), ("offset", "3")], 5, "ORDER BY name DESC, id ASC LIMIT 1 OFFSET 7"),
    ],
)
def test_the_last_row_is_found_from_the_nearer_end(pairs: Pairs, rows: int, rest: str) -> None:
    asked = [("price", "gt.1"), ("order", "name.desc"), ("select", "paid"), *pairs]
    statement = build_last(ORDERS, parse_query(ORDERS, asked), rows)
    assert compiled(statement) == LAST.format(rest=rest)


def test_from_the_other_end_nulls_change_sides_too() -> None:
    found = parse_query(ORDERS, [("order", "name.nullsfirst,price.desc.nullslast,at.desc")])
    assert compiled(build_last(ORDERS, found, 1)).partition(" ORDER BY ")[2] == (
        "name DESC NULLS LAST, price ASC NULLS FIRST, at ASC, id DESC LIMIT 1) AS r"
    )
