"""Groups of conditions: a tree printed and read back is the same tree, and mistakes have a place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.base import PGDialect

from service.column import Column
from service.errors import InvalidParameter, RequestError
from service.grammar.filters import MAX_VALUES, Condition
from service.grammar.logic import MAX_CONDITIONS, MAX_DEPTH, Group, Term
from service.grammar.query import RowsQuery, build_select, parse_query
from tests.datasets import DOC, HOSTILE, ID, NAME, ORDERS, PAID, PRICE, TAGS, dataset


def read(text: str, parameter: str = "and") -> Term:
    (term,) = parse_query(ORDERS, [(parameter, text)]).where
    return term


def member(text: str) -> Term:
    """The one member of a group."""
    group = read(f"({text})")
    assert isinstance(group, Group)
    (found,) = group.members
    return found


ID_1, NAME_X = Condition(ID, "eq", ("1",)), Condition(NAME, "eq", ("x",))


@pytest.mark.parametrize(
    ("parameter", "text", "expected"),
    [
        ("and", "(id.eq.1)", Group("and", (ID_1,))),
        ("or", "(id.eq.1,name.eq.x)", Group("or", (ID_1, NAME_X))),
        ("not.and", "(id.eq.1)", Group("and", (ID_1,), negated=True)),
        ("not.or", "(id.eq.1,id.eq.1)", Group("or", (ID_1, ID_1), negated=True)),
        ("or", "( id.eq.1, name.eq.x)", Group("or", (ID_1, NAME_X))),
        ("or", "(id.eq.1,and(name.eq.x))", Group("or", (ID_1, Group("and", (NAME_X,))))),
        (
            "or",
            "(not.or( id.eq.1) , and( name.eq.x) )",
            Group("or", (Group("or", (ID_1,), negated=True), Group("and", (NAME_X,)))),
        ),
    ],
)
def test_groups(parameter: str, text: str, expected: Group) -> None:
    assert read(text, parameter) == expected


@pytest.mark.parametrize(
    ("text", "column", "operator", "operand", "negated"),
    [
        ("name.eq.", NAME, "eq", ("",), False),
        ("name.eq.a.b", NAME, "eq", ("a.b",), False),
        ("name.eq.f(x", NAME, "eq", ("f(x",), False),
        ('name.eq."a,b)"', NAME, "eq", ("a,b)",), False),
        (r'name.eq."\"\\"', NAME, "eq", ('"\\',), False),
        ('name.eq.a"b', NAME, "eq", ('a"b',), False),
        ("name.not.eq.x", NAME, "eq", ("x",), True),
        ('name.like."*(a,b)*"', NAME, "like", ("%(a,b)%",), False),
        ("name.not.in.(a,b)", NAME, "in", ("a", "b"), True),
        ('name.in.("a,b",c)', NAME, "in", ("a,b", "c"), False),
        ("id.in.()", ID, "in", (), False),
        ("name.is.null", NAME, "is", ("null",), False),
        ("paid.not.is.TRUE", PAID, "is", ("true",), True),
        ("price.isdistinct.1.5", PRICE, "isdistinct", ("1.5",), False),
        ("tags.eq.{a,b}", TAGS, "eq", ("{a,b}",), False),
        ("tags.eq.{}", TAGS, "eq", ("{}",), False),
        (r'tags.eq.{"a}\",",{b,c\}}}', TAGS, "eq", (r'{"a}\",",{b,c\}}}',), False),
        ('doc.eq.{"a":{"b":[1,2]}}', DOC, "eq", ('{"a":{"b":[1,2]}}',), False),
        ('"a.b,c:d(e)".eq.x', HOSTILE[2], "eq", ("x",), False),
        (r'"a\"b".eq.x', HOSTILE[1], "eq", ("x",), False),
        ("a b.eq.x", HOSTILE[0], "eq", ("x",), False),
        ("select.eq.x", HOSTILE[10], "eq", ("x",), False),
    ],
)
def test_conditions_of_a_group(
    *, text: str, column: Column, operator: str, operand: tuple[str, ...], negated: bool
) -> None:
    condition = Condition(column, operator, operand, negated)
    assert member(text) == condition
    assert read(f"({text},id.eq.1)") == Group("and", (condition, ID_1))


def test_a_column_may_be_called_like_a_parameter_or_a_group() -> None:
    names = ("end", "and", "or", "not", "select", "order", "limit", "offset", "after", "header")
    columns = tuple(Column(name, "text") for name in names)
    text = ",".join(f"{name}.eq.x" for name in names)
    (group,) = parse_query(dataset(*columns), [("and", f"({text},not.not.eq.x)")]).where
    assert isinstance(group, Group)
    plain = [Condition(column, "eq", ("x",)) for column in columns]
    assert group.members == (*plain, Condition(columns[3], "eq", ("x",), negated=True))


MISTAKES: list[tuple[str, str, int]] = [
    ("", "invalid_parameter", 1),
    ("id.eq.1", "invalid_parameter", 1),
    ("()", "invalid_parameter", 2),
    ("( )", "invalid_parameter", 3),
    ("(or())", "invalid_parameter", 5),
    ("(id.eq.1", "invalid_parameter", 9),
    ("(id.eq.1,)", "invalid_parameter", 10),
    ("(,id.eq.1)", "invalid_parameter", 2),
    ("(id.eq.1))", "invalid_parameter", 10),
    ("(id.eq.1)x", "invalid_parameter", 10),
    ("(id.eq.1,or(id.eq.2)", "invalid_parameter", 21),
    ("(id)", "invalid_parameter", 4),
    ("(id.eq)", "invalid_parameter", 7),
    ("(id.not.not.eq.1)", "invalid_parameter", 9),
    ("(nothing.eq.1)", "unknown_column", 2),
    ("(id.eq.1,or(name.eq.x,nothing.eq.1))", "unknown_column", 23),
    ("(.eq.1)", "invalid_parameter", 2),
    ('("".eq.1)', "unknown_column", 2),
    ('("id.eq.1)', "invalid_parameter", 11),
    ("(id.eq.x)", "invalid_parameter", 8),
    ("(id.eq.1 )", "invalid_parameter", 8),
    ("(id.in.(1,x))", "invalid_parameter", 11),
    ('(name.eq."a"b)', "invalid_parameter", 13),
    ('(name.eq."a)', "invalid_parameter", 13),
    ("(tags.eq.{a,b)", "invalid_parameter", 15),
    ("(tags.eq.{a}b)", "invalid_parameter", 13),
    ("(paid.is.maybe)", "invalid_parameter", 10),
    ("(doc->a.eq.1)", "unsupported", 5),
    ("(doc->>a.eq.1)", "unsupported", 5),
    ("(id::text.eq.1)", "unsupported", 4),
    ("(name.fts.x)", "unsupported", 7),
    ("(name.fts(english).x)", "unsupported", 7),
    ("(tags.not.cs.{a})", "unsupported", 11),
    ("(id.eq(any).{1})", "unsupported", 5),
    ("(not.id.eq.1)", "unknown_column", 2),
]


@pytest.mark.parametrize(("text", "code", "character"), MISTAKES)
def test_mistakes_are_told_with_their_place(text: str, code: str, character: int) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read(text, "or")
    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.members["parameter"] == "or"
    assert caught.value.members["character"] == character
    assert caught.value.detail.endswith(f" at character {character}.")


def test_conditions_know_where_they_stand() -> None:
    text = '(id.in.(1,"2"),or(name.not.like.x*))'
    first, second = parse_query(ORDERS, [("not.and", text)]).conditions()
    assert first.place.parameter == second.place.parameter == "not.and"
    assert (first.place.operator, first.place.values) == (5, (9, 11))
    assert text[second.place.operator - 1 :].startswith("like")
    assert [text[place - 1 :] for place in second.place.values] == ["x*))"]


def nested(depth: int) -> str:
    return "(" + "id.eq.1,not.or(" * (depth - 1) + "id.eq.1" + ")" * depth


def test_groups_nest_to_a_bounded_depth() -> None:
    found = parse_query(ORDERS, [("and", nested(MAX_DEPTH))])
    assert compiled(found).count("= :") == MAX_DEPTH
    for depth in (MAX_DEPTH + 1, MAX_DEPTH * 1000):
        with pytest.raises(InvalidParameter, match="at most 16 deep") as caught:
            read(nested(depth))
        assert caught.value.members["character"] == 1 + len("id.eq.1,not.or(") * MAX_DEPTH


def test_a_request_has_a_bounded_number_of_conditions() -> None:
    half = ",".join(["id.eq.1"] * (MAX_CONDITIONS // 2))
    pairs = [("or", f"({half})"), ("and", f"({half})")]
    assert compiled(parse_query(ORDERS, pairs)).count("= :") == MAX_CONDITIONS
    for more in (("id", "eq.1"), ("or", "(id.eq.1)")):
        with pytest.raises(InvalidParameter, match=f"at most {MAX_CONDITIONS} conditions"):
            parse_query(ORDERS, [*pairs, more])


def test_the_lists_of_a_request_have_a_bounded_number_of_values() -> None:
    half = ",".join(["1"] * (MAX_VALUES // 2))
    pairs = [("id", f"in.({half})"), ("and", f"(id.not.in.({half}))")]
    found = parse_query(ORDERS, pairs)
    assert sum(len(condition.operand) for condition in found.conditions()) == MAX_VALUES
    with pytest.raises(InvalidParameter, match=f"at most {MAX_VALUES} values") as caught:
        parse_query(ORDERS, [*pairs, ("id", f"in.({half})")])
    assert caught.value.members["parameter"] == "id"


def compiled(query: RowsQuery) -> str:
    dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy's
    return str(build_select(ORDERS, query).compile(dialect=dialect))


def test_the_sql_of_groups() -> None:
    pairs = [
        ("or", "(id.eq.1,and(id.gt.2,name.not.like.a*))"),
        ("not.or", "(id.in.(),paid.is.true)"),
    ]
    assert " ".join(compiled(parse_query(ORDERS, [("select", "id"), *pairs])).split()) == (
        "SELECT public.orders.id AS c0 FROM public.orders "
        "WHERE (public.orders.id = :param_1 OR public.orders.id > :param_2 "
        "AND NOT (public.orders.name LIKE :param_3)) "
        "AND NOT ((1 = 0) OR public.orders.paid IS true)"
    )


# Trees with their spelling: what the documentation tells callers to write.
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
INTEGERS = st.integers(-(2**31), 2**31 - 1).map(str)
BARE = st.text("abc *%_.(:\\'é", max_size=5)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def conditions(draw: st.DrawFn) -> tuple[Condition, str]:
    column = draw(st.sampled_from([ID, NAME, TAGS, PAID, *HOSTILE]))
    negated = draw(st.booleans())
    named = draw(st.booleans()) or column in HOSTILE
    head = (quoted(column.name) if named else column.name) + (".not" if negated else "")
    if column is PAID:
        word = draw(st.sampled_from(["null", "not_null", "true", "false", "unknown"]))
        return Condition(column, "is", (word,), negated), f"{head}.is.{word}"
    values = INTEGERS if column is ID else TEXTS
    operator = draw(
        st.sampled_from(["eq", "neq", "gt", "lte", "isdistinct", "in", "bare", "array"])
    )
    if operator == "in":
        operand = tuple(draw(st.lists(values, max_size=3)))
        return (
            Condition(column, "in", operand, negated),
            f"{head}.in.({','.join(map(quoted, operand))})",
        )
    if operator == "array" and column is not ID:
        value = "{" + ",".join(quoted(text) for text in draw(st.lists(TEXTS, max_size=3))) + "}"
        return Condition(column, "eq", (value,), negated), f"{head}.eq.{value}"
    if operator in ("bare", "array"):
        value = draw(INTEGERS if column is ID else BARE)
        return Condition(column, "gte", (value,), negated), f"{head}.gte.{value}"
    value = draw(values)
    return Condition(column, operator, (value,), negated), f"{head}.{operator}.{quoted(value)}"


def groups(members: st.SearchStrategy[tuple[Term, str]]) -> st.SearchStrategy[tuple[Term, str]]:
    def joined(conjunction: str, negated: bool, inside: list[tuple[Term, str]]) -> tuple[Term, str]:  # noqa: FBT001 - hypothesis builds it
        head = ("not." if negated else "") + conjunction
        group = Group(conjunction, tuple(term for term, _ in inside), negated)
        return group, f"{head}({','.join(text for _, text in inside)})"

    return st.builds(
        joined,
        st.sampled_from(["and", "or"]),
        st.booleans(),
        st.lists(members, min_size=1, max_size=4),
    )


TREES = groups(st.recursive(conditions(), groups, max_leaves=12))


def as_pair(text: str) -> tuple[str, str]:
    """``not.or(…)`` as a parameter."""
    name, _, inside = text.partition("(")
    return name, f"({inside}"


@given(TREES)
def test_a_tree_that_is_printed_reads_back(tree: tuple[Term, str]) -> None:
    term, text = tree
    assert parse_query(ORDERS, [as_pair(text)]).where == (term,)


@given(TREES, st.data())
def test_every_beginning_of_a_group_parses_or_names_a_character_in_it(
    tree: tuple[Term, str], data: st.DataObject
) -> None:
    name, text = as_pair(tree[1])
    beginning = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(RequestError) as caught:
        parse_query(ORDERS, [(name, beginning)])
    assert caught.value.members["parameter"] == name
    assert 1 <= caught.value.members["character"] <= len(beginning) + 1


@given(st.sampled_from(["and", "or", "not.and"]), st.text('id.eqn,()"{}\\ notrI', max_size=30))
def test_any_text_is_a_group_or_the_callers_mistake(name: str, text: str) -> None:
    try:
        (group,) = parse_query(ORDERS, [(name, text)]).where
    except RequestError as error:
        assert error.members["parameter"] == name  # noqa: PT017 - most texts are mistakes
        assert 1 <= error.members["character"] <= len(text) + 1  # noqa: PT017 - as above
    else:
        assert isinstance(group, Group)
        assert group.members
