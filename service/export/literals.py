r"""A SELECT as text without placeholders, for statements that take none, such as COPY. Pure.

The values of a request never become SQL by our own quoting: the database renders each with
``quote_literal``, ``checked`` reads the rendering back as the lexer would and refuses what does
not give the value again, and the compiler only places it. A driver's placeholder substitution
over the whole text is never used: it would also hit ``$1`` inside literals and identifiers.

Source: PostgreSQL's manual, "Lexical Structure", string constants and C-style escapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDialect

from service.errors import TailraceError

PLAIN = re.compile(r"'(?:[^'\\]|'')*'", re.DOTALL)
ESCAPED = re.compile(r" ?E'(?:[^'\\]|''|\\\\)*'", re.DOTALL)
NUL = "\x00"
# No name may stand without quotes: SQLAlchemy leaves out those of a name with a line feed at its
# end, and does not know every word that is reserved.
NO_NAME = re.compile(r"(?!)")


class UnsafeLiteral(TailraceError):
    """A rendering that does not read back as the value it was made from."""

    code = "unsafe_literal"
    title = "A value could not be bound safely"


def read_literal(literal: str) -> str:
    """The value of one string constant, or UnsafeLiteral if it is anything else."""
    if PLAIN.fullmatch(literal):
        return literal[1:-1].replace("''", "'")
    if ESCAPED.fullmatch(literal):
        inside = literal[literal.index("'") + 1 : -1]
        return inside.replace("''", "'").replace("\\\\", "\\")
    raise UnsafeLiteral("The database rendered a value as something that is not one literal.")


def checked(values: Sequence[str], rendered: Sequence[str]) -> dict[str, str]:
    """``rendered`` by value, each verified to be one string constant of exactly that value."""
    for value, literal in zip(values, rendered, strict=True):
        if NUL in value or read_literal(literal) != value:
            raise UnsafeLiteral("The database rendered a value as another one.")
    return dict(zip(values, rendered, strict=True))


@dataclass(frozen=True, slots=True)
class Rendering:
    """A statement as text in pieces: between two of them belongs the value of that place."""

    pieces: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Every value, once each."""
        return tuple(dict.fromkeys(self.places))

    def filled(self, literals: Mapping[str, str]) -> str:
        """The statement with its values as ``literals`` has them.

        Raises KeyError for a value that was not rendered.
        """
        values = (literals[place] for place in self.places)
        return "".join(chain(*zip(self.pieces, chain(values, [""]), strict=True)))


def rendering(statement: sa.Select[Any]) -> Rendering:
    """``statement`` compiled once, before its values have been rendered.

    Raises UnsafeLiteral for a value that is neither text nor a whole number.
    """
    dialect = _MarkingDialect()
    text = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    pieces = text.split(NUL)
    return Rendering(tuple(pieces[::2]), tuple(dialect.marked[int(n)] for n in pieces[1::2]))


def render(statement: sa.Select[Any], literals: Mapping[str, str]) -> str:
    """``statement`` as text, each bound text replaced by its literal from ``literals``."""
    return rendering(statement).filled(literals)


class _MarkingCompiler(PGCompiler):
    dialect: _MarkingDialect

    def render_literal_value(self, value: Any, type_: Any) -> str:
        del type_
        if isinstance(value, str):
            # No SQL text can hold the mark: PostgreSQL has no NUL.
            return f"{NUL}{self.dialect.place(value)}{NUL}"
        if type(value) is int:
            return str(value)
        raise UnsafeLiteral(f"A value of type {type(value).__name__} cannot be placed.")


class _MarkingDialect(PGDialect):
    statement_compiler = _MarkingCompiler
    supports_statement_cache = False
    # "named" does not double the percent signs of identifiers, as "pyformat" does.
    default_paramstyle = "named"

    def __init__(self) -> None:
        super().__init__(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy's gap
        self.identifier_preparer.legal_characters = NO_NAME
        self.marked: list[str] = []

    def place(self, value: str) -> int:
        self.marked.append(value)
        return len(self.marked) - 1
