"""The columns of an export: ``select=a,b,alias:c``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service.column import Column
from service.errors import Unsupported
from service.grammar.names import Names
from service.grammar.scanner import Scanner

MAX_COLUMNS = 1664  # what PostgreSQL's SELECT takes (MaxTupleAttributeNumber)


@dataclass(frozen=True, slots=True)
class Selected:
    """An output column: ``label`` is its name in the export."""

    column: Column
    label: str


def parse_select(names: Names, text: str) -> tuple[Selected, ...]:
    """``a,b,alias:c`` or ``*``; an output name may stand only once."""
    scanner = Scanner("select", text)
    chosen: dict[str, Selected] = {}
    while True:
        at = scanner.at
        for selected in _selected(names, scanner):
            if selected.label in chosen:
                raise scanner.mistake(f"{selected.label} stands there twice, again", at=at)
            chosen[selected.label] = selected
        if len(chosen) > MAX_COLUMNS:
            raise scanner.mistake(f"more than {MAX_COLUMNS} columns", at=at)
        if scanner.done:
            return tuple(chosen.values())
        scanner.expect(",")


def _selected(names: Names, scanner: Scanner) -> Iterator[Selected]:
    if scanner.take("*"):
        yield from (Selected(column, column.name) for column in names.columns)
        return
    at = scanner.at
    name = label = scanner.word(",:()")
    if scanner.at == at:
        _refuse_call(scanner)
        raise scanner.mistake("expected a column")
    if scanner.peek() == ":" and not scanner.text.startswith("::", scanner.at):
        scanner.expect(":")
        at, name = scanner.at, scanner.word(",:()")
    _refuse_cast(scanner)
    _refuse_call(scanner)
    if name.startswith("..."):
        raise scanner.mistake("spreading (...) is not offered", at=at, kind=Unsupported)
    yield Selected(names.column(scanner, name, at), label)


def _refuse_cast(scanner: Scanner) -> None:
    if scanner.text.startswith("::", scanner.at):
        raise scanner.mistake("casts (::) are not offered", kind=Unsupported)


def _refuse_call(scanner: Scanner) -> None:
    if scanner.peek() == "(":
        aggregate = scanner.text.startswith("()", scanner.at)
        form = "aggregates are" if aggregate else "embedding is"
        raise scanner.mistake(f"{form} not offered", kind=Unsupported)
