"""A statement that is text already: nothing in it is read as a placeholder."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler


class Verbatim(sa.Executable, sa.ClauseElement):
    """``text()`` would take ``:name`` inside of a literal for a parameter."""

    inherit_cache = False

    def __init__(self, sql: str) -> None:
        self.sql = sql


@compiles(Verbatim)
def _verbatim(element: Verbatim, compiler: SQLCompiler, **_: Any) -> str:
    del compiler
    return element.sql
