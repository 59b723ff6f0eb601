"""Settings of folders, upstreams and free addresses: what is read, what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.settings import (
    LimitSettings,
    RelaySettings,
    RootSettings,
    Settings,
    UpstreamSettings,
    expected_at,
    keys_at,
)
from tests.refusing import first_message

SECRET = "hunter2secret"
BASE = "https://archive.example/exports/"
NEEDED: dict[type[Any], dict[str, str]] = {
    RootSettings: {"path": "/srv"},
    UpstreamSettings: {"base_url": BASE},
}
TIMES = {
    "connect_timeout": 5,
    "first_byte_timeout": 30,
    "stall_timeout": 30,
    "max_duration": 14_400,
    "max_size": 0,
    "max_connections": 64,
    "retries": 3,
    "unframed": False,
    "ca_file": None,
}


def upstream(**values: Any) -> UpstreamSettings:
    return UpstreamSettings.model_validate({"base_url": BASE, **values})


def test_the_defaults() -> None:
    assert RootSettings(path=Path("/srv")).model_dump() == {
        "path": Path("/srv"),
        "hidden": False,
        "listing": True,
        "precompressed": False,
        "max_downloads": 256,
    }
    assert upstream().model_dump() == TIMES | {
        "base_url": BASE,
        "paths": (),
        "methods": ("GET", "HEAD"),
        "headers": {},
        "forward": (),
        "redirects": (),
        "http2": False,
    }
    free = TIMES | {"allow_urls": False, "ports": (80, 443)}
    assert Settings().relay.model_dump() == free
    assert LimitSettings().max_line == 1024**2


@pytest.mark.parametrize(("model", "key"), [(RootSettings, "path"), (UpstreamSettings, "base_url")])
def test_what_has_no_default_is_needed(model: type[Any], key: str) -> None:
    assert first_message(model) == "Field required"
    assert model.model_fields[key].is_required()


RIGHT: list[tuple[type[Any], str, Any, Any]] = [
    (RootSettings, "path", "/srv/reports", Path("/srv/reports")),
    (RootSettings, "path", Path("/srv"), Path("/srv")),
    (RootSettings, "path", "/srv/a b/ü", Path("/srv/a b/ü")),
    (RootSettings, "hidden", "true", True),
    (RootSettings, "listing", False, False),
    (RootSettings, "precompressed", True, True),
    (RootSettings, "max_downloads", "1", 1),
    (RootSettings, "max_downloads", 10_000, 10_000),
    (UpstreamSettings, "connect_timeout", "100ms", 0.1),
    (UpstreamSettings, "first_byte_timeout", 1, 1.0),
    (UpstreamSettings, "stall_timeout", "1h30m", 5_400.0),
    (UpstreamSettings, "max_duration", "24d", 24 * 86_400.0),
    (UpstreamSettings, "max_size", "512MiB", 512 * 1024**2),
    (UpstreamSettings, "max_size", 0, 0),
    (UpstreamSettings, "max_connections", 1, 1),
    (UpstreamSettings, "retries", 0, 0),
    (UpstreamSettings, "retries", "100", 100),
    (UpstreamSettings, "unframed", "true", True),
    (UpstreamSettings, "ca_file", "/etc/ssl/own.pem", Path("/etc/ssl/own.pem")),
    (UpstreamSettings, "ca_file", None, None),
    (UpstreamSettings, "http2", True, True),
    (UpstreamSettings, "paths", "daily/,weekly/", ("daily/", "weekly/")),
    (UpstreamSettings, "paths", [], ()),
    (UpstreamSettings, "methods", "GET", ("GET",)),
    (UpstreamSettings, "methods", ["HEAD"], ("HEAD",)),
    (UpstreamSettings, "methods", '["GET", "HEAD"]', ("GET", "HEAD")),
    (UpstreamSettings, "headers", {}, {}),
    (UpstreamSettings, "headers", '{"X-Key": "a b"}', {"X-Key": "a b"}),
    (UpstreamSettings, "headers", {"X!#$%&'*+.^_`|~-9": "!\t ~"}, {"X!#$%&'*+.^_`|~-9": "!\t ~"}),
    (UpstreamSettings, "headers", {"X": "profile:file", "Y": "a"}, {"X": "profile:file", "Y": "a"}),
    (UpstreamSettings, "headers", {"Hosts": "a", "X-If-A": "b"}, {"Hosts": "a", "X-If-A": "b"}),
    (UpstreamSettings, "forward", "X-Tenant, Accept-Language", ("X-Tenant", "Accept-Language")),
    (UpstreamSettings, "redirects", ["cdn.example", "*.b.example"], ("cdn.example", "*.b.example")),
    (RelaySettings, "allow_urls", True, True),
    (RelaySettings, "ports", "443", (443,)),
    (RelaySettings, "ports", [1, "65535"], (1, 65_535)),
    (LimitSettings, "max_line", "1KiB", 1024),
    (LimitSettings, "max_line", "64MiB", 64 * 1024**2),
]


@pytest.mark.parametrize(("model", "key", "written", "read"), RIGHT)
def test_right_values_are_kept(model: type[Any], key: str, written: Any, read: Any) -> None:
    settings = model.model_validate({**NEEDED.get(model, {}), key: written})
    assert getattr(settings, key) == read


CONNECTION = ["Host", "connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Expect", "Via"]
CONNECTION += ["Transfer-Encoding", "content-length", "Proxy-Authorization", "Range", "If-Range"]
WRONG: list[tuple[type[Any], str, str, list[Any]]] = [
    (RootSettings, "path", "is not a path", ["", 5, None, "/srv\0/x"]),
    (RootSettings, "listing", "valid boolean", ["maybe", 2]),
    (RootSettings, "max_downloads", "greater than or equal to 1", [0, -1]),
    (RootSettings, "max_downloads", "less than or equal to 10000", [10_001]),
    (RootSettings, "max_downloads", "should be a number", [True]),
    (UpstreamSettings, "connect_timeout", "is not a duration", ["soon", "", True]),
    (UpstreamSettings, "first_byte_timeout", "greater than 0", [0]),
    (UpstreamSettings, "stall_timeout", "greater than 0", ["0s"]),
    (UpstreamSettings, "max_duration", "less than or equal to 2147483", ["25d"]),
    (UpstreamSettings, "max_size", "is not a size", ["1TB", 1.5, True]),
    (UpstreamSettings, "max_size", "greater than or equal to 0", [-1]),
    (UpstreamSettings, "max_connections", "greater than or equal to 1", [0]),
    (UpstreamSettings, "retries", "greater than or equal to 0", [-1]),
    (UpstreamSettings, "retries", "less than or equal to 100", [101]),
    (UpstreamSettings, "ca_file", "is not a path", ["", 5, "a\0"]),
    (UpstreamSettings, "base_url", "should be a valid string", [5, None]),
    (UpstreamSettings, "methods", "is neither GET nor HEAD", [["POST"], "GET,get", ["GET", ""]]),
    (UpstreamSettings, "methods", "at least 1 item", [[], ""]),
    (UpstreamSettings, "methods", "valid tuple", [5, {"GET": 1}]),
    (
        UpstreamSettings,
        "headers",
        "is not a JSON object",
        ["", "[1]", "5", "{", "null", "[" * 9999],
    ),
    (UpstreamSettings, "headers", "valid dictionary", [5, [], [["X", "y"]]]),
    (UpstreamSettings, "headers", "valid string", [{"X": 5}, {"X": ["y"]}, '{"X": null}']),
    (
        UpstreamSettings,
        "headers",
        "is not the name",
        [{name: "x"} for name in ("", "a b", "ü", "a:")],
    ),
    (UpstreamSettings, "headers", "is not the name", [{"X\n": "x"}, {"X\r\nY": "x"}]),
    (UpstreamSettings, "headers", "sets by itself", [{name: "x"} for name in CONNECTION]),
    (
        UpstreamSettings,
        "headers",
        "is empty or not printable",
        [{"X": ""}, {"X": " x"}, {"X": "x "}],
    ),
    (UpstreamSettings, "headers", "is empty or not printable", [{"X": "a\r\nY: b"}, {"X": "a\n"}]),
    (UpstreamSettings, "headers", "is empty or not printable", [{"X": "ü"}, {"X": "a\0b"}]),
    (UpstreamSettings, "headers", "names a header twice", [{"X-Key": "a", "x-kEY": "b"}]),
    (UpstreamSettings, "headers", "names where a value is", [{"X": "env:A"}, {"X": "file:/a"}]),
    (
        UpstreamSettings,
        "headers",
        "names where a value is",
        [{"X": "Bearer env:A"}, {"X": "a\tfile:b"}],
    ),
    (UpstreamSettings, "forward", "is not the name", [["a b"], ["X\n"]]),
    (UpstreamSettings, "forward", "sets by itself", [[name] for name in CONNECTION]),
    (UpstreamSettings, "redirects", "should be a valid string", [[5]]),
    (RelaySettings, "allow_urls", "valid boolean", ["public"]),
    (RelaySettings, "ports", "greater than or equal to 1", [[0], [-1], "80,0"]),
    (RelaySettings, "ports", "less than or equal to 65535", [[65_536], "80,99999"]),
    (RelaySettings, "ports", "valid integer", ["http", [8.5]]),
    (RelaySettings, "ports", "should be a number", [[True]]),
    (RelaySettings, "ports", "at least 1 item", [[], ""]),
    (RelaySettings, "ports", "valid tuple", [80]),
    (LimitSettings, "max_line", "greater than or equal to 1024", [1023, 0]),
    (LimitSettings, "max_line", "less than or equal to 67108864", ["65MiB"]),
    (Settings, "files", "is not a valid name", [{"a b": {"path": "/"}}, {"..": {"path": "/"}}]),
    (Settings, "files", "is not a valid name", [{"": {"path": "/"}}, {"a/b": {"path": "/"}}]),
    (Settings, "upstreams", "is not a valid name", [{".a": {"base_url": BASE}}]),
    (Settings, "upstreams", "is not a valid name", [{"x" * 101: {"base_url": BASE}}]),
]


@pytest.mark.parametrize(("model", "key", "message", "values"), WRONG)
def test_wrong_values_are_refused(
    model: type[Any], key: str, message: str, values: list[Any]
) -> None:
    others = NEEDED.get(model, {})
    told = [first_message(model, **{**others, key: value}) for value in values]
    assert [one for one in told if message not in one] == []


@pytest.mark.parametrize("model", [RootSettings, UpstreamSettings, RelaySettings])
def test_unknown_keys_are_refused(model: type[Any]) -> None:
    needed = NEEDED.get(model, {})
    assert first_message(model, **needed, surplus=1) == "Extra inputs are not permitted"


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/u")
    root = RootSettings.model_validate({"path": "reports"})
    assert root.path == tmp_path / "reports"
    assert RootSettings.model_validate({"path": "~/r"}).path == Path("/home/u/r")
    assert upstream(ca_file="own.pem").ca_file == tmp_path / "own.pem"


def test_no_representation_shows_a_header() -> None:
    settings = Settings(upstreams={"a": upstream(headers={"X-Key": SECRET})})
    for text in (repr(settings), str(settings), repr(settings.upstreams), f"{settings.upstreams}"):
        assert SECRET not in text
        assert BASE in text


@pytest.mark.parametrize(
    "headers",
    [
        {"X": SECRET, "Host": "h"},
        {"X": f"{SECRET}\n"},
        {"X": f"env:{SECRET}"},
        {"X": [SECRET]},
        {"X": SECRET, "x": SECRET},
        [SECRET],
        f'{{"X": "{SECRET}"',
        f'["{SECRET}"]',
        SECRET,
    ],
    ids=range(9),
)
def test_no_mistake_shows_a_header(headers: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        upstream(headers=headers)
    for text in (str(caught.value), repr(caught.value), str(caught.value.errors()[0]["msg"])):
        assert SECRET not in text


def test_settings_cannot_be_changed_and_travel_to_other_processes() -> None:
    root = RootSettings(path=Path("/srv"))
    settings = Settings(files={"r": root}, upstreams={"a": upstream(headers={"X": SECRET})})
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301
    with pytest.raises(ValidationError, match="frozen"):
        settings.upstreams["a"].http2 = True  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.relay.allow_urls = True  # type: ignore[misc]


def test_every_key_can_say_what_it_expects() -> None:
    for table in (("files", "x"), ("upstreams", "x"), ("relay",), ("limits",)):
        assert keys_at(table)
        assert all(expected_at((*table, key)) for key in keys_at(table))
    assert expected_at(("files",)) == "a table [files]"
    assert expected_at(("upstreams", "x")) == "a table [upstreams.x]"
    assert expected_at(("upstreams", "x", "headers", "Authorization")).startswith("a table such as")
    assert expected_at(("upstreams", "x", "redirects", "0")) == 'a list such as ["cdn.example"]'
    assert expected_at(("relay", "ports", "0")) == "a list such as [80, 443]"
    assert expected_at(("files", "x", "hidden")) == "true or false"
