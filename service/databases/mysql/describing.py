"""What a statement would give, asked in the server's protocol without running it.

Even with LIMIT 0 the server computes a subquery that reads no table. Source: MariaDB's manual,
"COM_STMT_PREPARE"; MySQL's internals, "Protocol::ColumnDefinition".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from aiomysql.connection import FieldDescriptorPacket  # type: ignore[import-untyped]  # no types

from service.column import Column
from service.databases.mysql.family import column_of

PREPARE, CLOSE = 0x16, 0x19  # COM_STMT_PREPARE, COM_STMT_CLOSE
PREPARED = struct.Struct("<xIHH")  # after a zero: the statement's id, its columns and parameters
STATEMENT = struct.Struct("<I")

# The protocol's numbers of types and flags, and what the dictionary calls them.
INTEGERS = {1: "tinyint", 2: "smallint", 9: "mediumint", 3: "int", 8: "bigint"}
REALS = {0: "decimal", 246: "decimal", 4: "float", 5: "double"}
NAMES = {
    7: "timestamp",
    10: "date",
    11: "time",
    12: "datetime",
    13: "year",
    14: "date",
    245: "json",
    247: "enum",
    248: "set",
    255: "geometry",
}
UNSIGNED, ZEROFILL, ENUM, SET = 32, 64, 256, 2048
BIT, BYTES, FLAG_LENGTH = 16, 63, 1  # BYTES is the character set "binary"


@dataclass(frozen=True, slots=True)
class Description:
    """The result of a statement, and how many parameters it asks for."""

    columns: tuple[Column, ...]
    parameters: int


async def described(driver: Any, sql: str) -> Description:
    """Prepare ``sql``, which must be exactly one statement, and forget it again.

    Raises the driver's error where the server refuses it.
    """
    # The driver has no name of its own for these two commands.
    await driver._execute_command(PREPARE, sql)  # noqa: SLF001 - as above
    packet = await driver._read_packet()  # noqa: SLF001 - as above
    statement, columns, parameters = PREPARED.unpack_from(packet.get_all_data())
    await _fields(driver, parameters)
    fields = await _fields(driver, columns)
    await driver._execute_command(CLOSE, STATEMENT.pack(statement))  # noqa: SLF001 - as above
    return Description(tuple(column_of(field.name, _type(field)) for field in fields), parameters)


async def _fields(driver: Any, count: int) -> list[Any]:
    found = [await driver._read_packet(FieldDescriptorPacket) for _ in range(count)]  # noqa: SLF001 - as above
    if found:
        await driver._read_packet()  # noqa: SLF001 - as above; the end of the list
    return found


def _type(field: Any) -> str:
    """The spelling of a column's type."""
    code, flags = field.type_code, field.flags
    signs = (" unsigned" if flags & UNSIGNED else "") + (" zerofill" if flags & ZEROFILL else "")
    if flags & (ENUM | SET):
        return "enum" if flags & ENUM else "set"
    if code in INTEGERS:
        flag = INTEGERS[code] == "tinyint" and field.length == FLAG_LENGTH and not signs
        return "tinyint(1)" if flag else INTEGERS[code] + signs
    if code in REALS:
        return REALS[code] + signs
    if code == BIT:
        return f"bit({field.length})"
    return NAMES.get(code) or ("longblob" if field.charsetnr == BYTES else "longtext")
