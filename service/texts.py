"""The values of a request inside a SELECT: always texts, always bound, found again by walking."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler


def bound(value: str) -> sa.BindParameter[str]:
    """A value of the request: the database gives it the type of what it is compared with."""
    return sa.bindparam(None, value, type_=sa.Text(), unique=True)


class TextList(sa.ColumnElement[Any]):
    """The right side of IN as one element: thousands of bound parameters cost seconds."""

    inherit_cache = False

    def __init__(self, values: tuple[str, ...]) -> None:
        self.values = values

    def self_group(self, against: object = None) -> TextList:
        """It brings its own parentheses."""
        del against
        return self


@compiles(TextList)
def _text_list(element: TextList, compiler: SQLCompiler, **options: Any) -> str:
    if options.get("literal_binds"):
        made = (compiler.render_literal_value(value, sa.Text()) for value in element.values)
    else:
        made = (compiler.process(bound(value), **options) for value in element.values)
    return f"({', '.join(made)})"


def text_values(statement: sa.Select[Any]) -> list[str]:
    """Every text that ``statement`` binds, once each, in a stable order."""
    found: dict[str, None] = {}
    for element in visitors.iterate(statement):
        if isinstance(element, TextList):
            found.update(dict.fromkeys(element.values))
        elif isinstance(element, sa.BindParameter) and isinstance(element.value, str):
            found[element.value] = None
    return list(found)
