"""What a single setting may be: durations, sizes, lists, URLs, names, each with its mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, unquote

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
)
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

URL_PARAMETERS = frozenset(
    {"host", "port", "user", "password", "database", "passfile", "service", "servicefile"}
    | {"ssl", "sslmode", "target_session_attrs", "krbsrvname", "gsslib"}
    | {"prepared_statement_cache_size"}
)
MYSQL_PARAMETERS = frozenset({"unix_socket", "ssl", "ssl_ca", "ssl_cert", "ssl_key"})
MAX_PORT = 65_535
LONGEST = 100 * 365 * 86_400.0  # seconds; now plus this has to be a date still
LONGEST_TRANSACTION = 2_147_483.0  # seconds; transaction_timeout is an int4 of milliseconds

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(
    rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?"
)
_UNITS = (Decimal(86_400), Decimal(3_600), Decimal(60), Decimal(1), Decimal("0.001"))
_SIZE = re.compile(r"([0-9]{1,18}) ?(B|KiB|MiB|GiB)?", re.IGNORECASE)
_SIZES = ("b", "kib", "mib", "gib")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a right value looks like, for the message about a wrong one."""

    text: str


def parse_duration(value: object) -> float:
    """Seconds, from "60s", "100ms", "1h30m" or a plain number of seconds; ValueError otherwise."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("is too long") from None
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(_NUMBER, text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError("is not a duration")
    counts = zip(match.groups(), _UNITS, strict=True)
    return float(sum(Decimal(count) * unit for count, unit in counts if count))


def format_duration(seconds: float) -> str:
    """The spelling in days, hours, minutes and seconds that reads back as ``seconds``."""
    left = Decimal(repr(float(seconds)))
    text = ""
    for letter, unit in zip("dhm", _UNITS, strict=False):
        count, left = divmod(left, unit)
        text += f"{count:f}{letter}" if count else ""
    if left == 0:
        return text or "0s"
    milliseconds = (left * 1000).normalize()
    if left < 1 and milliseconds == milliseconds.to_integral_value():
        return f"{text}{milliseconds:f}ms"
    return f"{text}{left.normalize():f}s"


def parse_size(value: object) -> int:
    """Bytes, from "256KiB", "8MiB" or a plain number of bytes; ValueError otherwise."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a size")
    number, unit = match.groups(default="B")
    return int(number) << 10 * _SIZES.index(unit.lower())


def parse_list(value: object) -> object:
    """A list as it is; a text as JSON or as the parts between its commas."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("is not a JSON list") from None


def postgres_url(text: str) -> str:
    """``text`` for SQLAlchemy with asyncpg; otherwise a ValueError, which never quotes it."""
    url = _read_url(text.strip())
    if "sslmode" in url.query:  # libpq's name for what asyncpg calls ssl
        ssl = {"ssl": url.query["sslmode"]}
        url = url.difference_update_query(["sslmode"]).update_query_dict(ssl)
    return url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def _read_url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = URL.create("unreadable", host="@")
    dialect, _, driver = url.drivername.lower().partition("+")
    if "@" in f"{url.host}{url.database}":
        raise ValueError("is not a URL; in a user or a password, '@' is written %40, '/' %2F")
    if dialect not in ("postgresql", "postgres"):
        raise ValueError("is not a PostgreSQL URL: only PostgreSQL is served so far")
    if driver not in ("", "asyncpg"):
        raise ValueError("names another driver: PostgreSQL is served through asyncpg only")
    if unknown := sorted(set(url.query) - URL_PARAMETERS):
        raise ValueError(f"has parameters that asyncpg does not take: {', '.join(unknown)}")
    return url


def source_url(text: str) -> str:
    """``text`` for SQLAlchemy with the driver of its kind of database; otherwise a ValueError."""
    scheme = text.strip().partition(":")[0].lower().partition("+")[0]
    return READERS.get(scheme, postgres_url)(text)


def sqlite_url(text: str) -> str:
    """A URL that opens the file for reading alone."""
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        url = URL.create("unreadable")
    address = (url.host, url.port, url.username, url.password)
    known = url.drivername.lower() in ("sqlite", "sqlite+aiosqlite")
    if not known or any(address) or url.query:
        raise ValueError("is not a URL of a SQLite file: sqlite:////path/to/file, and nothing more")
    if url.database in (None, "", ":memory:"):
        raise ValueError("names no file")
    # Once for SQLAlchemy and once for SQLite, to which "#" and "?" end the name and the rest,
    # our mode included, is something else.
    path = quote(quote(str(Path(url.database).expanduser().absolute())))
    return f"sqlite+aiosqlite:///file:{path}?mode=ro&uri=true"


def mysql_url(text: str) -> str:
    """``text`` for SQLAlchemy with aiomysql, for MariaDB and MySQL alike; otherwise a ValueError."""
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        url = URL.create("unreadable", host="@")
    if "@" in f"{url.host}{url.database}":
        raise ValueError("is not a URL; in a user or a password, '@' is written %40, '/' %2F")
    if url.drivername.lower().partition("+")[2] not in ("", "aiomysql"):
        raise ValueError("names another driver: MariaDB and MySQL are served through aiomysql only")
    if unknown := sorted(set(url.query) - MYSQL_PARAMETERS):
        raise ValueError(f"has parameters that are not known: {', '.join(unknown)}")
    if url.query.get("ssl", "true") != "true":
        raise ValueError("asks for ssl in another way than ssl=true")
    if not url.database:
        raise ValueError("names no database")
    return url.set(drivername="mysql+aiomysql").render_as_string(hide_password=False)


READERS: Mapping[str, Callable[[str], str]] = {
    "mariadb": mysql_url,
    "mysql": mysql_url,
    "sqlite": sqlite_url,
}
FILE = "file:"


def masked_url(url: str) -> str:
    """``url`` for human eyes: without driver, password and any parameter but the address."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///{unquote((parsed.database or '').removeprefix(FILE))}"
    places = ("host", "port", "unix_socket")
    address = {name: parsed.query[name] for name in places if name in parsed.query}
    return parsed.set(drivername=parsed.get_backend_name(), query=address).render_as_string(
        hide_password=True
    )


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """``tailrace`` below XDG_DATA_HOME, or else ``~/.local/share/tailrace``."""
    base = Path(environ.get("XDG_DATA_HOME", ""))
    if not base.is_absolute():  # the XDG specification: relative paths are to be ignored
        base = Path(environ.get("HOME") or "~", ".local", "share")
    return base / "tailrace"


