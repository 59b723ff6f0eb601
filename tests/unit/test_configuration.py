"""Files, variables and options in; settings or every mistake with its place out."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from service.configuration import ConfigurationMistakes, Mistake, load
from service.errors import ConfigurationError
from service.settings import DatasetSettings, Settings, SourceSettings, keys_at

SECRET = "hunter2secret"
URL = f"postgresql://reader:{SECRET}@db.internal/facts"
HOME = {"HOME": "/home/u", "PATH": "/bin", "LANG": "C"}
VALID = """\
# Tailrace
data_dir = "/var/lib/tailrace"
[database]
url = "postgresql://tailrace@db/tailrace"
[sources.main]
expose = [
  "public.*",  # all of it
  'sales.daily',
]
[sources."cold.store"]
lane = "copy"
[datasets.Flights]
table = "public.flights"
columns = ["id", "carrier"]
[datasets.routes]
source = "cold.store"
sql = \"\"\"
select 'a' as "stall_timeout = 5",
 [limits]
\"\"\"
title = "Routes"
[limits]
stall_timeout = "90s"
[server]
cors_origins = ["https://a.example"]
[log]
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str | bytes | None = None, *layers: Mapping[str, Any]) -> Settings:
    if text is not None:
        Path("tailrace.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    return load(None, {**HOME, **dict(*layers[:1])}, *layers[1:])


def mistakes(*given: Any) -> list[Mistake]:
    with pytest.raises(ConfigurationMistakes) as caught:
        read(*given)
    return list(caught.value.mistakes)


def told(*given: Any) -> list[tuple[str, str, str]]:
    return [(found.where, found.path, found.message) for found in mistakes(*given)]


def test_a_file() -> None:
    found = read(VALID)
    assert (str(found.data_dir), str(found.config_path)) == ("/var/lib/tailrace", "tailrace.toml")
    assert found.database.url == "postgresql+asyncpg://tailrace@db/tailrace"
    main = SourceSettings(expose=("public.*", "sales.daily"))
    assert found.sources == {"main": main, "cold.store": SourceSettings(lane="copy")}
    flights = DatasetSettings(table="public.flights", columns=("id", "carrier"))
    assert found.datasets["Flights"] == flights
    assert (found.datasets["routes"].title, found.limits.stall_timeout) == ("Routes", 90)
    assert found.server.cors_origins == ("https://a.example",)
    assert read(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode()) == found


@pytest.mark.parametrize(
    ("variable", "path", "value"),
    [
        ("TAILRACE_LIMITS__CHUNK_SIZE=8KiB", "limits/chunk_size", 8192),
        ("TAILRACE_limits__Stall_Timeout=1m", "limits/stall_timeout", 60.0),
        ("TAILRACE_LIMITS__STALL_TIMEOUT=", "limits/stall_timeout", 90.0),
        ("TAILRACE_SERVER__ALLOW_ANONYMOUS=true", "server/allow_anonymous", True),
        ("TAILRACE_SERVER__CORS_ORIGINS=http://a,*", "server/cors_origins", ("http://a", "*")),
        ("TAILRACE_SERVER__CORS_ORIGINS=[]", "server/cors_origins", ()),
        ("TAILRACE_DATA_DIR=/data", "data_dir", Path("/data")),
        ("TAILRACE_SOURCES__MAIN__LANE=copy", "sources/main/lane", "copy"),
        ("TAILRACE_SOURCES__COLD_STORE__LANE=copy", "sources/cold.store/lane", "copy"),
        ('TAILRACE_DATASETS__FLIGHTS__KEY=["a,b"]', "datasets/Flights/key", ("a,b",)),
        ("TAILRACE_DATASETS__NEW__ONE__TABLE=n", "datasets/new__one/table", "n"),
    ],
)
def test_the_environment_comes_over_the_file(variable: str, path: str, value: object) -> None:
    name, _, text = variable.partition("=")
    found: Any = read(VALID, {name: text})
    for key in path.split("/"):
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == value


def test_secrets_come_from_files_and_references() -> None:
    text = '[database]\nurl = "env:DB"\n[sources.main]\nexpose = ["env:A", "b.*"]\n'
    text += '[datasets.d]\nsql = "env: is no reference"\nkey = "env:KEYS"\n'
    found = read(text, {"DB": URL, "A": "a.*", "KEYS": "x,y"})
    assert found.database.url == URL.replace("postgresql:", "postgresql+asyncpg:")
    assert found.sources["main"].expose == ("a.*", "b.*")
    assert found.datasets["d"] == DatasetSettings(sql="env: is no reference", key=("x", "y"))
    Path("secret").write_text(f"  {URL}\n")
    assert read("", {"TAILRACE_DATASETS__D__SQL_FILE": "secret"}).datasets["d"].sql == URL


def test_options_come_over_the_environment_over_the_file() -> None:
    environ = {"TAILRACE_SERVER__PORT": "8001", "TAILRACE_SERVER__HOST": "::1"}
    overrides = {"server.port": 8002, "server.host": None, "data_dir": Path("/o")}
    found = read("[server]\nport = 8000\nhost = 'h'\n", environ, overrides)
    assert (found.server.port, found.server.host, found.data_dir) == (8002, "::1", Path("/o"))


def test_the_file_is_the_option_or_the_variable_or_here() -> None:
    for name, port in (("a.toml", 1), ("b.toml", 2), ("tailrace.toml", 3)):
        Path(name).write_text(f"[server]\nport = {port}\n")
    variable = {**HOME, "TAILRACE_CONFIG": "b.toml"}
    assert load(Path("a.toml"), variable).server.port == 1
    assert load(None, variable).server.port == 2
    assert load(None, {**HOME, "TAILRACE_CONFIG": ""}).server.port == 3


def test_kubernetes_may_say_where_a_service_is() -> None:
    for variable in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "DB_SERVICE_PORT", "PORT_80_TCP_ADDR"):
        assert read(None, {f"TAILRACE_{variable}": "10.0.0.1"}) == read()
    assert read(None, {"TAILRACE_PORT": "tcp://10.0.0.1:80", "TAILRACER": "1"}) == read()


