"""The read grammar of the query string, and the SELECT that it means. Pure.

``select=a,b,alias:c``, filters ``column=operator.value``, groups ``or=(…)``,
``order=a.desc.nullslast,b``, ``limit`` and ``offset``, as PostgREST spells them (its manual,
"Tables and Views"), and ``after=<cursor>``. Names select reflected columns and values become
bound parameters: neither is ever SQL text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from service.column import Column
from service.dataset import Dataset
from service.errors import Unsupported
from service.grammar.cursor import PARAMETER as AFTER
from service.grammar.cursor import Cursors, digest_of
from service.grammar.filters import Condition
from service.grammar.keyset import After
from service.grammar.logic import GROUPS, FilterReader, Term, conditions_of
from service.grammar.names import Names
from service.grammar.ordering import Ordering, order_by, parse_order, total_order
from service.grammar.scanner import mistake
from service.grammar.selection import Selected, parse_select

ORDERED = frozenset({"order", "limit", "offset", AFTER})
OWN = ORDERED | {"select"}
GRAMMAR = OWN | GROUPS
MAX_ROWS = 2**63 - 1  # what PostgreSQL's LIMIT takes
DIGITS = re.compile(r"[0-9]*")


@dataclass(frozen=True, slots=True)
class RowsQuery:
    """Which rows and columns of a dataset, in which order.

    ``after`` is the row to continue behind, and ``continuable`` tells whether a cursor can say
    where these rows end.
    """

    select: tuple[Selected, ...]
    where: tuple[Term, ...] = ()
    order: tuple[Ordering, ...] = ()
    limit: int | None = None
    offset: int | None = None
    ordered: bool = field(default=False)
    after: After | None = None
    continuable: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(selected.column for selected in self.select)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(selected.label for selected in self.select)

    @property
    def digest(self) -> str:
        """Of filter and order, which a cursor is tied to."""
        return digest_of(self.where, self.order)

    def conditions(self) -> Iterator[Condition]:
        """Every condition, those inside groups included, in the order of the SQL."""
        return conditions_of(self.where)


def parse_query(
    dataset: Dataset, parameters: Iterable[tuple[str, str]], *, cursors: Cursors | None = None
) -> RowsQuery:
    """Read ``parameters`` (name, decoded value) against ``dataset``.

    Raises InvalidParameter, UnknownColumn or Unsupported, each naming the parameter and the
    character. Without ``cursors`` there is no ``after``.
    """
    names = Names(dataset)
    filters = FilterReader(names)
    own: dict[str, str] = {}
    where: list[Term] = []
    for name, text in parameters:
        _refuse_nul(name, text)
        if name not in OWN:
            where.append(filters.read(name, text))
        elif name in own:
            raise mistake(name, "this is given more than once, again", 1)
        else:
            own[name] = text
    select = parse_select(names, own.get("select", "*"))
    ordered = bool(own.keys() & ORDERED)
    order = parse_order(names, own["order"]) if "order" in own else ()
    order = total_order(dataset, order) if ordered else ()
    return RowsQuery(
        select=select,
        where=tuple(where),
        order=order,
        limit=_count("limit", own.get("limit")),
        offset=_count("offset", own.get("offset")),
        ordered=ordered,
        after=_after(dataset, own[AFTER], where, order, cursors) if AFTER in own else None,
        continuable=ordered and bool(dataset.key),
    )


def _refuse_nul(name: str, text: str) -> None:
    for place in (text.find("\x00"), 0 if "\x00" in name else -1):
        if place >= 0:
            parameter = name.replace("\x00", "")
            raise mistake(parameter, "NUL characters cannot be asked for", place + 1)


def _after(
    dataset: Dataset,
    text: str,
    where: Iterable[Term],
    order: tuple[Ordering, ...],
    cursors: Cursors | None,
) -> After:
    if not dataset.key:
        raise mistake(AFTER, f"{dataset.name} has no key, so nothing can be continued", 1)
    if cursors is None:
        raise mistake(AFTER, "cursors are not offered", 1, kind=Unsupported)
    values = cursors.read(text, dataset.name, digest_of(where, order), len(order))
    return After(order, values)


def _count(parameter: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = DIGITS.match(text)
    digits = found[0] if found else ""
    if digits == text != "" and len(text) <= len(str(MAX_ROWS)) and int(text) <= MAX_ROWS:
        return int(text)
    character = len(digits) + 1 if digits != text else 1
    raise mistake(parameter, f"{text!r} is not a whole number of rows", character)


def build_select(dataset: Dataset, query: RowsQuery) -> sa.Select[Any]:
    """The SELECT over reflected columns that ``query`` means; its values are bound parameters.

    Output columns are ``c0``, ``c1``, …: labels are the caller's text, and as identifiers the
    database would cut them at 63 bytes.
    """
    statement = _filtered(dataset, query, query.columns)
    statement = statement.order_by(*order_by(dataset, query.order))
    return statement.limit(query.limit).offset(query.offset)


def build_last(dataset: Dataset, query: RowsQuery, rows: int) -> sa.Select[Any]:
    """The SELECT for the values that a cursor behind the last row of ``query`` holds.

    ``rows`` is how many there were in the same snapshot, at least one; the result is one row
    with one value for each column of the order.
    """
    order, offset = query.order, (query.offset or 0) + rows - 1
    if query.limit is None or rows < query.limit:
        order, offset = tuple(item.reversed() for item in order), 0
    columns = tuple(item.column for item in query.order)
    statement = _filtered(dataset, query, columns).order_by(*order_by(dataset, order))
    # Inside a subquery only the one row is turned into what a cursor holds.
    last = statement.limit(1).offset(offset or None).subquery("r")
    value = dataset.dialect.cursor_value
    return sa.select(*(value(column, cell) for column, cell in zip(columns, last.c, strict=True)))


def _filtered(dataset: Dataset, query: RowsQuery, columns: tuple[Column, ...]) -> sa.Select[Any]:
    chosen = (dataset.expression(column).label(f"c{place}") for place, column in enumerate(columns))
    terms = query.where if query.after is None else (query.after, *query.where)
    clauses = (term.clause(dataset) for term in terms)
    return sa.select(*chosen).select_from(dataset.relation).where(*clauses)
