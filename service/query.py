"""The read grammar of the query string, and the SELECT that it means. Pure.

``select=a,b,alias:c``, filters ``column=operator.value``, ``order=a.desc.nullslast,b``,
``limit`` and ``offset``, as PostgREST spells them (its manual, "Tables and Views").
Names select reflected columns and values become bound parameters: neither is ever SQL text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from service.column import Column
from service.dataset import Dataset
from service.errors import InvalidParameter, UnknownColumn, Unsupported
from service.filters import Condition, parse_condition
from service.scanner import Scanner

GRAMMAR = frozenset({"select", "order", "limit", "offset"})
LATER = frozenset({"and", "or", "not.and", "not.or", "after"})
MAX_ROWS = 2**63 - 1  # what PostgreSQL's LIMIT takes
MAX_COLUMNS = 1664  # what PostgreSQL's SELECT takes (MaxTupleAttributeNumber)
MAX_DIGITS = len(str(MAX_ROWS))


@dataclass(frozen=True, slots=True)
class Selected:
    """An output column: ``label`` is its name in the export."""

    column: Column
    label: str


@dataclass(frozen=True, slots=True)
class Ordering:
    column: Column
    descending: bool = False
    nulls_first: bool | None = None


@dataclass(frozen=True, slots=True)
class RowsQuery:
    """Which rows and columns of a dataset, in which order."""

    select: tuple[Selected, ...]
    where: tuple[Condition, ...] = ()
    order: tuple[Ordering, ...] = ()
    limit: int | None = None
    offset: int | None = None
    ordered: bool = field(default=False)

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(selected.column for selected in self.select)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(selected.label for selected in self.select)


def parse_query(dataset: Dataset, parameters: Iterable[tuple[str, str]]) -> RowsQuery:
    """Read ``parameters`` (name, decoded value) against ``dataset``.

    Raises InvalidParameter, UnknownColumn or Unsupported, each naming the parameter.
    """
    own: dict[str, str] = {}
    where: list[Condition] = []
    for name, text in parameters:
        if "\x00" in name or "\x00" in text:
            parameter = name.replace("\x00", "")
            raise InvalidParameter(parameter, f"{parameter}: NUL characters cannot be asked for.")
        if name in LATER:
            raise Unsupported(name, f"{name} is not offered.")
        if name not in GRAMMAR:
            where.append(parse_condition(_column(dataset, name, name), Scanner(name, text)))
        elif name in own:
            raise InvalidParameter(name, f"{name} is given more than once.")
        else:
            own[name] = text
    order = parse_order(dataset, own["order"]) if "order" in own else ()
    limit, offset = (_count(name, own.get(name)) for name in ("limit", "offset"))
    ordered = bool(own.keys() & {"order", "limit", "offset"})
    return RowsQuery(
        select=parse_select(dataset, own.get("select", "*")),
        where=tuple(where),
        order=_total(dataset, order) if ordered else (),
        limit=limit,
        offset=offset,
        ordered=ordered,
    )


def parse_select(dataset: Dataset, text: str) -> tuple[Selected, ...]:
    """``a,b,alias:c`` or ``*``; an output name may stand only once."""
    scanner = Scanner("select", text)
    chosen: dict[str, Selected] = {}
    while True:
        for selected in _selected(dataset, scanner):
            if selected.label in chosen:
                raise InvalidParameter("select", f"select: {selected.label} stands there twice.")
            chosen[selected.label] = selected
        if len(chosen) > MAX_COLUMNS:
            raise InvalidParameter("select", f"select: more than {MAX_COLUMNS} columns.")
        if scanner.done:
            return tuple(chosen.values())
        scanner.expect(",")


def _selected(dataset: Dataset, scanner: Scanner) -> list[Selected]:
    if scanner.take("*"):
        return [Selected(column, column.name) for column in dataset.columns]
    name = label = scanner.word(",:()->")
    if scanner.peek() == ":" and not scanner.text.startswith("::", scanner.at):
        scanner.expect(":")
        name = scanner.word(",:()->")
    if scanner.peek() in ("(", ":", "-") and not scanner.done:
        raise Unsupported(
            "select", "select: casts, json paths, aggregates and embedding are not offered."
        )
    if not label:
        raise scanner.mistake("expected a column")
    return [Selected(_column(dataset, name, "select"), label)]


def parse_order(dataset: Dataset, text: str) -> tuple[Ordering, ...]:
    """``a.desc.nullslast,b``."""
    scanner = Scanner("order", text)
    order: list[Ordering] = []
    seen: set[str] = set()
    while True:
        column = _column(dataset, scanner.word(",."), "order")
        if column.name in seen:
            raise InvalidParameter("order", f"order: {column.name} stands there twice.")
        seen.add(column.name)
        order.append(_ordering(column, scanner))
        if scanner.done:
            return tuple(order)
        scanner.expect(",")


def _ordering(column: Column, scanner: Scanner) -> Ordering:
    descending, nulls_first = False, None
    allowed = ["asc", "desc", "nullsfirst", "nullslast"]
    while scanner.take("."):
        place = scanner.at
        word = scanner.until(",.")
        if word not in allowed:
            scanner.at = place
            offered = f"one of {', '.join(allowed)}" if allowed else "nothing more"
            raise scanner.mistake(f"expected {offered}, found {word!r}")
        allowed = ["nullsfirst", "nullslast"] if word in ("asc", "desc") else []
        if word in ("asc", "desc"):
            descending = word == "desc"
        else:
            nulls_first = word == "nullsfirst"
    return Ordering(column, descending, nulls_first)


def _total(dataset: Dataset, order: tuple[Ordering, ...]) -> tuple[Ordering, ...]:
    """``order`` followed by what is missing of the key, so that no two rows are equal in it."""
    named = {ordering.column.name for ordering in order}
    rest = (dataset.column(name) for name in dataset.key if name not in named)
    return order + tuple(Ordering(column) for column in rest if column is not None)


def _column(dataset: Dataset, name: str, parameter: str) -> Column:
    column = dataset.column(name)
    if column is None:
        offered = ", ".join(column.name for column in dataset.columns)
        raise UnknownColumn(
            parameter,
            f"{parameter}: {dataset.name} has no column {name!r}; it has {offered}.",
            column=name,
        )
    return column


def _count(parameter: str, text: str | None) -> int | None:
    if text is None:
        return None
    plain = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not plain or int(text) > MAX_ROWS:
        raise InvalidParameter(parameter, f"{parameter}: {text!r} is not a whole number of rows.")
    return int(text)


def build_select(dataset: Dataset, query: RowsQuery) -> sa.Select[Any]:
    """The SELECT over reflected columns that ``query`` means; its values are bound parameters.

    Output columns are ``c0``, ``c1``, …: labels are the caller's text, and as identifiers the
    database would cut them at 63 bytes.
    """
    chosen = (
        dataset.expression(item.column).label(f"c{place}")
        for place, item in enumerate(query.select)
    )
    statement = sa.select(*chosen).select_from(dataset.relation)
    for condition in query.where:
        statement = statement.where(condition.clause(dataset))
    statement = statement.order_by(*(_order_clause(dataset, item) for item in query.order))
    return statement.limit(query.limit).offset(query.offset)


def _order_clause(dataset: Dataset, ordering: Ordering) -> sa.ColumnElement[Any]:
    column = dataset.expression(ordering.column)
    clause = column.desc() if ordering.descending else column.asc()
    match ordering.nulls_first:
        case True:
            return clause.nulls_first()
        case False:
            return clause.nulls_last()
        case None:
            return clause
