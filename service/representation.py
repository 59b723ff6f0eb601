"""As what an export is sent: format, compression, and the choices that each format has. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from urllib.parse import quote

from service.errors import NotAcceptable
from service.export.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from service.export.compress import COMPRESSIONS
from service.export.encode import FORMATS, Format
from service.grammar.choices import given_once, one_of, switch
from service.grammar.scanner import mistake

PROFILES = ("machine", "excel")
EXCEL_ROWS = 1_048_575  # what a sheet holds below its header (Excel specifications and limits)
PARAMETERS = frozenset({"compression", "profile", "delimiter", "header", "end", "chunk_size"})
DELIMITERS = frozenset(",;|\t:~^ !#$%&*+-/<=>?@_`.")
ALIASES = {"application/jsonl": "ndjson", "application/ndjson": "ndjson"}
UNSAFE = re.compile(r'[\x00-\x1f\x7f"\\/:*?<>|%]+')
DIGITS = re.compile(r"[0-9]*")
MOST_DIGITS = len(str(MAX_CHUNK_SIZE))
MAX_FILENAME = 200  # bytes; file systems take 255, and browsers put " (1)" behind
KEPT_SUFFIX = 20  # characters


@dataclass(frozen=True, slots=True)
class Representation:
    """``compression`` makes a compressed file; ``encoding`` codes the transfer of a plain one."""

    format: Format
    compression: str = "none"
    encoding: str | None = None
    profile: str = "machine"
    delimiter: str = ","
    header: bool = True
    end: bool = False
    chunk_size: int = 0

    @property
    def excel(self) -> bool:
        """Whether it is for a spreadsheet: ``machine``, the other profile, never alters data."""
        return self.profile == "excel"

    @property
    def media_type(self) -> str:
        if self.compression != "none":
            return COMPRESSIONS[self.compression].media_type
        if self.format.name == "csv":
            present = "present" if self.header else "absent"  # RFC 4180, section 3
            return f"text/csv; charset=utf-8; header={present}"
        return f"{self.format.media_type}; charset=utf-8"

    def headers(self, dataset: str, *vary: str) -> dict[str, str]:
        """What a stream of this file says of itself, whatever it is a stream of."""
        headers = {
            "Content-Type": self.media_type,
            "Content-Disposition": content_disposition(self.filename(dataset)),
            "Accept-Ranges": "none",
            "Vary": ", ".join((*vary, "Accept-Encoding")),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        if self.encoding is not None:
            headers["Content-Encoding"] = COMPRESSIONS[self.encoding].coding
        return headers

    def filename(self, dataset: str) -> str:
        """``flights.csv``, ``flights.ndjson.gz``."""
        compression = COMPRESSIONS.get(self.compression)
        return f"{dataset}.{self.format.name}{compression.suffix if compression else ''}"


def negotiate_format(suffix: str | None, accept: str) -> Format:
    """The format of the suffix, or else the best of ``Accept`` (RFC 9110, section 12.5.1)."""
    if suffix is not None:
        return FORMATS[suffix]
    ranges = _weighted(accept or "*/*")
    best = max(FORMATS.values(), key=lambda offered: _quality(offered, ranges))
    if _quality(best, ranges) <= 0:
        offered = ", ".join(item.media_type for item in FORMATS.values())
        raise NotAcceptable(f"Offered are {offered}; Accept asks for {accept}.")
    return best


def prefers_text(accept: str) -> bool | None:
    """Whether ``Accept`` likes bare text better than events; None where it takes neither."""
    ranges = dict(_weighted(accept or "*/*"))
    anything = ranges.get("*/*", 0.0)
    family = ranges.get("text/*", anything)
    text = ranges.get("text/plain", family)
    events = ranges.get("text/event-stream", family)
    return None if max(text, events) <= 0 else text > events


def negotiate_encoding(
    accept_encoding: str, offered: Collection[str] = tuple(COMPRESSIONS)
) -> str | None:
    """The coding of those ``offered`` that the client likes best (RFC 9110, section 12.5.3).

    None for none at all; of two that it likes alike, the first of COMPRESSIONS.
    """
    weights = dict(_weighted(accept_encoding))
    rest = weights.get("*", 0.0)
    liked = {coding: weights.get(coding, rest) for coding in COMPRESSIONS if coding in offered}
    best = max(liked, key=lambda coding: liked[coding], default="identity")
    weight = liked.get(best, 0.0)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


def parse_representation(
    chosen: Format,
    parameters: Iterable[tuple[str, str]],
    *,
    accept_encoding: str = "",
    chunk_size: int,
) -> Representation:
    """Read our own parameters; raises InvalidParameter naming the one and the character."""
    given = given_once(parameters)
    compression = one_of(given, "compression", ("none", *COMPRESSIONS))
    profile = one_of(given, "profile", PROFILES)
    if profile == "excel" and chosen.name != "csv":
        raise mistake("profile", f"excel is for csv, and this is {chosen.name},", 1)
    _only_for(given, chosen, {"delimiter": "csv", "header": "csv", "end": "ndjson"})
    return Representation(
        format=chosen,
        compression=compression,
        encoding=negotiate_encoding(accept_encoding) if compression == "none" else None,
        profile=profile,
        delimiter=_delimiter(given.get("delimiter", ",")),
        header=switch(given, "header", "1"),
        end=switch(given, "end", "0"),
        chunk_size=parse_chunk_size(given.get("chunk_size"), chunk_size),
    )


def content_disposition(filename: str) -> str:
    """``attachment`` with a safe name in ASCII and the whole one in UTF-8 (RFC 6266, RFC 8187)."""
    name = safe_filename(filename)
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def safe_filename(filename: str) -> str:
    """``filename`` without what would lead out of a folder, or what file systems refuse."""
    return _short(UNSAFE.sub("_", filename).lstrip(". ").rstrip()) or "export"


def _short(name: str) -> str:
    """``name`` in at most MAX_FILENAME bytes, with its end, where the suffixes are."""
    end = name[-KEPT_SUFFIX:]
    start = name[:-KEPT_SUFFIX].encode()[: MAX_FILENAME - len(end.encode())]
    return start.decode(errors="ignore") + end


def _weighted(header: str) -> list[tuple[str, float]]:
    found = []
    for element in header.split(","):
        token, *parameters = (part.strip().lower() for part in element.split(";"))
        weights = [text[2:] for text in parameters if text.startswith("q=")]
        found.append((token, _weight(weights[0]) if weights else 1.0))
    return found


def _weight(text: str) -> float:
    return float(text) if re.fullmatch(r"[01](?:\.\d{0,3})?", text) else 0.0


def _quality(offered: Format, ranges: list[tuple[str, float]]) -> float:
    """The weight of the most specific range that takes ``offered``; 0 when none does."""
    names = {
        offered.media_type,
        *(alias for alias, name in ALIASES.items() if name == offered.name),
    }
    specific = [weight for token, weight in ranges if token in names]
    family = f"{offered.media_type.partition('/')[0]}/*"
    general = [weight for token, weight in ranges if token == family]
    anything = [weight for name, weight in ranges if name == "*/*"]
    return next((max(weights) for weights in (specific, general, anything) if weights), 0.0)


def _only_for(given: dict[str, str], chosen: Format, owners: dict[str, str]) -> None:
    for name, owner in owners.items():
        if name in given and chosen.name != owner:
            raise mistake(name, f"this is for {owner}, and asked is {chosen.name},", 1)


def _delimiter(text: str) -> str:
    if text not in DELIMITERS:
        raise mistake("delimiter", f"{text!r} is not one of tab, space and {_shown()}", 1)
    return text


def _shown() -> str:
    return " ".join(sorted(DELIMITERS - {"\t", " "}))


def parse_chunk_size(text: str | None, default: int) -> int:
    """Bytes a chunk, ``default`` where none is given. Raises InvalidParameter."""
    if text is None:
        return default
    digits = DIGITS.match(text)
    length = digits.end() if digits else 0
    if not length or length < len(text):
        raise mistake("chunk_size", f"{text!r} is not a number of bytes,", length + 1)
    # A longer text is over the limit, and int() would be quadratic.
    if len(text) > MOST_DIGITS or not MIN_CHUNK_SIZE <= int(text) <= MAX_CHUNK_SIZE:
        raise mistake("chunk_size", f"{text} is not from {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE},", 1)
    return int(text)