# "#!" marks a line that is wrong, and says how. "---" parts the files.
WRONG_FILES = r"""
[limits]
stall_timeout = "60x"           #! limits.stall_timeout: is not a duration
stal_timeout = 1                #! limits.stal_timeout: is not a key here; did you mean 'stall_timeout'?
---
config_path = "x"               #! config_path: is not a key here
limits = 5                      #! limits: should be a table
[limit]                         #! limit: is not a key here; did you mean 'limits'?
a = 1
---
sources = 5                     #! sources: should be a table
[datasets]
d = 5                           #! datasets.d: should be a table
[datasets.e]
source = "not known now"        #! datasets.e.source: is not a valid name
table = "t"
[[datasets.f]]                  #! datasets.f: should be a table
[log]
format = "Jsn"                  #! log.format: should be 'json' or 'console'; did you mean 'json'?
---
[sources.main]
expose = [
  "a.*",
  "pg_catalog.*",               #! sources.main.expose.1: names a schema that is never exposed
  5,                            #! sources.main.expose.2: should be a valid string
]
[sources.x]
expose = 5                      #! sources.x.expose: should be a list
---
[datasets.d]                    #! datasets.d.sql: either table or sql is needed, not both
surplus = "t"                   #! datasets.d.surplus: is not a key here
[datasets.e]
tabel = "t"                     #! datasets.e.tabel: is not a key here; did you mean 'table'?
[datasets.sales.daily]          #! datasets.sales.daily: is not a key here; a name with a dot is quoted: [datasets."sales.daily"]
table = "t"
[datasets.f]
table = "t"
sql = "select 1"                #! datasets.f.sql: either table or sql is needed, not both
key = []                        #! datasets.f.key: is empty
[datasets."d.csv"]              #! datasets."d.csv": ends like a format, which a path would choose
table = "t"
title = 5                       #! datasets."d.csv".title: should be a valid string
---
[sources.other]
lane = "x"                      #! sources.other.lane: should be 'auto', 'copy' or 'rows'
[datasets.d]                    #! datasets.d.source: there is no such source
table = "t"
[datasets.e]
table = 5                       #! datasets.e.table: should be a valid string
source = "othre"                #! datasets.e.source: there is no such source; did you mean 'other'?
---
[database]
url = "env:NONE"                #! database.url: the environment variable NONE is not set
[sources.main]
expose = [
  "env:NONE",                   #! sources.main.expose.0: the environment variable NONE is not set
]
[datasets.d]
table = "env:EMPTY"             #! datasets.d.table: the environment variable EMPTY is not set
source = "env:NONE"             #! datasets.d.source: the environment variable NONE is not set
"""
WRONG_VARIABLES = """
TAILRACE_SURPLUS=                     #! : is not a setting
TAILRACE_CONFIG_PATH=x                #! : is not a setting; did you mean 'TAILRACE_CONFIG'?
TAILRACE_SERVER_PORT=x                #! : is not a setting; did you mean 'TAILRACE_SERVER__PORT'?
TAILRACE_SOURCES__X__LINE=x           #! : is not a setting; did you mean 'TAILRACE_SOURCES__X__LANE'?
TAILRACE_LIMITS__CHUNK_SIZE=9GB       #! limits.chunk_size: is not a size
TAILRACE_DATASETS__D__TITLE=x         #! datasets.d.sql: either table or sql is needed, not both
TAILRACE_DATASETS__FLIGHTS__SOURCE=x  #! datasets.Flights.source: there is no such source
TAILRACE_SOURCES__MAIN__EXPOSE=a.*,b  #! sources.main.expose.1: is not a pattern
TAILRACE_DATABASE__URL=env:NONE       #! database.url: the environment variable NONE is not set
TAILRACE_DATABASE__URL=               #! database.url: is empty
TAILRACE_SOURCES__MAIN__URL=          #! sources.main.url: is empty
TAILRACE_DATABASE__URL_FILE=/no       #! database.url: cannot read /no, or it is empty
TAILRACE_DATASETS__D__SQL_FILE=/no    #! datasets.d.sql: cannot read /no, or it is empty
"""
NO_TOML = [("[limits]\na = 1\na = 2\n# end\n", 3), ("[a]\n[a]\n\n", 2), ("\na = [\n", 2)]


