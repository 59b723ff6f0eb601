"""The settings: frozen, checked once at the top, and handed down as plain arguments.

``service.configuration`` reads them from a file, the environment and the command line; a test
builds them directly. Durations are seconds and sizes are bytes, however they were written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from inspect import isclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

URL_PARAMETERS = frozenset(
    {"host", "port", "user", "password", "database", "passfile", "service", "servicefile"}
    | {"ssl", "sslmode", "target_session_attrs", "krbsrvname", "gsslib"}
    | {"prepared_statement_cache_size"}
)
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
    except ValueError:
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


def masked_url(url: str) -> str:
    """``url`` for human eyes: without driver, password and any parameter but the address."""
    parsed = make_url(url)
    address = {name: parsed.query[name] for name in ("host", "port") if name in parsed.query}
    return parsed.set(drivername="postgresql", query=address).render_as_string(hide_password=True)


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """``tailrace`` below XDG_DATA_HOME, or else ``~/.local/share/tailrace``."""
    base = Path(environ.get("XDG_DATA_HOME", ""))
    if not base.is_absolute():  # the XDG specification: relative paths are to be ignored
        base = Path(environ.get("HOME") or "~", ".local", "share")
    return base / "tailrace"


def _absolute(value: object) -> object:
    if not isinstance(value, str | Path) or value == "":
        raise ValueError("is not a path")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:
        raise ValueError("is below a home directory that is not known") from None


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def _spelled(pattern: str, otherwise: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(otherwise)
        return value

    return AfterValidator(check)


def _among(source: str, known: Collection[str]) -> str:
    if source not in known:
        told = {"known": tuple(known)}
        raise PydanticCustomError("unknown_source", "there is no such source", told)
    return source


_NEVER_EXPOSED = _spelled(
    r"(?!(?:tailrace|information_schema|pg_[^.]*)\.).*", "names a schema that is never exposed"
)
_IDENTIFIER = r"""[^\s.*"]+"""
NAME_RULE = "letters, digits, '_', '.' and '-', at most 100, the first not '.'"

Text = Annotated[str, _spelled(r"(?s).*\S.*", "is empty"), Expected("a text")]
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
Whole = Annotated[int, BeforeValidator(_no_boolean)]
SourceName = Annotated[
    str, _spelled(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", "is not a valid name"), Expected(NAME_RULE)
]
DatasetName = Annotated[
    SourceName,
    _spelled(r"(?i)(?!.*\.(csv|ndjson|json)$).*", "ends like a format, which a path would choose"),
]
DatabaseUrl = Annotated[
    Annotated[str, AfterValidator(postgres_url)] | None,
    Field(repr=False),
    Expected("a URL such as 'postgresql://user:password@host:5432/database'"),
]
Table = Annotated[
    str,
    _spelled(rf"(?:{_IDENTIFIER}\.)?{_IDENTIFIER}", "is not a table's name; sql reads any table"),
    _NEVER_EXPOSED,
]
Pattern = Annotated[
    str, _spelled(rf"{_IDENTIFIER}\.(?:\*|{_IDENTIFIER})", "is not a pattern"), _NEVER_EXPOSED
]
Origin = Annotated[
    str,
    _spelled(r"\*|[a-z][a-z0-9+.-]*://[^/\s?#]+", "is not an origin, which has no path, no '/'"),
]
Lane = Literal["auto", "copy", "rows"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LogFormat = Literal["json", "console"]


class Section(BaseModel):
    """A table of the file: it cannot be changed, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DatabaseSettings(Section):
    """Where Tailrace's own tables are: None is the embedded PostgreSQL in the data directory."""

    url: DatabaseUrl = None


class SourceSettings(Section):
    """A database to export from: ``url`` None is the one that ``database`` names."""

    url: DatabaseUrl = None
    lane: Lane = "auto"
    expose: Annotated[
        tuple[Pattern, ...],
        BeforeValidator(parse_list),
        Expected('a list of "schema.*" and "schema.table"'),
    ] = ()
    max_connections: Annotated[
        Whole, Field(ge=1, le=1000), Expected("a whole number from 1 to 1000")
    ] = 8


class DatasetSettings(Section):
    """What is exported under a name: a table or the rows of ``sql``, and never both.

    ``key`` None is the primary key; ``columns`` is the list of what may be read, "*" all.
    """

    source: Annotated[SourceName, Field(validate_default=True)] = "main"
    table: Annotated[Table | None, Expected("a table such as 'public.flights'")] = None
    sql: Annotated[
        Text | None, Field(validate_default=True), Expected("table = '…' or sql = '…'")
    ] = None
    key: Annotated[Texts | None, A_LIST] = None
    columns: Texts = ("*",)
    title: Text | None = None
    description: Text | None = None

    @field_validator("source")
    @classmethod
    def _known(cls, source: str, info: ValidationInfo) -> str:
        return source if info.context is None else _among(source, info.context)

    @field_validator("sql")
    @classmethod
    def _or_table(cls, sql: str | None, info: ValidationInfo) -> str | None:
        if "table" in info.data and (info.data["table"] is None) == (sql is None):
            raise PydanticCustomError("table_or_sql", "either table or sql is needed, not both")
        return sql


class LimitSettings(Section):
    """How long things may take, in seconds, and how large a chunk is, in bytes."""

    stall_timeout: Seconds = 60.0
    max_duration: Annotated[Seconds, Field(le=LONGEST_TRANSACTION)] = 4 * 3_600.0
    artifact_ttl: Seconds = 7 * 86_400.0
    prime_timeout: Seconds = 20.0
    slot_timeout: Seconds = 5.0
    header_timeout: Seconds = 10.0
    drain_timeout: Seconds = 30.0
    flush_interval: Seconds = 0.1
    close_timeout: Seconds = 5.0
    chunk_size: ChunkSize = 256 * 1024


class ServerSettings(Section):
    """The address, who may ask from where, and how many processes answer; port 0 is any free."""

    host: Text = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65_535), Expected("a port from 0 to 65535")] = 8000
    cors_origins: Annotated[
        tuple[Origin, ...],
        BeforeValidator(parse_list),
        Expected('a list such as ["https://app.example"]'),
    ] = ()
    root_path: Annotated[
        str,
        _spelled(r"(?s)|/.*[^/]", "should begin with '/' and not end with one"),
        Expected("a path such as '/tailrace'"),
    ] = ""
    allow_anonymous: bool = False
    processes: Annotated[Whole, Field(ge=1, le=256), Expected("a whole number from 1 to 256")] = 1


class LogSettings(Section):
    """How much is logged, and in which form."""

    level: LogLevel = "info"
    format: LogFormat = "json"


class Settings(Section):
    """Everything that can be set. There is always a source: "main", if no other is named."""

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    sources: Mapping[SourceName, SourceSettings] = Field(default={}, validate_default=True)
    datasets: Mapping[DatasetName, DatasetSettings] = Field(default_factory=dict)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    data_dir: Annotated[
        Path, BeforeValidator(_absolute), Expected("a folder such as '/var/lib/tailrace'")
    ] = Field(default_factory=lambda: default_data_dir(os.environ), validate_default=True)
    config_path: Path | None = None

    @field_validator("sources", mode="before")
    @classmethod
    def _at_least_main(cls, sources: object, info: ValidationInfo) -> object:
        if sources != {}:
            return sources
        embedded = info.data.get("database") == DatabaseSettings()
        return {"main": SourceSettings(expose=("public.*",) if embedded else ())}

    @field_validator("datasets")
    @classmethod
    def _of_known_sources(cls, datasets: Any, info: ValidationInfo) -> Any:
        for dataset in datasets.values() if "sources" in info.data else ():
            _among(dataset.source, info.data["sources"])
        return datasets

    def source_url(self, name: str) -> str | None:
        """The URL of the source ``name``: None is the embedded PostgreSQL."""
        return self.sources[name].url or self.database.url


def model_at(path: tuple[str, ...]) -> type[Section] | None:
    """The model of a table: () is the file, ("limits",) a section, ("datasets", any) a dataset."""
    if not path:
        return Settings
    section = Settings.model_fields.get(path[0])
    annotation: Any = section.annotation if section else None
    models = (annotation, *get_args(annotation)[1:])[len(path) - 1 : len(path)]
    return next((model for model in models if isclass(model) and issubclass(model, Section)), None)


def keys_at(path: tuple[str, ...]) -> Mapping[str, FieldInfo]:
    """The keys that the table at ``path`` may have; none where any name may stand."""
    model = model_at(path)
    fields = model.model_fields if model else {}
    return {key: info for key, info in fields.items() if key != "config_path"}


def field_at(path: tuple[str, ...]) -> FieldInfo:
    """The field at ``path``, or that which holds the list element at it."""
    return keys_at(path[:-1]).get(path[-1]) or field_at(path[:-1])


def is_table(path: tuple[str, ...]) -> bool:
    """Whether a table stands at ``path``, be it of keys or of names."""
    return model_at(path) is not None or model_at((*path, "any")) is not None


def expected_at(path: tuple[str, ...]) -> str:
    """What a right value at ``path`` looks like, in words."""
    if is_table(path):
        return f"a table [{'.'.join(path)}]"
    field = field_at(path)
    told = [mark.text for mark in field.metadata if isinstance(mark, Expected)]
    return told[-1] if told else "true or false" if field.annotation is bool else "a text"
