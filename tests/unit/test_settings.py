"""The values of the settings: what is read, what is refused, and what is never shown."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.configuration import ConfigurationMistakes, load
from service.settings import (
    DatabaseSettings,
    DatasetSettings,
    LimitSettings,
    LogSettings,
    ServerSettings,
    Settings,
    SourceSettings,
    expected_at,
    keys_at,
)
from service.values import LONGEST, default_data_dir, parse_size
from tests.refusing import first_message

SECRET = "hunter2secret"
URL = f"postgresql://tailrace:{SECRET}@db.internal:5433/exports"


@pytest.mark.parametrize("seconds", [0, -1, "0s", float("nan"), float("inf"), LONGEST * 1.01])
def test_a_limit_is_above_zero_and_finite(seconds: object) -> None:
    assert first_message(LimitSettings, stall_timeout=seconds).startswith("Input should be")


def test_a_transaction_is_no_longer_than_postgresql_can_time() -> None:
    assert LimitSettings.model_validate({"max_duration": "24d"}).max_duration == 24 * 86_400
    assert "2147483" in first_message(LimitSettings, max_duration="25d")


def test_chunks_have_bounds() -> None:
    for size in ("4KiB", "8MiB"):
        assert LimitSettings.model_validate({"chunk_size": size}).chunk_size == parse_size(size)
    for wrong in (4095, 8 * 1024**2 + 1):
        assert "equal to" in first_message(LimitSettings, chunk_size=wrong)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (SECRET, "is not a URL"),
        ("", "is not a URL"),
        (f"postgresql://u:{SECRET}@x@h/d", "is not a URL"),
        (f"postgresql://us/er:{SECRET}@h/d", "is not a URL"),
        (f"postgresql://u@h:{SECRET}/d", "is not a URL"),
        (f"sqlite+aiosqlite:///{SECRET}.db", "only PostgreSQL is served so far"),
        (f"mysql+asyncmy://u:{SECRET}@h/d", "only PostgreSQL is served so far"),
        (f"postgresql+psycopg://u:{SECRET}@h/d", "through asyncpg only"),
        (f"postgresql://h/d?channel_binding={SECRET}", "does not take: channel_binding"),
    ],
)
def test_other_urls_are_refused_and_never_quoted(written: str, message: str) -> None:
    told = first_message(DatabaseSettings, url=written)
    assert message in told
    assert SECRET not in told


def test_no_representation_shows_a_url() -> None:
    settings = Settings(
        database=DatabaseSettings(url=URL), sources={"main": SourceSettings(url=URL)}
    )
    for text in (repr(settings), str(settings), repr(settings.sources), repr(settings.database)):
        assert SECRET not in text
        assert "db.internal" not in text


@pytest.mark.parametrize("path", ["database.url", "limits.stall_timeout", "log.level"])
def test_no_mistake_tells_a_secret(path: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "a.toml").write_text(f'{path} = "env:S"\n')
    variable = f"TAILRACE_{path.replace('.', '__').upper()}"
    secret = {f"{variable}_FILE": str(tmp_path / "secret")}
    for environ in ({}, secret, {variable: SECRET}):
        with pytest.raises(ConfigurationMistakes) as caught:
            load(tmp_path / "a.toml", {"HOME": "/", "S": SECRET, **environ})
        assert [mistake.path for mistake in caught.value.mistakes] == [path]
        assert SECRET not in caught.value.detail


def test_no_validation_error_shows_a_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"database": {"url": SECRET}, "log": {"level": SECRET}})
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


def test_the_defaults() -> None:
    settings = Settings(data_dir=Path("/data"))
    assert settings.database.url is None
    assert settings.sources == {"main": SourceSettings(expose=("public.*",))}
    assert (settings.datasets, settings.files, settings.upstreams) == ({}, {}, {})
    assert settings.source_url("main") is None
    assert settings.limits.model_dump() == {
        "stall_timeout": 60,
        "max_duration": 14_400,
        "artifact_ttl": 604_800,
        "prime_timeout": 20,
        "slot_timeout": 5,
        "header_timeout": 10,
        "drain_timeout": 30,
        "flush_interval": 0.1,
        "close_timeout": 5,
        "ping_interval": 15,
        "join_max_age": 10,
        "lease": 15,
        "record_ttl": 2_592_000,
        "generation_ttl": 86_400,
        "chunk_size": 262_144,
        "max_line": 1_048_576,
        "min_free_space": 1_073_741_824,
        "max_artifact_size": 0,
        "max_attempts": 4,
        "max_queued": 1_000,
        "max_queued_per_caller": 200,
    }
    assert settings.worker.model_dump() == {"concurrency": 4}
    assert settings.server.model_dump() == {
        "host": "127.0.0.1",
        "port": 8000,
        "cors_origins": (),
        "root_path": "",
        "allow_anonymous": False,
        "processes": 1,
        "secret": None,
    }
    assert settings.log.model_dump() == {"level": "info", "format": "json"}
    source, dataset = SourceSettings(), DatasetSettings(table="t")
    assert (source.url, source.lane, source.expose) == (None, "auto", ())
    assert (source.max_connections, source.max_jobs) == (8, 4)
    assert (dataset.source, dataset.sql, dataset.key, dataset.columns) == (
        "main",
        None,
        None,
        ("*",),
    )
    assert (dataset.title, dataset.description) == (None, None)


def test_main_exposes_nothing_of_a_database_that_was_named() -> None:
    settings = Settings(database=DatabaseSettings(url=URL))
    assert settings.sources == {"main": SourceSettings()}
    assert settings.source_url("main") == settings.database.url


def test_a_named_source_is_all_there_is() -> None:
    settings = Settings(sources={"wh": SourceSettings(url=URL)})
    assert list(settings.sources) == ["wh"]
    assert settings.sources["wh"].expose == ()
    assert str(settings.source_url("wh")).startswith("postgresql+asyncpg://")


def test_a_dataset_needs_a_source_that_exists() -> None:
    dataset = DatasetSettings(table="t", source="wh")
    told = first_message(Settings, datasets={"d": dataset})
    assert told == "there is no such source"
    sources = {"wh": SourceSettings()}
    assert Settings(sources=sources, datasets={"d": dataset}).datasets["d"].source == "wh"


@pytest.mark.parametrize("values", [{}, {"table": "t", "sql": "select 1"}])
def test_a_dataset_is_a_table_or_sql(values: dict[str, str]) -> None:
    assert first_message(DatasetSettings, **values) == "either table or sql is needed, not both"


WRONG = [
    (SourceSettings, "max_connections", "should be greater than or equal to 1", [0, -1]),
    (SourceSettings, "max_connections", "should be less than or equal to 1000", [1001]),
    (SourceSettings, "max_connections", "should be a number", [True]),
    (SourceSettings, "expose", "is not a pattern", [["public"], ["*.*"], ["a.b.c"], [" a.b"], "a"]),
    (SourceSettings, "expose", "names a schema", [["tailrace.*"], ["pg_catalog.t"], "pg_toast.*"]),
    (SourceSettings, "expose", "names a schema", [["information_schema.*"]]),
    (DatasetSettings, "table", "names a schema", ["tailrace.exports", "pg_catalog.pg_authid"]),
    (DatasetSettings, "table", "is not a table's name", ["a.b.c", "public.*", "", '"a"', "a b"]),
    (DatasetSettings, "sql", "is empty", ["", " \n"]),
    (DatasetSettings, "key", "at least 1 item", [[], ""]),
    (DatasetSettings, "columns", "at least 1 item", [[]]),
    (DatasetSettings, "columns", "is empty", [[""], ["id", " "]]),
    (DatasetSettings, "source", "is not a valid name", [".x", "a b"]),
    (ServerSettings, "port", "should be less than or equal to 65535", [65_536, "65536"]),
    (ServerSettings, "port", "should be greater than or equal to 0", [-1]),
    (ServerSettings, "processes", "should be greater than or equal to 1", [0]),
    (ServerSettings, "host", "is empty", [""]),
    (ServerSettings, "root_path", "should begin with '/'", ["x", "/x/", "/", "x/"]),
    (ServerSettings, "cors_origins", "is not an origin", ["https://a.example/", "a.example"]),
    (LogSettings, "level", "should be 'debug', 'info'", ["loud", 5]),
    (LogSettings, "format", "should be 'json' or 'console'", ["xml"]),
    (Settings, "sources", "should be a valid dictionary", [False, [], "x"]),
    (Settings, "data_dir", "is not a path", ["", 5]),
]


@pytest.mark.parametrize(("model", "key", "message", "values"), WRONG)
def test_wrong_values_are_refused(
    model: type[Any], key: str, message: str, values: list[Any]
) -> None:
    others = {"table": "t"} if model is DatasetSettings else {}
    told = [first_message(model, **{**others, key: value}) for value in values]
    assert [message in one for one in told] == [True] * len(values)


RIGHT = [
    (SourceSettings, {"expose": ("public.*", "sales.daily", "tailrace2.*", "Größe.x")}),
    (DatasetSettings, {"table": "pages", "key": ("a", "b")}),
    (DatasetSettings, {"table": "pgx.t"}),
    (DatasetSettings, {"table": "tailrace"}),
    (ServerSettings, {"root_path": "/a/b", "port": 0}),
    (ServerSettings, {"cors_origins": ("*", "https://a.example:8443", "http://[::1]:3000")}),
]


@pytest.mark.parametrize(("model", "values"), RIGHT)
def test_right_values_are_kept(model: type[Any], values: dict[str, Any]) -> None:
    settings = model.model_validate(values)
    assert {key: getattr(settings, key) for key in values} == values


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "-a", "9", "x" * 100, "csv", "a.csv.b"])
def test_names_that_may_be(name: str) -> None:
    settings = Settings(datasets={name: DatasetSettings(table="t")})
    assert list(settings.datasets) == [name]


@pytest.mark.parametrize("name", ["", ".a", "a b", "a/b", "ä", "a\n", "x" * 101, "a.csv", "A.JSON"])
def test_names_that_may_not_be(name: str) -> None:
    dataset = {"table": "t"}
    with pytest.raises(ValidationError):
        Settings.model_validate({"datasets": {name: dataset}})


def test_only_datasets_may_not_end_like_a_format() -> None:
    assert "a.csv" in Settings(sources={"a.csv": SourceSettings()}).sources


def test_settings_cannot_be_changed_nor_extended() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.limits.chunk_size = 4096  # type: ignore[misc]
    for model in (Settings, DatabaseSettings, SourceSettings, LimitSettings, ServerSettings):
        assert first_message(model, surplus=1) == "Extra inputs are not permitted"


def test_settings_travel_to_other_processes() -> None:
    settings = Settings(
        database=DatabaseSettings(url=URL), datasets={"d": DatasetSettings(table="t")}
    )
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301


def test_the_data_directory_is_xdgs() -> None:
    home = {"HOME": "/home/u"}
    assert default_data_dir({"XDG_DATA_HOME": "/xdg", **home}) == Path("/xdg/tailrace")
    for environ in ({"XDG_DATA_HOME": "xdg", **home}, {"XDG_DATA_HOME": "", **home}, home):
        assert default_data_dir(environ) == Path("/home/u/.local/share/tailrace")
    assert default_data_dir({}) == Path("~/.local/share/tailrace")


def test_the_data_directory_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert Settings.model_validate({"data_dir": "here"}).data_dir == tmp_path / "here"
    assert Settings.model_validate({"data_dir": "~/t"}).data_dir == Path("/home/u/t")
    assert Settings().data_dir == Path("/xdg/tailrace")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ConfigurationMistakes, match="defaults: data_dir: is below a home"):
        load(None, {})


def test_every_key_can_say_what_it_expects() -> None:
    sections = ("database", "limits", "server", "log")
    for table in ((), ("sources", "x"), ("datasets", "x"), *((name,) for name in sections)):
        assert keys_at(table)
        assert all(expected_at((*table, key)) for key in keys_at(table))
    assert expected_at(("server", "allow_anonymous")) == "true or false"
    assert expected_at(("datasets", "x", "title")) == "a text"
    assert expected_at(("limits",)) == "a table [limits]"
    assert expected_at(("limits", "chunk_size")) == "a size from '4KiB' to '8MiB'"
    assert expected_at(("sources", "x", "expose", "0")).startswith("a list of")
    assert expected_at(("datasets", "x")) == "a table [datasets.x]"