def absolute(value: object) -> object:
    if not isinstance(value, str | Path) or value == "" or "\0" in str(value):
        raise ValueError("is not a path")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise ValueError("is below a home directory that is not known") from None


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def spelled(pattern: str, otherwise: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(otherwise)
        return value

    return AfterValidator(check)


def among(source: str, known: Collection[str]) -> str:
    if source not in known:
        told = {"known": tuple(known)}
        raise PydanticCustomError("unknown_source", "there is no such source", told)
    return source


_NEVER_EXPOSED = spelled(
    r"(?!(?:tailrace|information_schema|pg_[^.]*)\.).*", "names a schema that is never exposed"
)
_IDENTIFIER = r"""[^\s.*"]+"""
NAME_RULE = "letters, digits, '_', '.' and '-', at most 100, the first not '.'"

Text = Annotated[str, spelled(r"(?s).*\S.*", "is empty"), Expected("a text")]
A_LIST = Expected('a list such as ["id"]')
Texts = Annotated[tuple[Text, ...], BeforeValidator(parse_list), Field(min_length=1), A_LIST]
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0, le=LONGEST, allow_inf_nan=False),
    Expected("a duration such as '60s', '100ms' or '1h30m'"),
]
ChunkSize = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=4 * 1024, le=8 * 1024 * 1024),
    Expected("a size from '4KiB' to '8MiB'"),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=0, le=2**60),
    Expected("a size such as '512MiB' or '1GiB'"),
]
Whole = Annotated[int, BeforeValidator(_no_boolean)]
Attempts = Annotated[Whole, Field(ge=1, le=100), Expected("a whole number from 1 to 100")]
Many = Annotated[Whole, Field(ge=1, le=1_000_000), Expected("a whole number from 1 to 1000000")]
SourceName = Annotated[
    str, spelled(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", "is not a valid name"), Expected(NAME_RULE)
]
DatasetName = Annotated[
    SourceName,
    spelled(r"(?i)(?!.*\.(csv|ndjson|json)$).*", "ends like a format, which a path would choose"),
]
DatabaseUrl = Annotated[
    Annotated[str, AfterValidator(postgres_url)] | None,
    Field(repr=False),
    Expected("a URL such as 'postgresql://user:password@host:5432/database'"),
]
SourceUrl = Annotated[
    Annotated[str, AfterValidator(source_url)] | None,
    Field(repr=False),
    Expected(
        "a URL such as 'postgresql://user:password@host:5432/database', "
        "'mariadb://user:password@host:3306/database' or 'sqlite:////path/to/file'"
    ),
]
Table = Annotated[
    str,
    spelled(rf"(?:{_IDENTIFIER}\.)?{_IDENTIFIER}", "is not a table's name; sql reads any table"),
    _NEVER_EXPOSED,
]
Pattern = Annotated[
    str, spelled(rf"{_IDENTIFIER}\.(?:\*|{_IDENTIFIER})", "is not a pattern"), _NEVER_EXPOSED
]
Origin = Annotated[
    str,
    spelled(r"\*|[a-z][a-z0-9+.-]*://[^/\s?#]+", "is not an origin, which has no path, no '/'"),
]
Folder = Annotated[
    Path, BeforeValidator(absolute), Expected("the path of a folder such as '/srv/reports'")
]
Port = Annotated[Whole, Field(ge=1, le=MAX_PORT), Expected("a port from 1 to 65535")]
AtOnce = Annotated[Whole, Field(ge=1, le=10_000), Expected("a whole number from 1 to 10000")]
Retries = Annotated[Whole, Field(ge=0, le=100), Expected("a whole number from 0 to 100")]
Line = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=1024, le=64 * 1024 * 1024),
    Expected("a size from '1KiB' to '64MiB'"),
]
Lane = Literal["auto", "copy", "rows"]
ProviderKind = Literal["openai", "anthropic", "echo"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LogFormat = Literal["json", "console"]
