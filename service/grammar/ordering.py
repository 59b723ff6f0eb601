"""The order of rows: ``order=a.desc.nullslast,b`` → ORDER BY. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from service.column import Column
from service.dataset import Dataset
from service.dialect import Expression
from service.errors import Unsupported
from service.grammar.names import Names
from service.grammar.scanner import Scanner

MAX_ORDER = 32  # columns; what continues behind a row compares each with all in front of it


@dataclass(frozen=True, slots=True)
class Ordering:
    """A column of the order; without a word NULL counts as the largest value."""

    column: Column
    descending: bool = False
    nulls_first: bool | None = None
    character: int = field(default=1, compare=False)

    @property
    def nulls_before(self) -> bool:
        """Whether NULLs come first, said or not."""
        return self.descending if self.nulls_first is None else self.nulls_first

    def reversed(self) -> Ordering:
        """The same column from its other end."""
        nulls_first = None if self.nulls_first is None else not self.nulls_first
        return replace(self, descending=not self.descending, nulls_first=nulls_first)


def parse_order(names: Names, text: str) -> tuple[Ordering, ...]:
    """``a.desc.nullslast,b``; a column may stand only once."""
    scanner = Scanner("order", text)
    order: dict[str, Ordering] = {}
    while True:
        if len(order) == MAX_ORDER:
            raise scanner.mistake(f"order takes at most {MAX_ORDER} columns; there are more")
        at = scanner.at
        column = names.column(scanner, scanner.word(",.("), at)
        if column.name in order:
            raise scanner.mistake(f"{column.name} stands there twice, again", at=at)
        order[column.name] = _ordering(column, scanner, at + 1)
        if scanner.done:
            return tuple(order.values())
        if scanner.peek() == "(":
            raise scanner.mistake("embedding is not offered", kind=Unsupported)
        scanner.expect(",")


def _ordering(column: Column, scanner: Scanner, character: int) -> Ordering:
    descending, nulls_first = False, None
    allowed = ["asc", "desc", "nullsfirst", "nullslast"]
    while scanner.take("."):
        place = scanner.at
        word = scanner.until(",.")
        if word not in allowed:
            offered = f"one of {', '.join(allowed)}" if allowed else "nothing more"
            raise scanner.mistake(f"expected {offered}, found {word!r}", at=place)
        allowed = ["nullsfirst", "nullslast"] if word in ("asc", "desc") else []
        if word in ("asc", "desc"):
            descending = word == "desc"
        else:
            nulls_first = word == "nullsfirst"
    return Ordering(column, descending, nulls_first, character)


def total_order(dataset: Dataset, order: tuple[Ordering, ...]) -> tuple[Ordering, ...]:
    """``order`` followed by what is missing of the key, so that no two rows are equal in it."""
    named = {ordering.column.name for ordering in order}
    rest = (dataset.column(name) for name in dataset.key if name not in named)
    return order + tuple(Ordering(column) for column in rest if column is not None)


def order_by(dataset: Dataset, order: Sequence[Ordering]) -> list[Expression]:
    """The elements of ORDER BY, in the words of the dataset's dialect."""
    return [
        element
        for ordering in order
        for element in dataset.dialect.order(
            dataset.expression(ordering.column),
            nullable=ordering.column.nullable,
            descending=ordering.descending,
            nulls_first=ordering.nulls_first,
        )
    ]
