"""The rows behind a row, in the total order of a query. Pure.

NULL is neither equal to nor greater than anything, so each case says what it means by IS NULL;
the whole is never negated, and an unknown comparison is one that does not hold.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.dataset import Dataset
from service.dialect import Clause, Expression, Scalar
from service.grammar.cursor import Values
from service.grammar.ordering import Ordering

Compare = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class After:
    """A place in an order: the values of its columns in one row."""

    order: tuple[Ordering, ...]
    values: Values

    def clause(self, dataset: Dataset) -> Clause:
        """Rows strictly behind that row, as SQL over the dataset's reflected columns."""
        return behind(dataset, self.order, self.values)


class Bound:
    """One column of the order beside its value in the row to continue behind."""

    def __init__(self, dataset: Dataset, ordering: Ordering, value: Scalar | None) -> None:
        self.expression: Expression = dataset.expression(ordering.column)
        self.ordering = ordering
        self.null = value is None
        # Without NULLs one comparison says it all.
        self.plain = not self.null and not ordering.column.nullable
        self.value = (
            sa.null() if value is None else dataset.dialect.cursor_bound(ordering.column, value)
        )

    def same(self) -> Clause:
        if self.null:
            return self.expression.is_not_distinct_from(sa.null())
        same: Clause = self.expression == self.value
        return same

    def behind(self) -> Clause | None:
        """Rows whose value comes later; None if there can be none."""
        if self.null:
            nulls_first = self.ordering.nulls_before
            return self.expression.is_distinct_from(sa.null()) if nulls_first else None
        later = self._compared(operator.lt, operator.gt)
        if self.plain or self.ordering.nulls_before:
            return later
        return sa.or_(later, self.expression.is_not_distinct_from(sa.null()))

    def leading(self) -> Clause | None:
        """What holds for every row that does not come earlier, where an index can use it."""
        if self.null:
            return None if self.ordering.nulls_before else self.same()
        if self.plain or self.ordering.nulls_before:
            return self._compared(operator.le, operator.ge)
        return None

    def _compared(self, descending: Compare, ascending: Compare) -> Clause:
        compare = descending if self.ordering.descending else ascending
        made: Clause = compare(self.expression, self.value)
        return made


def behind(dataset: Dataset, order: Sequence[Ordering], values: Values) -> Clause:
    """Rows strictly behind the one that has ``values`` in the columns of ``order``."""
    bounds = [Bound(dataset, *pair) for pair in zip(order, values, strict=True)]
    directions = {ordering.descending for ordering in order}
    if len(directions) == 1 and all(bound.plain for bound in bounds):
        return _compared_as_rows(bounds, descending=directions.pop())
    cases = [
        sa.and_(*(before.same() for before in bounds[:place]), later)
        for place, bound in enumerate(bounds)
        if (later := bound.behind()) is not None
    ]
    leading = bounds[0].leading()
    either = sa.or_(sa.false(), *cases)
    return either if leading is None else sa.and_(leading, either)


def _compared_as_rows(bounds: Sequence[Bound], *, descending: bool) -> Clause:
    compare: Compare = operator.lt if descending else operator.gt
    columns = [bound.expression for bound in bounds]
    values = [bound.value for bound in bounds]
    if len(bounds) == 1:
        made: Clause = compare(columns[0], values[0])
    else:
        made = compare(sa.tuple_(*columns), sa.tuple_(*values))
    return made
