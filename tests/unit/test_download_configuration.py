"""Folders, upstreams and free addresses from file and environment; their secrets from both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.configuration import ConfigurationMistakes, load
from service.settings import Settings

SECRET = "hunter2secret"
HOME = {"HOME": "/home/u"}
VALID = """\
[files.reports]
path = "/srv/reports"
[files."old.reports"]
path = "/srv/old"
hidden = true
[upstreams.archive]
base_url = "https://archive.example/exports"
headers = { Authorization = "env:AUTHORIZATION", X-Key = "file:key", X-Plain = "plain" }
max_size = "1GiB"
[upstreams.plain]
base_url = "http://10.0.0.7:8080/"
[upstreams.plain.headers]
X-Key = "env:KEY"
[relay]
allow_urls = true
ports = [443]
[limits]
max_line = "2MiB"
"""
SECRETS = {"AUTHORIZATION": f"Bearer {SECRET}", "KEY": SECRET}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key").write_text(f" {SECRET}\n")


def read(text: str, environ: Mapping[str, str] = SECRETS) -> Settings:
    Path("tailrace.toml").write_text(text)
    return load(None, HOME | dict(environ))


def told(text: str, environ: Mapping[str, str] = SECRETS) -> list[str]:
    with pytest.raises(ConfigurationMistakes) as caught:
        read(text, environ)
    assert SECRET not in caught.value.detail
    found = caught.value.mistakes
    return [f"{mistake.where} {mistake.path}: {mistake.message}" for mistake in found]


def archive(headers: str) -> str:
    return f'[upstreams.a]\nbase_url = "https://h/"\nheaders = {headers}\n'


def test_a_file() -> None:
    found = read(VALID)
    assert found.files["reports"].path == Path("/srv/reports")
    assert (found.files["old.reports"].path, found.files["old.reports"].hidden) == (
        Path("/srv/old"),
        True,
    )
    upstream = found.upstreams["archive"]
    assert (upstream.base_url, upstream.max_size) == ("https://archive.example/exports/", 1024**3)
    assert upstream.headers == {
        "Authorization": f"Bearer {SECRET}",
        "X-Key": SECRET,
        "X-Plain": "plain",
    }
    assert found.upstreams["plain"].headers == {"X-Key": SECRET}
    assert (found.relay.allow_urls, found.relay.ports) == (True, (443,))
    assert found.limits.max_line == 2 * 1024**2


@pytest.mark.parametrize(
    ("variable", "path", "value"),
    [
        ("TAILRACE_FILES__REPORTS__PATH=/other", "files/reports/path", Path("/other")),
        ("TAILRACE_FILES__OLD_REPORTS__HIDDEN=false", "files/old.reports/hidden", False),
        ("TAILRACE_FILES__NEW__PATH=/new", "files/new/path", Path("/new")),
        ("TAILRACE_FILES__NEW__PATH_FILE=key", "files/new/path", None),
        ("TAILRACE_UPSTREAMS__ARCHIVE__MAX_SIZE=5MiB", "upstreams/archive/max_size", 5 * 1024**2),
        ("TAILRACE_UPSTREAMS__ARCHIVE__MAX_SIZE=", "upstreams/archive/max_size", 1024**3),
        (
            "TAILRACE_UPSTREAMS__ARCHIVE__BASE_URL=http://h",
            "upstreams/archive/base_url",
            "http://h/",
        ),
        ("TAILRACE_UPSTREAMS__ARCHIVE__METHODS=HEAD", "upstreams/archive/methods", ("HEAD",)),
        ("TAILRACE_UPSTREAMS__ARCHIVE__PATHS=a/,b/", "upstreams/archive/paths", ("a/", "b/")),
        ("TAILRACE_UPSTREAMS__ARCHIVE__CA_FILE=/ca", "upstreams/archive/ca_file", Path("/ca")),
        ("TAILRACE_UPSTREAMS__ARCHIVE__HTTP2=true", "upstreams/archive/http2", True),
        ("TAILRACE_UPSTREAMS__NEW__BASE_URL=http://h", "upstreams/new/base_url", "http://h/"),
        (
            'TAILRACE_UPSTREAMS__ARCHIVE__HEADERS={"X": "y"}',
            "upstreams/archive/headers",
            {"X": "y"},
        ),
        ("TAILRACE_UPSTREAMS__ARCHIVE__HEADERS={}", "upstreams/archive/headers", {}),
        ('TAILRACE_UPSTREAMS__PLAIN__HEADERS={"X": "y"}', "upstreams/plain/headers", {"X": "y"}),
        ("TAILRACE_RELAY__ALLOW_URLS=false", "relay/allow_urls", False),
        ("TAILRACE_RELAY__PORTS=80,8080", "relay/ports", (80, 8080)),
        ("TAILRACE_RELAY__CA_FILE=/ca", "relay/ca_file", Path("/ca")),
        ("TAILRACE_RELAY__MAX_DURATION=1h", "relay/max_duration", 3_600.0),
        ("TAILRACE_LIMITS__MAX_LINE=64KiB", "limits/max_line", 65_536),
    ],
)
def test_the_environment_comes_over_the_file(
    variable: str, path: str, value: object, tmp_path: Path
) -> None:
    name, _, text = variable.partition("=")
    found: Any = read(VALID, SECRETS | {name: text})
    for key in path.split("/"):
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == (tmp_path / SECRET if value is None else value)


HEADERS = "TAILRACE_UPSTREAMS__A__HEADERS"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        (archive('{ X = "env:KEY" }'), {}),
        (archive('{ X = "file:key" }'), {}),
        (archive('"env:JSON"'), {}),
        (archive('"file:json"'), {}),
        (archive("{}"), {HEADERS: f'{{"X": "{SECRET}"}}'}),
        (archive("{}"), {HEADERS: "env:JSON"}),
        (archive("{}"), {HEADERS: "file:json"}),
        (archive('{ Y = "env:NONE" }'), {f"{HEADERS}_FILE": "json"}),
    ],
    ids=[
        "env",
        "file",
        "all by env",
        "all by file",
        "json",
        "json by env",
        "json by file",
        "_FILE",
    ],
)
def test_secrets_of_headers(text: str, environ: dict[str, str]) -> None:
    Path("json").write_text(f'{{"X": "{SECRET}"}}\n')
    secrets = {"KEY": SECRET, "JSON": f'{{"X": "{SECRET}"}}'}
    assert read(text, secrets | environ).upstreams["a"].headers == {"X": SECRET}


NOT_LOOKED_UP = "names where a value is, in a place that is not looked up"


@pytest.mark.parametrize(
    ("headers", "mistake"),
    [
        ('{ X = "env:NONE" }', "X: the environment variable NONE is not set"),
        ('{ X = "env:EMPTY" }', "X: the environment variable EMPTY is not set"),
        ('{ X = "file:none" }', "X: cannot read none, or it is empty"),
        ('{ X = "file:" }', "X: cannot read ., or it is empty"),
        ('{ X = "file:blank" }', "X: cannot read blank, or it is empty"),
        ('{ X = "file:latin" }', "X: cannot read latin, or it is empty"),
        ('{ X = "file:lines" }', "X: is empty or not printable ASCII"),
        ('{ X = "env:LINES" }', "X: is empty or not printable ASCII"),
        ('{ X = "env:REFERENCE" }', f"X: {NOT_LOOKED_UP}"),
        ('{ X = "file:reference" }', f"X: {NOT_LOOKED_UP}"),
        ('{ X = "env: KEY" }', f"X: {NOT_LOOKED_UP}"),
        ('{ X = "Bearer env:KEY" }', f"X: {NOT_LOOKED_UP}"),
        ('{ X = "Bearer file:key" }', f"X: {NOT_LOOKED_UP}"),
        ('\'{ "X": "env:KEY" }\'', f"X: {NOT_LOOKED_UP}"),
        ('\'{ "X": "file:key" }\'', f"X: {NOT_LOOKED_UP}"),
        ('["env:KEY"]', "should be a table"),
        ('"env:KEY"', "is not a JSON object"),
        ('"file:key"', "is not a JSON object"),
        ("5", "should be a table"),
        ("{ X = 5 }", "X: should be a valid string"),
        ("{ X.Y = 'env:KEY' }", "X: should be a valid string"),
        ("{ Host = 'env:KEY' }", "Host: is a header that Tailrace sets by itself"),
        ("{ 'a b' = 'env:KEY' }", '"a b": is not the name of a header'),
        ("{ X = 'env:KEY', x = 'env:KEY' }", "names a header twice"),
    ],
)
def test_mistakes_in_headers(headers: str, mistake: str) -> None:
    Path("blank").write_text(" \n")
    Path("latin").write_bytes(b"\xe4")
    Path("lines").write_text(f"{SECRET}\n{SECRET}\n")
    Path("reference").write_text("env:KEY\n")
    environ = {"KEY": SECRET, "EMPTY": "", "LINES": f"{SECRET}\r\nX: y", "REFERENCE": "file:key"}
    path = "upstreams.a.headers" + (": " if mistake[0].islower() else ".")
    assert told(archive(headers), environ) == [f"tailrace.toml:3 {path}{mistake}"]


@pytest.mark.parametrize("path", ["files.a.path", "upstreams.a.base_url", "upstreams.a.ca_file"])
def test_only_headers_come_from_files(path: str) -> None:
    table, _, key = path.rpartition(".")
    needed = "" if key == "path" else '\nbase_url = "https://h/"' * (key != "base_url")
    text = f'[{table}]{needed}\n{key} = "file:key"\n'
    if key == "base_url":
        assert told(text)[0].startswith(f"tailrace.toml:2 {path}: is not an http or https URL")
    else:
        settings: Any = read(text)
        section = settings.files if key == "path" else settings.upstreams
        assert getattr(section["a"], key).name == "file:key"


# "#!" marks a line that is wrong, and says how. "---" parts the files.
WRONG_FILES = r"""
[files.reports]                 #! files.reports.path: is needed
[files.typo]
pth = "/x"                      #! files.typo.pth: is not a key here; did you mean 'path'?
[files.both]
path = ""                       #! files.both.path: is not a path
pth = "/x"                      #! files.both.pth: is not a key here; did you mean 'path'?
[files.sales.daily]             #! files.sales.daily: is not a key here; a name with a dot is quoted: [files."sales.daily"]
path = "/x"
[files."a b"]                   #! files."a b": is not a valid name
path = "/x"
[file.x]                        #! file: is not a key here; did you mean 'files'?
---
files = "/srv"                  #! files: should be a table
upstreams = []                  #! upstreams: should be a table
relay = true                    #! relay: should be a table
---
[files]
reports = "/srv"                #! files.reports: should be a table
[upstreams]
archive = "https://h/"          #! upstreams.archive: should be a table
---
[upstreams.a]                   #! upstreams.a.base_url: is needed
http2 = "maybe"                 #! upstreams.a.http2: should be a valid boolean, unable to interpret input
[upstreams.b]
base_ulr = "https://h/"         #! upstreams.b.base_ulr: is not a key here; did you mean 'base_url'?
[upstreams.c]
base_url = "env:NONE"           #! upstreams.c.base_url: the environment variable NONE is not set
[upstreams.d]
base_url = "https://user:hunter2secret@h/" #! upstreams.d.base_url: is not an http or https URL with a host, without user, query and '#'
methods = [
  "GET",
  "PUT",                        #! upstreams.d.methods.1: is neither GET nor HEAD
]
redirects = ["a:0"]             #! upstreams.d.redirects.0: names a port that is none
forward = ["Cookie", "Host"]    #! upstreams.d.forward.1: is a header that Tailrace sets by itself
[upstreams.d.headers]
Accept = "hunter2secret\n"      #! upstreams.d.headers.Accept: is empty or not printable ASCII
[upstreams.eu.archive]          #! upstreams.eu.archive: is not a key here; a name with a dot is quoted: [upstreams."eu.archive"]
base_url = "https://h/"
---
[relay]
allow_url = true                #! relay.allow_url: is not a key here; did you mean 'allow_urls'?
ports = []                      #! relay.ports: is empty
base_url = "https://h/"         #! relay.base_url: is not a key here
max_duration = "25d"            #! relay.max_duration: should be less than or equal to 2147483
"""
WRONG_VARIABLES = """
TAILRACE_FILES__REPORTS__PTH=/x       #! : is not a setting; did you mean 'TAILRACE_FILES__REPORTS__PATH'?
TAILRACE_FILES__REPORTS=/x            #! : is not a setting
TAILRACE_FILES__NEW__LISTING=false    #! files.new.path: is needed
TAILRACE_UPSTREAMS__NEW__HTTP2=true   #! upstreams.new.base_url: is needed
TAILRACE_UPSTREAMS__PLAIN__METHODS=[] #! upstreams.plain.methods: is empty
TAILRACE_UPSTREAMS__PLAIN__METHODS=GET,PUT #! upstreams.plain.methods.1: is neither GET nor HEAD
TAILRACE_UPSTREAMS__PLAIN__HEADERS=X: hunter2secret #! upstreams.plain.headers: is not a JSON object
TAILRACE_UPSTREAMS__PLAIN__HEADERS=["hunter2secret"] #! upstreams.plain.headers: is not a JSON object
TAILRACE_UPSTREAMS__PLAIN__HEADERS={"X": "env:KEY"} #! upstreams.plain.headers.X: names where a value is, in a place that is not looked up
TAILRACE_UPSTREAMS__PLAIN__HEADERS={"X": "file:key"} #! upstreams.plain.headers.X: names where a value is, in a place that is not looked up
TAILRACE_UPSTREAMS__PLAIN__HEADERS={"X": {"Y": "hunter2secret"}} #! upstreams.plain.headers.X: should be a valid string
TAILRACE_UPSTREAMS__PLAIN__HEADERS__AUTHORIZATION=y #! : is not a setting; did you mean 'TAILRACE_UPSTREAMS__PLAIN__HEADERS'?
TAILRACE_UPSTREAMS__PLAIN__HEADERS_FILE=/no #! upstreams.plain.headers: cannot read /no, or it is empty
TAILRACE_RELAY__PORTS=80,http         #! relay.ports.1: should be a valid integer, unable to parse string as an integer
TAILRACE_RELAY__ALLOW_URL=true        #! : is not a setting; did you mean 'TAILRACE_RELAY__ALLOW_URLS'?
TAILRACE_LIMITS__MAX_LINE=1000        #! limits.max_line: should be greater than or equal to 1024
"""


@pytest.mark.parametrize("number", range(WRONG_FILES.count("---") + 1))
def test_mistakes_in_the_file(number: int) -> None:
    text = WRONG_FILES.split("---")[number]
    lines = [line.partition("#! ")[2] for line in text.splitlines()]
    assert told(text) == [f"tailrace.toml:{at} {line}" for at, line in enumerate(lines, 1) if line]


@pytest.mark.parametrize("line", WRONG_VARIABLES.strip().splitlines())
def test_mistakes_in_the_environment(line: str) -> None:
    variable, mistake = re.split(" +#! ", line)
    name, _, text = variable.partition("=")
    assert told(VALID, SECRETS | {name: text}) == [f"environment {name} {mistake}"]