@pytest.mark.parametrize("number", range(WRONG_FILES.count("---") + 1))
def test_mistakes_in_the_file(number: int) -> None:
    text = WRONG_FILES.split("---")[number]
    lines = [line.partition("#! ")[2] for line in text.splitlines()]
    found = [f"{where} {path}: {message}" for where, path, message in told(text, {"EMPTY": ""})]
    assert found == [f"tailrace.toml:{at} {line}" for at, line in enumerate(lines, 1) if line]


@pytest.mark.parametrize("line", WRONG_VARIABLES.strip().splitlines())
def test_mistakes_in_the_environment(line: str) -> None:
    variable, mistake = re.split(" +#! ", line)
    name, _, text = variable.partition("=")
    ((where, path, message),) = told(VALID, {name: text})
    assert (where, f"{path}: {message}") == (f"environment {name}", mistake)


def test_mistakes_of_all_layers_by_line() -> None:
    text = "[server]\nport = -1" + "\n" * 9 + "[limits]\nprime_timeout = 0\nx = 1\n[datasets.d]\n"
    environ = {"TAILRACE_X": "1", "TAILRACE_SERVER__PROCESSES": "x"}
    environ |= {"TAILRACE_LOG__LEVEL": "x", "TAILRACE_DATASETS__D__TITLE": "x"}
    overrides = {"server.processes": 0, "server.prot": 1}
    assert [(where, path) for where, path, _ in told(text, environ, overrides)] == [
        ("command line", "server.prot"),
        ("command line", "server.processes"),
        ("environment TAILRACE_LOG__LEVEL", "log.level"),
        ("environment TAILRACE_X", ""),
        ("tailrace.toml:2", "server.port"),
        ("tailrace.toml:12", "limits.prime_timeout"),
        ("tailrace.toml:13", "limits.x"),
        ("tailrace.toml:14", "datasets.d.sql"),
    ]


def test_mistakes_about_names_and_doubles() -> None:
    text = "[datasets.a-b]\ntable = 'x'\n[datasets.\"a.b\"]\ntable = 'y'\n"
    variable = "TAILRACE_DATASETS__A_B__TITLE"
    assert told(text, {variable: "x"})[0][0] == f"environment {variable}"
    Path("secret").write_text(URL)
    variable, message = "TAILRACE_DATABASE__URL", "is set by TAILRACE_DATABASE__URL already"
    found = told("", {variable: URL, f"{variable}_FILE": "secret"})
    assert found == [(f"environment {variable}_FILE", "database.url", message)]


