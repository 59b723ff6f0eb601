r"""Values as literals: only what the database itself renders, and nothing that reads otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st

from service.column import Column, Kind
from service.databases.postgresql.projection import project
from service.dataset import ConfiguredQuery
from service.export.cells import TextOptions
from service.export.encode import Rows
from service.export.literals import UnsafeLiteral, checked, read_literal, render
from service.grammar.query import build_select, parse_query
from service.texts import bound, text_values
from tests.datasets import HOSTILE, HOSTILE_NAMES, ID, NAME, dataset

IDENTIFIER = re.compile(r'"(?:[^"]|"")*"')
ATTACK = "' || current_user || '"


def quote_literal(value: str) -> str:
    """quote_literal_internal of PostgreSQL's quote.c: E in front if there is a backslash."""
    inside = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{inside}'" if "\\" in value else f"'{inside}'"


def lexed(literal: str) -> str | None:
    """The value if ``literal`` is one string constant to PostgreSQL's lexer (scan.l), else None.

    A state machine, written apart from the one under test; of the escapes it knows only those
    that quote_literal makes, and takes every other one for a mistake.
    """
    text = literal.removeprefix(" ") if literal.startswith(" E") else literal
    escapes = text.startswith("E")
    text = text.removeprefix("E")
    if not text.startswith("'"):
        return None
    value, at = "", 1
    while at < len(text):
        pair = text[at : at + 2]
        if pair == "''" or (escapes and pair == "\\\\"):
            value, at = value + pair[0], at + 2
        elif text[at] == "'":
            return value if at == len(text) - 1 else None
        elif text[at] == "\\":
            return None
        else:
            value, at = value + text[at], at + 1
    return None


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("''", ""),
        ("'a'", "a"),
        ("''''", "'"),
        ("''''''", "''"),
        ("'it''s'", "it's"),
        ("'a\nb\r\t'", "a\nb\r\t"),
        ("'$1 $$ %s :x -- /* '", "$1 $$ %s :x -- /* "),
        (r"E'\\'", "\\"),
        (r" E'\\'", "\\"),
        (r"E'\\\\'", r"\\"),
        (r"E'\\'''", "\\'"),
        (r"E'''\\'", "'\\"),
        (r"E'\\n'", r"\n"),
        ("E'a'", "a"),
        ("'日本😀'", "日本😀"),
    ],
)
def test_what_the_database_renders_reads_back(literal: str, value: str) -> None:
    assert lexed(literal) == value
    assert read_literal(literal) == value
    assert checked([value], [literal]) == {value: literal}


FORGED = [
    "",
    " ",
    "a",
    "1",
    "NULL",
    "current_user",
    "'",
    "'''",
    "'a",
    "a'",
    "'a'b'",
    "'a''",
    "'a' ",
    " 'a'",
    "\n'a'",
    "'a'\n",
    "'a'\n'b'",
    "'a' 'b'",
    "'a','b'",
    "'a'||'b'",
    "'a' || current_user || 'b'",
    "'a'; drop table canary",
    "'a';",
    "'a'--",
    "'a'/**/",
    "/**/'a'",
    "('a')",
    "'a'::text",
    "'a\\'",
    "'a\\b'",
    "'\\''",
    "'\\'; drop table canary; --'",
    r"E'\''",
    r"E'a\'",
    r"E'\\\'",
    r"E'\' || current_user || '",
    r"E'\'; drop table canary; --'",
    r"E'\n'",
    r"E'\x27'",
    r"E'\047'",
    r"E'\u0027'",
    r"E'\U00000027'",
    "E'",
    "E'a",
    "E",
    "e'a'",
    r"e'\\'",
    "E 'a'",
    "E\n'a'",
    "  E'a'",
    "\tE'a'",
    "E'a' ",
    "EE'a'",
    "E''a'",
    "E'a'E'b'",
    "U&'a'",
    r"U&'\0027'",
    "u&'a'",
    "N'a'",
    "B'1'",
    "X'27'",
    "$$a$$",
    "$1",
    "$t$a$t$",
    '"a"',
    "`a`",
    "\u2019a\u2019",
    "\ufeff'a'",
    "\x00'a'",
]


