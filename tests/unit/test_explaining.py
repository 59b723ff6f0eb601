"""What ``tailrace check`` says of settings that are right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from service.configuration import load
from service.explaining import explain
from service.settings import ProviderSettings, Settings

SECRET = "hunter2secret"
ENVIRON = {"HOME": "/home/u"}
ALL = """\
data_dir = "/var/lib/tailrace"
[database]
url = "postgresql://tailrace:hunter2secret@db/tailrace"
[sources.main]
expose = ["public.*", "sales.daily"]
[sources."cold.store"]
lane = "copy"
[datasets.Flights]
table = "public.flights"
[datasets.routes]
source = "cold.store"
sql = "select 1 as id"
[limits]
stall_timeout = "90s"
[files.reports]
path = "/no/such/folder"
[files.here]
path = "."
[upstreams.archive]
base_url = "https://archive.example/exports"
paths = ["daily/", "weekly/"]
headers = { Authorization = "env:ARCHIVE_AUTHORIZATION", X-Key = "hunter2secret" }
forward = ["X-Tenant"]
redirects = ["cdn.example", "*.b.example"]
[upstreams.plain]
base_url = "http://10.0.0.7:8080"
methods = ["GET"]
[llm.default]
kind = "echo"
[llm.claude]
kind = "anthropic"
api_key = "hunter2secret"
model = "claude-sonnet-5"
[llm.own]
kind = "openai"
base_url = "http://10.0.0.8:8000/v1"
model = "qwen3"
[llm.keyless]
kind = "openai"
model = "m"
[relay]
allow_urls = true
ports = [443, 8443]
"""


def usable(_: ProviderSettings) -> str:
    return ""


def unusable(provider: ProviderSettings) -> str:
    return "It needs an api_key." if provider.model == "m" else ""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str, environ: Mapping[str, str] = ENVIRON) -> Settings:
    Path("tailrace.toml").write_text(text)
    return load(None, environ)


def test_defaults() -> None:
    assert load(None, ENVIRON) == Settings(data_dir=Path("/home/u/.local/share/tailrace"))
    text = explain(load(None, ENVIRON), usable)
    assert "configuration: no file\n" in text
    assert "  main: embedded PostgreSQL (the same), lane auto, at most 8 connections, " in text
    assert "exposes public.*\ndatasets:\n  only what the sources expose\n" in text
    assert "files:\n  none\nupstreams:\n  none\nfree addresses: not relayed\n" in text
    assert "\nlanguage models:\n  none\n" in text


def test_everything(tmp_path: Path) -> None:
    settings = read(ALL, ENVIRON | {"ARCHIVE_AUTHORIZATION": f"Bearer {SECRET}"})
    assert settings.upstreams["archive"].headers["Authorization"] == f"Bearer {SECRET}"
    assert (
        explain(settings, unusable)
        == f"""\
configuration: tailrace.toml
data directory: /var/lib/tailrace
database: postgresql://tailrace:***@db/tailrace
sources:
  main: postgresql://tailrace:***@db/tailrace (the same), lane auto, at most 8 connections, \
exposes public.*, sales.daily
  cold.store: postgresql://tailrace:***@db/tailrace (the same), lane copy, at most 8 connections, \
exposes nothing by itself
datasets:
  Flights: table public.flights of main
  routes: sql of cold.store
files:
  reports: /no/such/folder (not a folder now)
  here: {tmp_path}
upstreams:
  archive: GET, HEAD https://archive.example/exports/; only daily/, weekly/; \
sends Authorization, X-Key; passes on X-Tenant; may lead on to cdn.example, *.b.example
  plain: GET http://10.0.0.7:8080/
free addresses: relayed from public hosts, ports 443, 8443
language models:
  default: echo, a stand-in
  claude: anthropic, model claude-sonnet-5, with a key
  own: openai at http://10.0.0.8:8000/v1/, model qwen3, without a key
  keyless: openai, model m, without a key; cannot be asked: It needs an api_key.
limits: an export may take 4h and stall 1m30s; artifacts stay 7d, records 30d, generations 1d
jobs: 4 at once in each worker, 1000 may wait; 4 attempts, a lease of 15s; \
new ones need 1073741824 bytes of free space
server: 127.0.0.1 port 8000, processes: 1"""
    )


def test_a_folder_that_cannot_be_looked_at_is_none_now() -> None:
    Path("file").touch()
    for path in ("x" * 300, "file", "file/below"):
        told = explain(read(f'[files.a]\npath = "{path}"\n'), usable)
        assert f"{path} (not a folder now)\n" in told
