"""Encoders of the rows lane: a batch of rows becomes the text of a format, a column at a time. Pure.

The database has made texts of everything that is not plain (see ``cells``), so what is left is
quoting. Each column is looked at as a whole first: most hold nothing that has to be quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring
from typing import Any, cast

import orjson

from service.errors import SourceError
from service.export.cells import Form
from service.export.encode import Rows

Batch = Sequence[Sequence[Any]]
Encode = Callable[[Batch], bytes]
Texts = Sequence[str | None]

JSON_SPECIAL = re.compile(r'["\\\x00-\x1f]')
INFINITIES = {float("inf"): "Infinity", float("-inf"): "-Infinity"}


def encoder(rows: Rows, labels: Sequence[str], forms: Sequence[Form], delimiter: str) -> Encode:
    """The encoder for rows whose cells come in ``forms``."""
    if rows is Rows.CSV:
        return CsvEncoder(forms, delimiter)
    return NdjsonEncoder(labels, forms)


def lines(batch: Batch) -> bytes:
    """Rows that the database has made into whole lines, without their ends.

    Raises SourceError at a NULL: what a database gives where a text would pass its limit.
    """
    try:
        return ("\n".join([row[0] for row in batch]) + "\n").encode()
    except TypeError:
        message = 'A row is longer than the texts that the database makes: set lane = "rows".'
        raise SourceError(message) from None


class CsvEncoder:
    """CSV as COPY writes it: NULL is empty, the empty string ``""``, quotes only where needed.

    The csv module cannot tell NULL from the empty string before Python 3.12.
    """

    def __init__(self, forms: Sequence[Form], delimiter: str) -> None:
        self._forms = forms
        self._delimiter = delimiter
        self._marks = ('"', delimiter, "\n", "\r")
        alone = r"|\A\\\.\Z" if len(forms) == 1 else ""  # would be the end of COPY's data
        self._special = re.compile(rf'["\r\n{re.escape(delimiter)}]{alone}')

    def __call__(self, batch: Batch) -> bytes:
        columns = map(self._column, zip(*batch, strict=True), self._forms)
        return "".join(
            [f"{line}\n" for line in map(self._delimiter.join, zip(*columns, strict=True))]
        ).encode()

    def _column(self, cells: Sequence[Any], form: Form) -> Iterable[str]:
        texts: Texts = [plain_text(cell) for cell in cells] if form is Form.ANY else cells
        try:
            joined, nulls = "".join(texts), False  # type: ignore[arg-type]  # the test for None
        except TypeError:
            joined, nulls = "".join(filter(None, texts)), True
        # A search by expression takes many times as long as these.
        if len(self._forms) == 1 or any(mark in joined for mark in self._marks):
            return map(self._cell, texts)
        if nulls:
            return ["" if text is None else text or '""' for text in texts]
        return texts if all(texts) else [text or '""' for text in texts]  # type: ignore[return-value]

    def _cell(self, text: str | None) -> str:
        if text is None:
            return ""
        if text and not self._special.search(text):
            return text
        return '"' + text.replace('"', '""') + '"'


class NdjsonEncoder:
    """One JSON object a line; a cell in the form RAW is JSON text already."""

    def __init__(self, labels: Sequence[str], forms: Sequence[Form]) -> None:
        # The template is filled by "%", which labels may hold.
        self._names = [orjson.dumps(label).decode().replace("%", "%%") for label in labels]
        self._forms = forms

    def __call__(self, batch: Batch) -> bytes:
        columns: list[Iterable[Any]] = []
        members: list[str] = []
        for cells, form, name in zip(
            zip(*batch, strict=True), self._forms, self._names, strict=True
        ):
            values, slot = FILLERS[form](cells)
            columns.append(values)
            members.append(f"{name}:{slot}")
        template = "{" + ",".join(members) + "}\n"
        return "".join(map(template.__mod__, zip(*columns, strict=True))).encode()


def plain_text(cell: Any) -> str | None:
    """The text of a value of SQLite; reals in the shortest spelling that reads back the same."""
    match cell:
        case None | str():
            return cell
        case int():
            return str(cell)
        case float():
            return INFINITIES.get(cell) or repr(cell)
        case _:
            return "\\x" + bytes(cell).hex()


def json_text(cell: Any) -> str:
    """The JSON text of a value of SQLite (RFC 8259); what JSON has no number for is a string."""
    match cell:
        case None:
            return "null"
        case int():
            return str(cell)
        case float() if cell not in INFINITIES:
            return repr(cell)
        case _:
            return encode_basestring(plain_text(cell) or "")


def _raw(cells: Sequence[str | None]) -> tuple[Iterable[Any], str]:
    try:
        "".join(cells)  # type: ignore[arg-type]  # the fastest test for None
    except TypeError:
        return ["null" if cell is None else cell for cell in cells], "%s"
    return cells, "%s"


def _text(cells: Sequence[str | None]) -> tuple[Iterable[Any], str]:
    filled = cast("Sequence[str]", cells)
    try:
        joined = "".join(filled)
    except TypeError:  # the fastest test for None
        return ["null" if cell is None else encode_basestring(cell) for cell in cells], "%s"
    if JSON_SPECIAL.search(joined):
        return map(encode_basestring, filled), "%s"
    return filled, '"%s"'


def _any(cells: Sequence[Any]) -> tuple[Iterable[Any], str]:
    return map(json_text, cells), "%s"


FILLERS: dict[Form, Callable[[Sequence[Any]], tuple[Iterable[Any], str]]] = {
    Form.RAW: _raw,
    Form.TEXT: _text,
    Form.ANY: _any,
}