def test_what_is_not_toml() -> None:
    for text, line in NO_TOML:
        ((where, path, message),) = told(text)
        assert (where, path) == (f"tailrace.toml:{line}", "")
        assert message.startswith("is not TOML: ")
    assert told(b"# \xc3\xa4\n\n# \xe4\n") == [("tailrace.toml:3", "", "is not UTF-8")]
    for text in (f"a = {'[' * 20_000}", f"a = {'9' * 5_000}"):
        assert [where for where, _, _ in told(text)] == ["tailrace.toml"]
    found = told("[limits\n", {"TAILRACE_DATASETS__D__TITLE": "x", "TAILRACE_X": "1"})
    assert [where for where, _, _ in found] == ["environment TAILRACE_X", "tailrace.toml:1"]


def test_a_named_file_that_is_not_there() -> None:
    message = "cannot read no.toml: No such file or directory"
    variable = {"TAILRACE_CONFIG": "no.toml"}
    assert told(None, variable) == [("environment TAILRACE_CONFIG", "", message)]
    for path, reason in ((Path("no.toml"), message), (Path("/"), "cannot read /: Is a directory")):
        with pytest.raises(ConfigurationMistakes) as caught:
            load(path, variable)
        assert caught.value.mistakes == (Mistake("command line", "", reason),)


@pytest.mark.parametrize("table", ["", "database", "limits", "server", "log", "sources.x"])
def test_an_unknown_key_is_told_with_the_known(table: str) -> None:
    (found,) = mistakes(f"\n{f'[{table}]' if table else ''}\nsurplus = 1\n")
    known = keys_at(tuple(table.split(".")) if table else ())
    assert (found.where, found.path) == ("tailrace.toml:3", f"{table}.surplus".strip("."))
    assert found.expected == f"one of {', '.join(known)}"


def test_how_mistakes_read() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read("[limits]\nchunk_size = 'x'\n[log]\nlvel = 1\nformat = 2\n")
    assert (
        caught.value.detail
        == """\
3 mistakes in the configuration:
  tailrace.toml:2: limits.chunk_size: is not a size (expected: a size from '4KiB' to '8MiB')
  tailrace.toml:4: log.lvel: is not a key here; did you mean 'level'? (expected: one of level, format)
  tailrace.toml:5: log.format: should be 'json' or 'console' (expected: one of json, console)"""
    )


KEYS = st.one_of(
    st.from_regex(r"\A[A-Za-z0-9_-]{1,12}\Z"),
    st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters='"\\')),
    st.sampled_from(["table", "url", "a.b", "#", "[limits]", "'''", "=", "[key]"]),
)
VALUES = ["1", "{a = 'b'}", "[\n[1],\n]", '"""\n[x]\na = 1\\""""""', "'''\n'' #\n'''''", '"[" # "']
# A statement may begin before each line of VALID that is not inside of a list or of a text.
STATEMENTS = sorted({*range(1, 28)} - {7, 8, 9, 18, 19, 20})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(key=KEYS, line=st.sampled_from(STATEMENTS), value=st.sampled_from(VALUES))
def test_any_surplus_key_is_told_at_its_line(key: str, line: int, value: str) -> None:
    lines = VALID.splitlines()
    headers = [text for text in lines[: line - 1] if text.startswith("[")]
    table = headers[-1].strip("[]") if headers else ""
    names = tuple(name.strip('"') for name in table.split(".", 1)) if table else ()
    assume(key not in (*keys_at(names), "last"))
    lines.insert(line - 1, f'"{key}" = {value}')
    (where, path, _), last = told("\n".join((*lines, "last = 1")))
    assert where == f"tailrace.toml:{line}"
    assert tomllib.loads(f"{path} = 1") == tomllib.loads(f'{table}{"." * bool(table)}"{key}" = 1')
    assert last[0] == f"tailrace.toml:{len(VALID.splitlines()) + value.count(chr(10)) + 2}"
