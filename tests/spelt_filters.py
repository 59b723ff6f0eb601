"""Filters drawn at random: as the grammar spells them, and which rows they keep."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from hypothesis import strategies as st

from tests.attacks import in_grammar
from tests.three_valued import Row, Truth, Value, both, compared, distinct, either, like, negation

VALUES: dict[str, list[Value]] = {
    "n": [None, -2, 0, 1, 7],
    "t": [None, "", "a", "A", "ab", "aB", "b%", "b_x", "a\\b", "x,(y)", "Ä", '"q"', "{a}", "a b"],
    "b": [None, True, False],
    "f": [None, -1.5, 0.0, 2.25, math.nan, math.inf, -math.inf],
    "d": [None, date(1999, 12, 31), date(2024, 2, 29), date(2024, 3, 1)],
}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
EXPRESSIONS = ["", "^a", "b$", "^a.?b", "[xy]", "(a|q)+", "^$", r"\(", "B", "^[^a]*$"]
PATTERNS = [
    "",
    "*",
    "a*",
    "*b",
    "_",
    "a_",
    "*B*",
    r"b\%",
    r"b\*",
    r"*\_*",
    r"a\\b",
    "%,(%",
    "{*",
    '"*',
]
IS: dict[str, Callable[[Value], bool]] = {
    "null": lambda value: value is None,
    "not_null": lambda value: value is not None,
    "true": lambda value: value is True,
    "false": lambda value: value is False,
    "unknown": lambda value: value is None,
}


Keeps = Callable[[Row], Truth]


@dataclass(frozen=True)
class Spelt:
    """A filter as a parameter's value and as a term of a group, and what it keeps."""

    name: str
    value: str
    term: str
    keeps: Keeps


def text_of(value: Value) -> str:
    return str(value).lower() if isinstance(value, (bool, float)) else str(value)


def spelt(
    name: str, operation: str, value: str, keeps: Keeps, *, negated: bool, raw: bool
) -> Spelt:
    """``raw`` values, such as lists, are spelt alike inside groups."""
    head = f"{'not.' if negated else ''}{operation}."
    inside = value if raw else in_grammar(value)
    truth: Keeps = (lambda row: negation(keeps(row))) if negated else keeps
    return Spelt(name, head + value, f"{name}.{head}{inside}", truth)


@st.composite
def conditions(draw: st.DrawFn) -> Spelt:
    name = draw(st.sampled_from([*VALUES]))
    negated = draw(st.booleans())
    values = [value for value in VALUES[name] if value is not None]
    kinds = ["compare", "in", "is", "isdistinct", *(["like", "match"] if name == "t" else [])]
    match draw(st.sampled_from(kinds)):
        case "compare":
            operation, other = draw(st.sampled_from([*COMPARISONS])), draw(st.sampled_from(values))
            truth = compared(COMPARISONS[operation])
            return spelt(
                name, operation, text_of(other), lambda row: truth(row[name], other),
                negated=negated, raw=False,
            )  # fmt: skip
        case "in":
            listed = draw(st.lists(st.sampled_from(values), max_size=3))
            text = ",".join(in_grammar(text_of(value)) for value in listed)
            equal = compared(operator.eq)
            return spelt(
                name, "in", f"({text})",
                lambda row: either(equal(row[name], value) for value in listed),
                negated=negated, raw=True,
            )  # fmt: skip
        case "is":
            words = [*IS] if name == "b" else ["null", "not_null"]
            holds = IS[word := draw(st.sampled_from(words))]
            return spelt(name, "is", word, lambda row: holds(row[name]), negated=negated, raw=True)
        case "isdistinct":
            other = draw(st.sampled_from(values))
            return spelt(
                name, "isdistinct", text_of(other), lambda row: distinct(row[name], other),
                negated=negated, raw=False,
            )  # fmt: skip
        case kind:
            return draw(patterns(kind, negated=negated))


@st.composite
def patterns(draw: st.DrawFn, kind: str, *, negated: bool) -> Spelt:
    insensitive = draw(st.booleans())
    pattern = draw(st.sampled_from(PATTERNS if kind == "like" else EXPRESSIONS))
    if kind == "like":
        matches = like(pattern, insensitive=insensitive).fullmatch
    else:
        matches = re.compile(pattern, re.ASCII | (re.IGNORECASE if insensitive else 0)).search

    def keeps(row: Row) -> Truth:
        text = row["t"]
        return matches(text) is not None if isinstance(text, str) else None

    operation = f"i{kind}" if insensitive else kind
    return spelt("t", operation, pattern, keeps, negated=negated, raw=False)


@st.composite
def groups(draw: st.DrawFn, members: st.SearchStrategy[Spelt]) -> Spelt:
    """``and(…)`` and its like around other filters."""
    inside = draw(st.lists(members, min_size=1, max_size=4))
    conjunction, negated = draw(st.sampled_from(["and", "or"])), draw(st.booleans())
    join = both if conjunction == "and" else either
    name = f"not.{conjunction}" if negated else conjunction
    separator = draw(st.sampled_from([",", ", "]))
    value = f"({separator.join(member.term for member in inside)})"

    def keeps(row: Row) -> Truth:
        truth = join(member.keeps(row) for member in inside)
        return negation(truth) if negated else truth

    return Spelt(name, value, name + value, keeps)


FILTERS = st.lists(
    conditions() | groups(st.recursive(conditions(), groups, max_leaves=10)), max_size=3
)
