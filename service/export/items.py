"""What an iterator may yield, and how it becomes the text of a format. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.export.batch import Batch, CsvEncoder, Encode, NdjsonEncoder
from service.export.cells import Form
from service.export.encode import Rows
from service.export.python_values import CSV_TEXTS, JSON_TEXTS

Cells = Sequence[str | None] | Sequence[bytes]


@dataclass(frozen=True, slots=True)
class RowText:
    """``cells`` makes texts of one item, ``encode`` the text of the format of many of those."""

    cells: Callable[[Any], Cells]
    encode: Encode


def values(rows: Rows, labels: Sequence[str], delimiter: str = ",") -> RowText:
    """Items are rows: a sequence of Python values in the order of ``labels``, or a dict of them.

    Raises ValueError for a row that has more or fewer of them, TypeError for what is no row or
    no value (see ``python_values.CSV_TEXTS``).
    """
    forms = [Form.TEXT if rows is Rows.CSV else Form.RAW] * len(labels)
    encode = (
        CsvEncoder(forms, delimiter) if rows is Rows.CSV else NdjsonEncoder(list(labels), forms)
    )
    texts, columns = (CSV_TEXTS if rows is Rows.CSV else JSON_TEXTS), len(labels)

    def cells(row: Any) -> Cells:
        if isinstance(row, str | bytes):
            raise TypeError(f"A row is a sequence of cells, and not {type(row).__name__}.")
        if len(row) != columns:
            raise ValueError(f"A row has {len(row)} cells; there are {columns} columns.")
        ordered = [row[label] for label in labels] if isinstance(row, dict) else row
        return [texts[type(value)](value) for value in ordered]

    return RowText(cells, encode)


def whole_lines() -> RowText:
    """Items are bytes: a record of the format each, without the line feed at its end."""
    return RowText(lambda line: (line,), _joined)


def _joined(batch: Batch) -> bytes:
    return b"".join([b"%b\n" % line for (line,) in batch])
