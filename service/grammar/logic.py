"""Groups of conditions, ``and=(…)`` and ``or=(…)``, nested; and how much of it one request may ask.

Pure. Source: PostgREST's manual, "Tables and Views", logical operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from service.dataset import Dataset
from service.dialect import Clause
from service.grammar.filters import MAX_VALUES, Condition, parse_condition
from service.grammar.names import Names
from service.grammar.scanner import Scanner

GROUPS = frozenset({"and", "or", "not.and", "not.or"})
NESTED = re.compile(r"(?:not\.)?(?:and|or)(?=\()")
MAX_DEPTH = 16
MAX_CONDITIONS = 300  # in one request: the worst cost the event loop a tenth of a millisecond each


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions and groups joined by ``conjunction``, which is "and" or "or"."""

    conjunction: str
    members: tuple[Condition | Group, ...]
    negated: bool = False

    def clause(self, dataset: Dataset) -> Clause:
        """The group as SQL over the dataset's reflected columns; Unsupported as Condition's."""
        join = sa.and_ if self.conjunction == "and" else sa.or_
        made = join(*(member.clause(dataset) for member in self.members))
        return sa.not_(made) if self.negated else made


Term = Condition | Group


def conditions_of(terms: Iterable[Term]) -> Iterator[Condition]:
    """Every condition of ``terms``, in the order of the text and of the SQL."""
    for term in terms:
        if isinstance(term, Condition):
            yield term
        else:
            yield from conditions_of(term.members)


class FilterReader:
    """Reads the filters of one request, and bounds how many they are together."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._conditions = 0
        self._values = 0

    def read(self, name: str, text: str) -> Term:
        """``column=operator.value`` or ``and=(…)``; raises InvalidParameter with the place."""
        scanner = Scanner(name, text, group=name in GROUPS)
        if not scanner.group:
            column = self._names.parameter(name)
            return self._counted(parse_condition(column, scanner), scanner, 0)
        group = self._group(name, scanner, 1)
        if not scanner.done:
            raise scanner.mistake(f"unexpected {scanner.peek()!r}")
        return group

    def _group(self, name: str, scanner: Scanner, depth: int) -> Group:
        if depth > MAX_DEPTH:
            raise scanner.mistake(f"groups nest at most {MAX_DEPTH} deep; there is one more")
        scanner.expect("(")
        members = [self._term(scanner, depth)]
        while scanner.expect(",", ")") == ",":
            members.append(self._term(scanner, depth))
        return Group(name.removeprefix("not."), tuple(members), name.startswith("not."))

    def _term(self, scanner: Scanner, depth: int) -> Term:
        scanner.spaces()
        nested = NESTED.match(scanner.text, scanner.at)
        if nested:
            scanner.at = nested.end()
            term: Term = self._group(nested[0], scanner, depth + 1)
        else:
            term = self._condition(scanner)
        scanner.spaces()
        return term

    def _condition(self, scanner: Scanner) -> Condition:
        at = scanner.at
        name = scanner.word(".,()")
        if scanner.at == at:
            raise scanner.mistake("expected a condition such as column.eq.value")
        column = self._names.column(scanner, name, at)
        scanner.expect(".")
        return self._counted(parse_condition(column, scanner), scanner, at)

    def _counted(self, condition: Condition, scanner: Scanner, at: int) -> Condition:
        self._conditions += 1
        self._values += len(condition.operand)
        if self._conditions > MAX_CONDITIONS:
            message = f"a request takes at most {MAX_CONDITIONS} conditions; there are more"
            raise scanner.mistake(message, at=at)
        if self._values > MAX_VALUES + MAX_CONDITIONS:
            message = f"the lists of a request take at most {MAX_VALUES} values; there are more"
            raise scanner.mistake(message, at=at)
        return condition
