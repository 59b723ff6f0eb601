"""Tables of any column types with any values, and what comes back of their exports."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
from hypothesis import strategies as st

from tests.column_types import ColumnType

COPY_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
NUMBER = itertools.count(1)
Row = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class TypedTable:
    """Columns with their names, and rows of texts that their input functions take."""

    names: tuple[str, ...]
    types: tuple[ColumnType, ...]
    rows: tuple[Row, ...]

    @property
    def definition(self) -> str:
        columns = [
            f"{identifier(name)} {found.spelled}"
            for name, found in zip(self.names, self.types, strict=True)
        ]
        return ", ".join(["id int PRIMARY KEY", *columns])


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _fits(name: str) -> bool:
    return 0 < len(name.encode()) <= 63 and name != "id"


# The members that json_populate_record reads.
FIELDS = """
    (SELECT json_object_agg(key, value) FROM json_each(line::json) WHERE key <> ALL($2::text[]))
"""
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
).filter(_fits)


@st.composite
def tables(draw: st.DrawFn, types: Sequence[ColumnType], most: int = 6) -> TypedTable:
    """Up to ``most`` columns of ``types`` and as many rows, NULLs among them."""
    chosen = tuple(draw(st.lists(st.sampled_from(types), min_size=1, max_size=most)))
    names = draw(
        st.lists(NAMES, min_size=len(chosen), max_size=len(chosen), unique_by=str.casefold)
    )
    cells = [st.none() | found.values for found in chosen]
    return TypedTable(tuple(names), chosen, tuple(draw(st.lists(st.tuples(*cells), max_size=most))))


async def create(connection: asyncpg.Connection, table: TypedTable) -> str:
    """Make ``table`` in place of the one before; each value goes through its type's input.

    It gives the table's name, a new one each time.
    """
    number = next(NUMBER)
    name = f"given{number}"
    await connection.execute(f"DROP TABLE IF EXISTS given{number - 1}, given{number - 1}_texts")
    await connection.execute(f"CREATE TABLE {name} ({table.definition})")
    lines = ("\t".join([str(key), *map(_cell, row)]) for key, row in enumerate(table.rows))
    file = io.BytesIO("".join(f"{line}\n" for line in lines).encode())
    await connection.copy_to_table(name, source=file, format="text")
    return name


def _cell(text: str | None) -> str:
    return r"\N" if text is None else text.translate(COPY_ESCAPES)


async def load(connection: asyncpg.Connection, name: str, file: bytes) -> None:
    """COPY a CSV file with a header into a table, as a user of PostgreSQL would."""
    await connection.copy_to_table(name, source=io.BytesIO(file), format="csv", header=True)


async def texts(connection: asyncpg.Connection, name: str, table: TypedTable) -> str:
    """Make a table of the texts that PostgreSQL prints for those of ``name``; its name."""
    shown = [
        f"{_text(identifier(column), found.spelled)} AS {identifier(column)}"
        for column, found in zip(table.names, table.types, strict=True)
    ]
    await connection.execute(
        f"CREATE TABLE {name}_texts AS SELECT {', '.join(['id::text', *shown])} FROM {name}"
    )
    return f"{name}_texts"


def _text(value: str, spelled: str) -> str:
    if spelled in {"boolean", "yes"}:
        return f"{value}::text"
    # A cast is not always what the output function prints, and IS NOT NULL asks the members.
    return f"CASE WHEN {value} IS DISTINCT FROM NULL THEN format('%s', {value}) END"


async def from_csv(connection: asyncpg.Connection, name: str, file: bytes) -> list[asyncpg.Record]:
    """What differs after COPY has read ``file`` into a table like ``name``."""
    await _empty(connection, "back", name)
    await load(connection, "back", file)
    return await _changed(connection, name)


async def from_ndjson(
    connection: asyncpg.Connection, name: str, table: TypedTable, file: bytes
) -> list[asyncpg.Record]:
    """What differs, other than what JSON is known to lose, after PostgreSQL has read ``file``."""
    await _empty(connection, "kept", name)
    await _empty(connection, "back", name)
    columns = list(zip(table.names, table.types, strict=True))
    kept = [found.kept.format(value=identifier(column)) for column, found in columns]
    await connection.execute(f"INSERT INTO kept SELECT {', '.join(['id', *kept])} FROM {name}")
    members = ", ".join(["(filled).id", *(_member(column, found) for column, found in columns)])
    await connection.execute(
        f"""
        INSERT INTO back SELECT {members}
        FROM (SELECT line, json_populate_record(NULL::back, {FIELDS}) AS filled
              FROM unnest($1::text[]) AS lines (line)) AS read
        """,
        [line.decode() for line in file.split(b"\n")[:-1]],
        [column for column, found in columns if found.from_json],
    )
    return await _changed(connection, "kept")


async def _empty(connection: asyncpg.Connection, name: str, like: str) -> None:
    await connection.execute(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (LIKE {like})")


async def _changed(connection: asyncpg.Connection, name: str) -> list[asyncpg.Record]:
    """The rows of ``name`` that are not the same in ``back``, byte for byte."""
    return await connection.fetch(f"""
        SELECT ROW({name}.*)::text AS given, ROW(back.*)::text AS back
        FROM {name} FULL JOIN back USING (id)
        WHERE NOT record_image_eq(ROW({name}.*), ROW(back.*))
    """)


def _member(name: str, found: ColumnType) -> str:
    if not found.from_json:
        return f"(filled).{identifier(name)}"
    literal = name.replace("'", "''")
    value = f"(line::json -> '{literal}')"
    came = found.from_json.format(value=value)
    return f"CASE WHEN json_typeof({value}) <> 'null' THEN {came} END"