@pytest.mark.parametrize("literal", FORGED)
def test_what_is_not_one_plain_constant_is_refused(literal: str) -> None:
    with pytest.raises(UnsafeLiteral):
        read_literal(literal)
    with pytest.raises(UnsafeLiteral):
        checked([literal.strip("'")], [literal])


@pytest.mark.parametrize(
    ("values", "rendered"),
    [
        (["a"], ["'b'"]),
        (["a"], ["'a '"]),
        (["a"], ["''"]),
        (["a", "b"], ["'b'", "'a'"]),
        (["a", "b"], ["'a'", "'a'"]),
        (["it's"], ["'it''''s'"]),
        ([r"\n"], ["E'\n'"]),
        (["\n"], [r"E'\\n'"]),
        (["a\x00b"], ["'a\x00b'"]),
        (["a\x00b"], ["'a'"]),
        (["é"], ["'e\u0301'"]),
    ],
)
def test_a_rendering_of_another_value_is_refused(values: list[str], rendered: list[str]) -> None:
    with pytest.raises(UnsafeLiteral):
        checked(values, rendered)


@pytest.mark.parametrize(("values", "rendered"), [(["a"], []), ([], ["'a'"])])
def test_a_rendering_too_few_or_too_many_is_refused(values: list[str], rendered: list[str]) -> None:
    with pytest.raises(ValueError, match="zip"):
        checked(values, rendered)


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
NASTY = st.text(alphabet="'\\E $&Un;x\n", max_size=12)


@given(TEXTS | NASTY)
@example("\\")
@example("'\\'")
def test_any_text_rendered_by_the_database_reads_back(value: str) -> None:
    literal = quote_literal(value)
    assert lexed(literal) == value
    assert read_literal(literal) == value
    assert read_literal(f" {literal}" if literal[0] == "E" else literal) == value


@given(NASTY | NASTY.map(lambda text: f"'{text}'") | NASTY.map(lambda text: f"E'{text}'"))
def test_only_what_the_lexer_reads_as_one_constant_is_accepted(literal: str) -> None:
    try:
        value = read_literal(literal)
    except UnsafeLiteral:
        assert lexed(literal) is None
    else:
        assert lexed(literal) == value


def literals(values: Sequence[str]) -> dict[str, str]:
    return checked(values, [quote_literal(value) for value in values])


def rendered(statement: sa.Select[tuple[object, ...]]) -> str:
    return " ".join(render(statement, literals(text_values(statement))).split())


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("price$1", '"price$1"'),
        ("lateral", '"lateral"'),
        ("plain", '"plain"'),
        ("$1", '"$1"'),
        ('a"b', '"a""b"'),
        ("%s", '"%s"'),
        ("%(name)s", '"%(name)s"'),
        (":name", '":name"'),
        ("back\\slash", '"back\\slash"'),
        (ATTACK, "\"' || current_user || '\""),
        ('"; drop table canary; --', '"""; drop table canary; --"'),
        ("select", '"select"'),
        ("Größe", '"Größe"'),
        ("a.b", '"a.b"'),
    ],
)
def test_identifiers_stay_what_they_are_beside_any_value(name: str, identifier: str) -> None:
    table = sa.table(name, sa.column(name), schema=name)
    value = f"{name} $1 %s :name {ATTACK}"
    column = f"{identifier}.{identifier}.{identifier}"
    assert rendered(sa.select(table.c[name]).where(table.c[name] == bound(value))) == (
        f"SELECT {column} FROM {identifier}.{identifier} WHERE {column} = {quote_literal(value)}"
    )


def test_a_line_feed_at_the_end_of_a_name_is_part_of_it() -> None:
    table = sa.table("t", sa.column("d\n"), sa.column("d"))
    assert render(sa.select(table.c["d\n"]), {}) == 'SELECT "t"."d\n" \nFROM "t"'


