"""Conditions: ``operator.value`` of every kind of column → a clause, or the caller's mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.base import PGDialect

from service.column import Column
from service.errors import InvalidParameter, RequestError
from service.grammar.filters import OPERATORS, PATTERNS, Condition, parse_condition
from service.grammar.scanner import Scanner
from tests.datasets import (
    AT,
    BIG,
    DOC,
    HOSTILE,
    ID,
    KINDS,
    NAME,
    OID,
    ORDERS,
    PAID,
    PRICE,
    SMALL,
    TAGS,
    TOKEN,
)

UUID = "6f1b2c3d-0000-4000-8000-00000000abcd"


def read(column: Column, text: str) -> Condition:
    return parse_condition(column, Scanner(column.name, text))


@pytest.mark.parametrize(
    ("column", "text", "operator", "operand", "negated"),
    [
        (NAME, "eq.x", "eq", ("x",), False),
        (NAME, "eq.", "eq", ("",), False),
        (NAME, "eq.a.b,c(d)", "eq", ("a.b,c(d)",), False),
        (NAME, 'eq."quoted"', "eq", ('"quoted"',), False),
        (NAME, "eq.not.eq.x", "eq", ("not.eq.x",), False),
        (NAME, "not.eq.x", "eq", ("x",), True),
        (NAME, "neq.null", "neq", ("null",), False),
        (NAME, "gt.\n\t ", "gt", ("\n\t ",), False),
        (ID, "gte.1", "gte", ("1",), False),
        (ID, "lt.-1", "lt", ("-1",), False),
        (ID, "lte.+007", "lte", ("+007",), False),
        (NAME, "in.()", "in", (), False),
        (NAME, "in.(a)", "in", ("a",), False),
        (NAME, "in.(a,b)", "in", ("a", "b"), False),
        (NAME, "in.(,)", "in", ("", ""), False),
        (NAME, 'in.("a,b",")",c d)', "in", ("a,b", ")", "c d"), False),
        (NAME, r'in.("\"","\\","\a")', "in", ('"', "\\", "a"), False),
        (ID, "not.in.(1,2)", "in", ("1", "2"), True),
        (ID, 'in.("1",2)', "in", ("1", "2"), False),
        (NAME, "is.null", "is", ("null",), False),
        (NAME, "is.NOT_NULL", "is", ("not_null",), False),
        (NAME, "not.is.null", "is", ("null",), True),
        (PAID, "is.True", "is", ("true",), False),
        (PAID, "is.false", "is", ("false",), False),
        (PAID, "is.unknown", "is", ("unknown",), False),
        (NAME, "like.*a%b_*", "like", ("%a%b_%",), False),
        (NAME, r"ilike.\*\\", "ilike", ("\\%\\\\",), False),
        (ID, "like.1*", "like", ("1%",), False),
        (NAME, "match.^a*(b|c)\\.$", "match", ("^a*(b|c)\\.$",), False),
        (NAME, "not.imatch.", "imatch", ("",), True),
        (ID, "isdistinct.5", "isdistinct", ("5",), False),
        (NAME, "not.isdistinct.null", "isdistinct", ("null",), True),
    ],
)
def test_conditions(
    *, column: Column, text: str, operator: str, operand: tuple[str, ...], negated: bool
) -> None:
    assert read(column, text) == Condition(column, operator, operand, negated)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (SMALL, ["32767", "-32768", "+1", "0"]),
        (ID, ["2147483647", "-2147483648"]),
        (BIG, [str(2**63 - 1), str(-(2**63)), "0" * 39 + "1"]),
        (OID, ["0", "4294967295", "9" * 60]),
        (PRICE, ["1", "-1.5", "1.", ".5", "+1e-3", "1E300", "NaN", "Infinity", "-inf", "9" * 900]),
        (PAID, ["true", "FALSE", "t", "f", "yes", "no", "on", "off", "1", "0"]),
        (TOKEN, [UUID, UUID.upper(), UUID.replace("-", ""), f"{{{UUID}}}"]),
        (AT, ["now", "2024-02-30", "'", ""]),
        (TAGS, ["{a,b}", "nonsense"]),
        (DOC, ["{}"]),
        (NAME, ["", " ", "'; drop table canary", "\n"]),
    ],
    ids=lambda item: item.name if isinstance(item, Column) else "values",
)
def test_values_that_may_be_of_their_type_are_left_to_the_database(
    column: Column, values: list[str]
) -> None:
    for value in values:
        assert read(column, f"eq.{value}").operand == (value,)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (SMALL, ["32768", "-32769", "", "x", "1.0", "1e3", "0x10", " 1", "1 ", "1_000", "\uff11"]),
        (ID, ["2147483648", "-2147483649", "1;", "1--", "- 1", "--1", "1' or '1'='1"]),
        (BIG, [str(2**63), "9" * 41, "9" * 5000, "NaN"]),
        (OID, ["", "x", "1.5"]),
        (PRICE, ["", ".", "e5", "1e", "1,5", "0x1p3", "infinit", "1 2", "\u0661", "nan()"]),
        (PAID, ["", "2", "null", "truee", " true"]),
        (TOKEN, ["", UUID[:-1], UUID + "0", UUID.replace("6f", "zz"), UUID + "'"]),
    ],
    ids=lambda item: item.name if isinstance(item, Column) else "values",
)
def test_values_that_cannot_be_of_their_type_are_refused(column: Column, values: list[str]) -> None:
    for value in values:
        with pytest.raises(InvalidParameter) as caught:
            read(column, f"eq.{value}")
        name, wrong = column.name, f"{value!r} is not a value of type {column.type}"
        assert caught.value.detail == f"{name}: {wrong} at character 4."
        assert caught.value.members == {"parameter": name, "character": 4, "value": value}


def test_a_list_is_refused_for_one_wrong_value() -> None:
    with pytest.raises(InvalidParameter) as caught:
        read(ID, "in.(1,2,three)")
    assert caught.value.members == {"parameter": "id", "character": 9, "value": "three"}


@pytest.mark.parametrize(
    ("column", "text", "code", "character"),
    [
        (ID, "", "invalid_parameter", 1),
        (ID, "5", "invalid_parameter", 1),
        (ID, "eq", "invalid_parameter", 3),
        (ID, "EQ.5", "invalid_parameter", 1),
        (ID, " eq.5", "invalid_parameter", 1),
        (ID, f"in.({'1,' * 10_000}1)", "invalid_parameter", 20_005),
        (ID, "eq(5)", "invalid_parameter", 3),
        (ID, "not.5", "invalid_parameter", 5),
        (ID, "not.not.eq.5", "invalid_parameter", 5),
        (ID, "not.", "invalid_parameter", 5),
        (ID, "=.5", "invalid_parameter", 1),
        (ID, "in.1,2", "invalid_parameter", 4),
        (ID, "in.(1,2", "invalid_parameter", 8),
        (ID, "in.(1,2))", "invalid_parameter", 9),
        (ID, "in.(1,2) ", "invalid_parameter", 9),
        (NAME, 'in.("a"b)', "invalid_parameter", 8),
        (NAME, 'in.("a', "invalid_parameter", 7),
        (NAME, "in(a)", "invalid_parameter", 3),
        (ID, "is.5", "invalid_parameter", 4),
        (ID, "is.", "invalid_parameter", 4),
        (ID, "is.true", "invalid_parameter", 4),
        (NAME, "is.unknown", "invalid_parameter", 4),
        (NAME, "is.null ", "invalid_parameter", 4),
        (NAME, "like.\\", "invalid_parameter", 6),
        (NAME, "not.ilike.x\\\\\\", "invalid_parameter", 11),
        (TAGS, "cs.{a}", "unsupported", 1),
        (TAGS, "not.ov.{a}", "unsupported", 5),
        (NAME, "fts(english).x", "unsupported", 1),
        (ID, "eq(any).{1,2}", "unsupported", 1),
        (NAME, "not.like(all).{a*,*b}", "unsupported", 5),
        (NAME, "like(some).x", "invalid_parameter", 5),
    ],
)
def test_mistakes_are_told_with_their_place(
    column: Column, text: str, code: str, character: int
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read(column, text)
    assert caught.value.code == code
    assert caught.value.members["parameter"] == column.name
    assert caught.value.members["character"] == character


def test_an_unknown_operator_is_told_with_all_that_there_are() -> None:
    with pytest.raises(InvalidParameter) as caught:
        read(ID, "equals.5")
    assert caught.value.detail == (
        "id: 'equals' is not an operator; there are eq, neq, gt, gte, lt, lte, like, "
        "ilike, match, imatch, in, is, isdistinct; expected one at character 1."
    )


@pytest.mark.parametrize(
    ("column", "text", "sql"),
    [
        (NAME, "eq.x", "public.orders.name = :param_1"),
        (NAME, "not.eq.x", "public.orders.name != :param_1"),
        (NAME, "neq.x", "public.orders.name != :param_1"),
        (ID, "gt.1", "public.orders.id > :param_1"),
        (ID, "gte.1", "public.orders.id >= :param_1"),
        (ID, "lt.1", "public.orders.id < :param_1"),
        (ID, "lte.1", "public.orders.id <= :param_1"),
        (ID, "in.(1,2)", "public.orders.id IN (:param_1, :param_2)"),
        (ID, "not.in.(1)", "NOT (public.orders.id IN (:param_1))"),
        (ID, "in.()", "(1 = 0)"),
        (ID, "not.in.()", "NOT (1 = 0)"),
        (NAME, "like.a*b%_", "public.orders.name LIKE :param_1"),
        (NAME, "not.like.a*", "NOT (public.orders.name LIKE :param_1)"),
        (NAME, "ilike.a*", "public.orders.name ILIKE :param_1"),
        (NAME, "match.^a", "public.orders.name ~ :param_1"),
        (NAME, "imatch.^a", "public.orders.name ~* :param_1"),
        (NAME, "isdistinct.x", "public.orders.name IS DISTINCT FROM :param_1"),
        (NAME, "not.isdistinct.x", "public.orders.name IS NOT DISTINCT FROM :param_1"),
        (NAME, "is.null", "public.orders.name IS NULL"),
        (NAME, "not.is.null", "public.orders.name IS NOT NULL"),
        (NAME, "is.not_null", "public.orders.name IS NOT NULL"),
        (PAID, "is.true", "public.orders.paid IS true"),
        (PAID, "not.is.true", "public.orders.paid IS NOT true"),
        (PAID, "is.false", "public.orders.paid IS false"),
        (PAID, "is.unknown", "public.orders.paid IS NULL"),
        (PAID, "not.is.unknown", "public.orders.paid IS NOT NULL"),
        (HOSTILE[1], "eq.x", 'public.orders."a""b" = :param_1'),
        (HOSTILE[3], "eq.x", "public.orders.price$1 = :param_1"),
        (HOSTILE[4], "eq.x", 'public.orders."$1" = :param_1'),
    ],
)
def test_clauses(column: Column, text: str, sql: str) -> None:
    clause = read(column, text).clause(ORDERS)
    dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy's
    assert str(clause.compile(dialect=dialect)) == sql


def answer(column: Column, text: str) -> Condition | RequestError:
    try:
        return read(column, text)
    except RequestError as error:
        return error


@given(
    st.sampled_from([*KINDS, *HOSTILE]),
    st.sampled_from(["", "not."]),
    st.sampled_from([*OPERATORS]),
    st.text(),
)
def test_any_value_is_kept_whole_or_refused(
    column: Column, negation: str, operator: str, value: str
) -> None:
    condition = answer(column, f"{negation}{operator}.{value}")
    if isinstance(condition, RequestError):
        assert condition.members["parameter"] == column.name
        return
    assert (condition.operator, condition.negated) == (operator, bool(negation))
    if operator not in ("in", "is"):
        assert condition.operand == (value.replace("*", "%") if operator in PATTERNS else value,)
        assert condition.place.parameter == column.name
        assert condition.place.values == (len(f"{negation}{operator}.") + 1,)


@given(st.lists(st.text(), max_size=5))
def test_a_list_of_any_texts_reads_back(values: list[str]) -> None:
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    text = ",".join(f'"{value}"' for value in quoted)
    assert read(NAME, f"in.({text})").operand == tuple(values)


@given(st.text())
def test_any_text_is_a_condition_or_the_callers_mistake(text: str) -> None:
    found = answer(NAME, text)
    named = found.column.name if isinstance(found, Condition) else found.members["parameter"]
    assert named == "name"
