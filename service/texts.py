"""The values of a request inside a SELECT: always texts, always bound, found again by walking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler

TEXT = sa.Text()  # one for all: a type keeps what it worked out for a dialect


def bound(value: str) -> sa.BindParameter[str]:
    """A value of the request: the database gives it the type of what it is compared with."""
    return sa.bindparam(None, value, type_=TEXT, unique=True)


class TextHolder(sa.ColumnElement[Any]):
    """An element with many texts of its own: a bound parameter for each would cost seconds."""

    inherit_cache = False

    def __init__(self, values: tuple[str, ...]) -> None:
        self.values = values

    def self_group(self, against: object = None) -> TextHolder:
        """It brings its own parentheses."""
        del against
        return self


class TextList(TextHolder):
    """The right side of IN."""


@compiles(TextList)
def _text_list(element: TextList, compiler: SQLCompiler, **options: Any) -> str:
    return f"({', '.join(placed(value, compiler, options) for value in element.values)})"


def placed(value: str, compiler: SQLCompiler, options: Mapping[str, Any]) -> str:
    """``value`` as the compiler places texts: a literal where it binds literally."""
    if options.get("literal_binds"):
        return compiler.render_literal_value(value, TEXT)
    return compiler.process(bound(value), **options)


def text_values(statement: sa.Select[Any]) -> list[str]:
    """Every text that ``statement`` binds, once each, in a stable order."""
    found: dict[str, None] = {}
    for element in visitors.iterate(statement):
        if isinstance(element, TextHolder):
            found.update(dict.fromkeys(element.values))
        elif isinstance(element, sa.BindParameter) and isinstance(element.value, str):
            found[element.value] = None
    return list(found)
