"""A piece of SQL around one expression, for texts that a database builds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from service.dialect import Expression
from service.texts import TextHolder, placed


class Template(TextHolder):
    """``sql`` with ``{cell}`` and the names of ``texts`` in braces filled in.

    ``sql`` is our own, never a request's. One element in place of a tree of operators, which
    would cost the event loop seconds for the widest rows.
    """

    inherit_cache = False

    def __init__(self, sql: str, cell: Expression, **texts: str) -> None:
        super().__init__(tuple(texts.values()))
        self.sql = sql
        self.cell = cell
        self.texts = texts


@compiles(Template)
def _template(element: Template, compiler: SQLCompiler, **options: Any) -> str:
    inner = {key: value for key, value in options.items() if key == "literal_binds"}
    texts = {name: placed(text, compiler, inner) for name, text in element.texts.items()}
    return element.sql.format(cell=compiler.process(element.cell, **inner), **texts)


def joined(parts: Sequence[str]) -> str:
    """``parts`` in one ``||``, pairwise: as a chain it would copy each byte once for each part."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({joined(parts[:middle])} || {joined(parts[middle:])})"