def test_a_configured_query_is_placed_as_it_was_written() -> None:
    sql = "select 'costs $1 each %s :x' as \"price$1\", 'a\\' as b, $q$ ' $q$ as c -- :y"
    query = ConfiguredQuery(sql, sa.column("price$1"))
    statement = sa.select(query.c["price$1"]).where(query.c["price$1"] == bound(ATTACK))
    assert render(statement, literals([ATTACK])) == (
        f'SELECT "configured"."price$1" \nFROM ({sql}\n) AS "configured" \n'
        "WHERE \"configured\".\"price$1\" = ''' || current_user || '''"
    )


def test_numbers_are_placed_and_other_values_refused() -> None:
    table = sa.table("t", sa.column("a"))
    assert rendered(sa.select(table.c.a).limit(5).offset(2**63 - 1)).endswith(
        "LIMIT 5 OFFSET 9223372036854775807"
    )
    for value in (1.5, True, b"x"):
        with pytest.raises(UnsafeLiteral):
            render(sa.select(table.c.a).where(table.c.a == sa.literal(value)), {})


def test_a_value_that_was_not_rendered_is_not_placed() -> None:
    table = sa.table("t", sa.column("a"))
    with pytest.raises(KeyError):
        render(sa.select(table.c.a).where(table.c.a == bound("x")), {"y": "'y'"})


def test_every_text_is_found_once() -> None:
    table = sa.table("t", sa.column("a"), sa.column("b"))
    clause = table.c.a.in_([bound("x"), bound("y")]) & (table.c.b == bound("x"))
    inner = sa.select(table.c.a).where(clause).limit(3).subquery("r")
    outer = sa.select(inner.c.a).where(sa.not_(inner.c.a == bound("z")))
    assert sorted(text_values(outer)) == ["x", "y", "z"]


PLAINLY_CHOSEN = ("id", "price$1", "%s", ":name")
ATTACKED = dataset(ID, NAME, *HOSTILE, key=("id",), table='t"$1', schema="s%s")


def lane_text(value: str, label: str, rows: Rows) -> str:
    """The statement of a whole export, with a mark in the place of each literal."""
    alias = label.replace("\\", "\\\\").replace('"', '\\"')
    chosen = ",".join(f'"{name}"' for name in PLAINLY_CHOSEN)
    filters = [(name, f"eq.{value}") for name in HOSTILE_NAMES if name != "select"]
    pairs = [("select", f'"{alias}":name,{chosen}'), *filters]
    query = parse_query(ATTACKED, pairs)
    return blanked(project(build_select(ATTACKED, query), query, TextOptions(rows)))


def blanked(statement: sa.Select[tuple[object, ...]]) -> str:
    """The text of ``statement``, walked over as a lexer would: identifiers stay, literals do not."""
    values = literals(text_values(statement))
    text, found = render(statement, values), sorted(values.values(), key=len, reverse=True)
    made, at = "", 0
    while at < len(text):
        identifier = IDENTIFIER.match(text, at)
        literal = next((item for item in found if text.startswith(item, at)), "")
        step = len(literal) or (len(identifier[0]) if identifier else 1)
        made += "?" if literal else text[at : at + step]
        at += step
    return made


@given(
    TEXTS | NASTY,
    TEXTS.filter(lambda label: label not in ("", *PLAINLY_CHOSEN)),
    st.sampled_from(Rows),
)
@example(ATTACK, ATTACK, Rows.NDJSON)
def test_an_export_differs_from_another_in_its_literals_only(
    value: str, label: str, rows: Rows
) -> None:
    assert lane_text(value, label, rows) == lane_text("v", "label", rows)


@pytest.mark.parametrize("kind", Kind)
def test_no_kind_of_column_brings_text_that_was_not_checked(kind: Kind) -> None:
    found = dataset(Column("a", kind.value, kind), Column("b", kind.value, kind, nullable=False))
    query = parse_query(found, [])
    assert "'" not in blanked(project(build_select(found, query), query, TextOptions(Rows.NDJSON)))
