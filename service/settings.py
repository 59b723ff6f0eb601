"""The settings: frozen, checked once at the top, and handed down as plain arguments.

``service.configuration`` reads them from a file, the environment and the command line; a test
builds them directly. Durations are seconds and sizes are bytes, however they were written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from inspect import isclass
from pathlib import Path
from typing import Annotated, Any, get_args

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

from service.upstream_values import (
    BaseUrl,
    CaFile,
    HeaderName,
    HeaderValue,
    HostName,
    Method,
    PathPrefix,
    each_once,
    parse_table,
)
from service.values import (
    A_LIST,
    LONGEST_TRANSACTION,
    AtOnce,
    Attempts,
    ChunkSize,
    DatabaseUrl,
    DatasetName,
    Expected,
    Folder,
    Lane,
    Line,
    LogFormat,
    LogLevel,
    Many,
    Origin,
    Pattern,
    Port,
    ProviderKind,
    Retries,
    Seconds,
    Size,
    SourceName,
    SourceUrl,
    Table,
    Text,
    Texts,
    Whole,
    absolute,
    among,
    default_data_dir,
    parse_duration,
    parse_list,
    spelled,
)


class Section(BaseModel):
    """A table of the file: it cannot be changed, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DatabaseSettings(Section):
    """Where Tailrace's own tables are: None is the embedded PostgreSQL in the data directory."""

    url: DatabaseUrl = None


class SourceSettings(Section):
    """A database to export from: ``url`` None is the one that ``database`` names."""

    url: SourceUrl = None
    lane: Lane = "auto"
    expose: Annotated[
        tuple[Pattern, ...],
        BeforeValidator(parse_list),
        Expected('a list of "schema.*" and "schema.table"'),
    ] = ()
    max_connections: Annotated[
        Whole, Field(ge=1, le=1000), Expected("a whole number from 1 to 1000")
    ] = 8
    max_jobs: Annotated[Whole, Field(ge=1, le=1000), Expected("a whole number from 1 to 1000")] = 4

    @field_validator("lane")
    @classmethod
    def _which_it_has(cls, lane: str, info: ValidationInfo) -> str:
        url = info.data.get("url")
        if lane == "copy" and url and not url.startswith("postgresql"):
            raise PydanticCustomError("no_copy", "only PostgreSQL has COPY")
        return lane


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
        return source if info.context is None else among(source, info.context)

    @field_validator("sql")
    @classmethod
    def _or_table(cls, sql: str | None, info: ValidationInfo) -> str | None:
        if "table" in info.data and (info.data["table"] is None) == (sql is None):
            raise PydanticCustomError("table_or_sql", "either table or sql is needed, not both")
        return sql


class LimitSettings(Section):
    """How long things may take, in seconds; how large they may be, in bytes; how many there are.

    ``max_artifact_size`` 0 is no limit of ours.
    """

    stall_timeout: Seconds = 60.0
    max_duration: Annotated[Seconds, Field(le=LONGEST_TRANSACTION)] = 4 * 3_600.0
    artifact_ttl: Seconds = 7 * 86_400.0
    prime_timeout: Seconds = 20.0
    slot_timeout: Seconds = 5.0
    header_timeout: Seconds = 10.0
    drain_timeout: Seconds = 30.0
    flush_interval: Seconds = 0.1
    close_timeout: Seconds = 5.0
    ping_interval: Seconds = 15.0
    join_max_age: Seconds = 10.0
    lease: Annotated[Seconds, Field(ge=1.0)] = 15.0
    record_ttl: Seconds = 30 * 86_400.0
    generation_ttl: Seconds = 86_400.0
    chunk_size: ChunkSize = 256 * 1024
    max_line: Line = 1024**2
    min_free_space: Size = 1024**3
    max_artifact_size: Size = 0
    max_attempts: Attempts = 4
    max_queued: Many = 1_000
    max_queued_per_caller: Many = 200


class RootSettings(Section):
    """A folder whose files are offered; ``precompressed`` serves ``name.zst`` and ``name.gz``
    in place of ``name`` to clients that accept the coding.
    """

    path: Folder
    hidden: bool = False
    listing: bool = True
    precompressed: bool = False
    max_downloads: AtOnce = 256


