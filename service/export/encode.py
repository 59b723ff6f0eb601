"""The formats: what a row looks like on the wire, and what stands around the rows. Pure.

A lane delivers rows as the text of one format: CSV records (RFC 4180 quoting with LF, as
PostgreSQL's COPY writes them) or one JSON object a line. A frame puts around them what the
file needs (header line, brackets) and counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

QUOTE = b'"'
NEITHER = bytes(set(range(256)) - set(b'"\n'))
CRLF = b"\r\n"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # by which Excel knows UTF-8

# A cell that begins with one of these is a formula to a spreadsheet (OWASP, "CSV Injection");
# the last four are full-width forms, which some of them take as well.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
HARMLESS = "'"


class Rows(StrEnum):
    """The text in which a lane delivers rows."""

    CSV = "csv"
    NDJSON = "ndjson"


class Frame(Protocol):
    """A stage (see ``stage.Stage``) that knows how many rows went through it."""

    rows: int

    def feed(self, data: bytes) -> bytes: ...
    def sync(self) -> bytes: ...
    def finish(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FrameOptions:
    """``labels`` are the output columns; the rest is what the request may choose.

    ``excel`` is for spreadsheets: a byte order mark, and CRLF between records.
    """

    labels: tuple[str, ...]
    delimiter: str = ","
    header: bool = True
    excel: bool = False


class CsvFrame:
    """CSV: an optional header line, then the records as they come."""

    def __init__(self, options: FrameOptions) -> None:
        self.rows = 0
        self._excel = options.excel
        header = csv_record(_labels(options), options.delimiter) if options.header else ""
        self._header = header.encode()
        if options.excel:
            self._header = BYTE_ORDER_MARK + self._header.replace(b"\n", CRLF)
        self._inside_quotes = False

    def feed(self, data: bytes) -> bytes:
        records = self._counted(data)
        return self._opening() + records if self._header else records

    def sync(self) -> bytes:
        return self._opening()

    def finish(self) -> bytes:
        return self._opening()

    def _opening(self) -> bytes:
        header, self._header = self._header, b""
        return header

    def _counted(self, data: bytes) -> bytes:
        """The data; the line feeds outside quotes, which end records, are counted."""
        if QUOTE not in data:
            if self._inside_quotes:
                return data
            self.rows += data.count(b"\n")
            return data.replace(b"\n", CRLF) if self._excel else data
        # A doubled quote toggles twice, so the parity of quotes is all that matters.
        pieces = (data if self._excel else _skeleton(data)).split(QUOTE)
        outside = slice(1, None, 2) if self._inside_quotes else slice(0, None, 2)
        self.rows += sum(piece.count(b"\n") for piece in pieces[outside])
        self._inside_quotes ^= len(pieces) % 2 == 0
        if not self._excel:
            return data
        pieces[outside] = [piece.replace(b"\n", CRLF) for piece in pieces[outside]]
        return QUOTE.join(pieces)


def _skeleton(data: bytes) -> bytes:
    """Quotes and line feeds alone, without the doubled quotes that nothing stands between."""
    return data.translate(None, NEITHER).replace(QUOTE + QUOTE, b"")


def _labels(options: FrameOptions) -> tuple[str, ...]:
    if not options.excel:
        return options.labels
    return tuple(HARMLESS + name if name[:1] in FORMULA else name for name in options.labels)


class NdjsonFrame:
    """NDJSON: the lines as they come; JSON text holds no raw line feed, so lines are rows."""

    def __init__(self, options: FrameOptions) -> None:
        del options
        self.rows = 0

    def feed(self, data: bytes) -> bytes:
        self.rows += data.count(b"\n")
        return data

    def sync(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return b""


class JsonFrame:
    """One JSON array (RFC 8259) with a row a line: ``[``, rows joined by ``,``, ``]``."""

    def __init__(self, options: FrameOptions) -> None:
        del options
        self.rows = 0
        self._before = b"["
        self._end_held = False

    def feed(self, data: bytes) -> bytes:
        if not data:
            return b""
        self.rows += data.count(b"\n")
        before, self._before = self._before, b""
        if self._end_held:
            before = b",\n"
        self._end_held = data.endswith(b"\n")
        lines = data[:-1] if self._end_held else data
        return before + lines.replace(b"\n", b",\n")

    def sync(self) -> bytes:
        before, self._before = self._before, b""
        return before

    def finish(self) -> bytes:
        return self.sync() + b"]\n"


@dataclass(frozen=True, slots=True)
class Format:
    """A format that clients may ask for."""

    name: str
    media_type: str
    rows: Rows
    frame: Callable[[FrameOptions], Frame]


# The order is the preference where a client takes several equally well.
FORMATS: dict[str, Format] = {
    "json": Format("json", "application/json", Rows.NDJSON, JsonFrame),
    "csv": Format("csv", "text/csv", Rows.CSV, CsvFrame),
    "ndjson": Format("ndjson", "application/x-ndjson", Rows.NDJSON, NdjsonFrame),
}


def csv_record(cells: Sequence[str], delimiter: str) -> str:
    """One record as COPY … (FORMAT csv) writes it; no cell is NULL here."""
    only = len(cells) == 1
    return delimiter.join(_csv_cell(cell, delimiter, only=only) for cell in cells) + "\n"


def _csv_cell(cell: str, delimiter: str, *, only: bool) -> str:
    # An unquoted empty cell would read back as NULL, a lone \. as the end of the data.
    plain = (
        cell and not (only and cell == "\\.") and not any(c in cell for c in f'"\r\n{delimiter}')
    )
    return cell if plain else '"' + cell.replace('"', '""') + '"'