class RelaySection(Section):
    """How long a relay waits for its upstream, in seconds, and how much it passes on, in bytes.

    ``max_size`` 0 is no limit of ours. ``unframed`` passes on bodies that end when the upstream
    closes the connection, of which nobody can tell whether they are whole.
    """

    connect_timeout: Seconds = 5.0
    first_byte_timeout: Seconds = 30.0
    stall_timeout: Seconds = 30.0
    max_duration: Annotated[Seconds, Field(le=LONGEST_TRANSACTION)] = 4 * 3_600.0
    max_size: Size = 0
    max_connections: AtOnce = 64
    retries: Retries = 3
    unframed: bool = False
    ca_file: CaFile = None


class UpstreamSettings(RelaySection):
    """Another service whose downloads are relayed. ``headers`` are sent to it alone.

    ``forward`` names headers of the client that it gets beside those of every download;
    ``redirects`` the hosts to which it may lead on.
    """

    base_url: BaseUrl
    paths: Annotated[
        tuple[PathPrefix, ...],
        BeforeValidator(parse_list),
        Expected('a list such as ["daily/", "weekly/"]'),
    ] = ()
    methods: Annotated[
        tuple[Method, ...],
        BeforeValidator(parse_list),
        Field(min_length=1),
        Expected('["GET", "HEAD"] or one of them'),
    ] = ("GET", "HEAD")
    headers: Annotated[
        Mapping[HeaderName, HeaderValue],
        BeforeValidator(parse_table),
        AfterValidator(each_once),
        Expected('a table such as { Authorization = "env:ARCHIVE_AUTHORIZATION" }'),
    ] = Field(default_factory=dict, repr=False)
    forward: Annotated[
        tuple[HeaderName, ...],
        BeforeValidator(parse_list),
        Expected('a list such as ["X-Tenant"]'),
    ] = ()
    redirects: Annotated[
        tuple[HostName, ...],
        BeforeValidator(parse_list),
        Expected('a list such as ["cdn.example"]'),
    ] = ()
    http2: bool = False


class RelaySettings(RelaySection):
    """Free addresses, ``/v1/relay?url=…``: whether they are relayed, and to which ports."""

    allow_urls: bool = False
    ports: Annotated[
        tuple[Port, ...],
        BeforeValidator(parse_list),
        Field(min_length=1),
        Expected("a list such as [80, 443]"),
    ] = (80, 443)


class ProviderSettings(Section):
    """A provider of language models; durations are seconds, ``base_url`` None is its maker's.

    ``max_tokens`` is the most that a caller may ask for. ``echo`` is a stand-in that needs no key;
    ``pace`` is how many seconds it waits before each token.
    """

    kind: Annotated[ProviderKind, Field(validate_default=True)]
    base_url: BaseUrl | None = None
    api_key: Annotated[
        Text | None, Field(repr=False), Expected('a secret such as "env:OPENAI_API_KEY"')
    ] = None
    model: Annotated[
        Text, Field(validate_default=True), Expected("the name of a model, as its provider has it")
    ] = ""
    first_token_timeout: Seconds = 60.0
    stall_timeout: Seconds = 30.0
    max_duration: Annotated[Seconds, Field(le=LONGEST_TRANSACTION)] = 600.0
    max_tokens: Annotated[
        Whole, Field(ge=1, le=1_000_000), Expected("a whole number from 1 to 1000000")
    ] = 8_192
    max_generations: AtOnce = 64
    retries: Retries = 2
    pace: Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=60)] = 0.0

    @field_validator("model", mode="before")
    @classmethod
    def _needed(cls, model: object, info: ValidationInfo) -> object:
        return "echo" if model == "" and info.data.get("kind") == "echo" else model


class WorkerSettings(Section):
    """The workers that run jobs: how many exports each runs at once."""

    concurrency: Annotated[Whole, Field(ge=1, le=256), Expected("a whole number from 1 to 256")] = 4


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
        spelled(r"(?s)|/.*[^/]", "should begin with '/' and not end with one"),
        Expected("a path such as '/tailrace'"),
    ] = ""
    allow_anonymous: bool = False
    secret: Annotated[
        str | None,
        Field(min_length=32, repr=False),
        Expected("a text of at least 32 random characters"),
    ] = None
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
    files: Mapping[SourceName, RootSettings] = Field(default_factory=dict)
    upstreams: Mapping[SourceName, UpstreamSettings] = Field(default_factory=dict)
    relay: RelaySettings = Field(default_factory=RelaySettings)
    llm: Mapping[SourceName, ProviderSettings] = Field(default_factory=dict)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    data_dir: Annotated[
        Path, BeforeValidator(absolute), Expected("a folder such as '/var/lib/tailrace'")
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
            among(dataset.source, info.data["sources"])
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
