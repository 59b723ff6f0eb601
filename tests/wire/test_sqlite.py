"""A SQLite file beside Tailrace's own database: streams, proofs, counts, cursors, and ``check``."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard

from tests.clients import Answer, ask
from tests.commands import tailrace
from tests.serving import Served, environment, without_worker
from tests.sqlite_files import insert, written

ROWS = 3_000
HALF = ROWS // 2
TABLES = """
    PRAGMA journal_mode = wal;
    CREATE TABLE cities (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, size REAL, raw BLOB, big BOOLEAN, doc JSON
    );
    CREATE TABLE "what else?" (a);
"""
COLUMNS = ("id", "name", "size", "raw", "big", "doc")
PATHS = ("cities", "python.cities")  # the second source leaves the text to Python


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("files") / "cities 100%.db"
    with written(found, TABLES) as connection:
        rows = [
            (n, f'näme "{n}", ünd\n', n / 3, bytes([n % 256]), n % 2, '{"n":\n [1]}')
            for n in range(1, ROWS + 1)
        ]
        insert(connection, "cities", rows)
        connection.execute("ANALYZE")
    return found


@pytest.fixture(scope="module")
def config(path: Path) -> str:
    url = f"sqlite:///{quote(str(path))}"
    return f"""
        [sources.files]
        url = "{url}"
        expose = ["main.*"]
        [sources.python]
        url = "{url}"
        expose = ["main.*"]
        lane = "rows"
        [datasets.large]
        source = "files"
        sql = "SELECT id, name AS n FROM cities WHERE size > 500 -- thousands"
        key = ["id"]
        title = "Large cities"
        [datasets.broken]
        source = "files"
        sql = "DELETE FROM cities"
    """


@pytest.fixture(scope="module")
def served(
    module_database_url: str, config: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=config
    ) as found:
        yield found


def get(served: Served, target: str, **headers: str) -> Answer:
    answer = ask(served.base, target, headers=headers)
    assert answer.status == 200, answer.body
    return answer


@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
def test_both_lanes_send_the_same_file(served: Served, form: str) -> None:
    first, second = (get(served, f"/v1/rows/{name}.{form}") for name in PATHS)
    assert first.body == second.body
    lanes = [event["lane"] for event in served.events("stream ended")][-2:]
    assert lanes == ["lines", "rows"]


def test_csv(served: Served) -> None:
    header, *rows = csv.reader(get(served, "/v1/rows/cities.csv").body.decode().splitlines(True))
    assert tuple(header) == COLUMNS
    assert len(rows) == ROWS
    assert rows[0] == [
        "1", 'näme "1", ünd\n', "0.3333333333333333", "\\x01", "true", '{"n":\n [1]}'
    ]  # fmt: skip


def test_ndjson_ends_with_its_proof_and_the_place_to_go_on(served: Served) -> None:
    target = f"/v1/rows/cities.ndjson?order=name.desc&end=1&limit={HALF}"
    pages: list[bytes] = []
    cursor = None
    while True:
        after = f"&after={cursor}" if cursor else ""
        body = get(served, target + after).body
        whole, _, last = body.removesuffix(b"\n").rpartition(b"\n")
        page = whole + b"\n" if whole else b""
        end = json.loads(last)["_end"]
        assert end["status"] == "complete"
        assert end["rows"] == page.count(b"\n")
        assert end["sha256"] == hashlib.sha256(page).hexdigest()
        pages.append(page)
        cursor = end["next_cursor"]
        if not page:
            break
    assert [page.count(b"\n") for page in pages] == [HALF, HALF, 0]
    assert b"".join(pages) == get(served, "/v1/rows/cities.ndjson?order=name.desc").body


def test_json(served: Served) -> None:
    rows = json.loads(get(served, "/v1/rows/cities.json?limit=2&select=id,big,raw,doc").body)
    assert rows == [
        {"id": 1, "big": True, "raw": "\\x01", "doc": {"n": [1]}},
        {"id": 2, "big": False, "raw": "\\x02", "doc": {"n": [1]}},
    ]


def test_the_receipt(served: Served) -> None:
    answer = get(served, "/v1/rows/cities.csv")
    receipt = get(served, str(answer.link("receipt"))).json()
    assert receipt["outcome"] == "complete"
    assert (receipt["rows"], receipt["bytes"]) == (ROWS, len(answer.body))
    assert receipt["sha256"] == hashlib.sha256(answer.body).hexdigest()
    assert receipt["snapshot"]["lsn"] is None
    assert receipt["started_at"] <= receipt["snapshot"]["at"] <= receipt["finished_at"]
    again = get(served, "/v1/rows/cities.csv")
    other = get(served, "/v1/rows/cities.csv?id=lt.10")
    digests = [
        get(served, str(asked.link("receipt"))).json()["query_sha256"] for asked in (again, other)
    ]
    assert digests[0] == receipt["query_sha256"] != digests[1]


def test_the_datasets(served: Served) -> None:
    listed = {item["name"]: item for item in served.get("/v1/datasets")["datasets"]}
    names = {"cities", "what else?"}
    assert listed.keys() == names | {f"python.{name}" for name in names} | {"large"}
    assert listed["cities"]["estimated_rows"] == ROWS
    found = served.get("/v1/datasets/cities")
    assert found["key"] == ["id"]
    columns = [(item["name"], item["type"], item["nullable"]) for item in found["columns"]]
    assert columns[:3] == [
        ("id", "integer", False),
        ("name", "text", False),
        ("size", "real", True),
    ]
    strange = served.get(f"/v1/datasets/{quote('what else?')}")
    assert strange["key"] == []
    assert get(served, f"/v1/rows/{quote('what else?')}.csv").body == b"a\n"
    assert get(served, "/").body.count(b"cities") > 0
    broken = ask(served.base, "/v1/rows/broken.csv")
    assert broken.status == 404
    assert "syntax error" in broken.json()["detail"]


@pytest.mark.parametrize("asked", ["exact", "estimated"])
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_counts(served: Served, asked: str, name: str, method: str) -> None:
    """The planner of SQLite tells no numbers, so whoever asks for a guess gets the count."""
    target = f"/v1/rows/{name}.csv?id=gt.10&limit=5&select=id"
    answer = ask(served.base, target, method, {"Prefer": f"count={asked}"})
    assert answer.status == 200
    assert answer.headers["X-Total-Count"] == str(ROWS - 10)
    assert answer.headers["X-Total-Count-Kind"] == "exact"
    assert answer.headers["Content-Range"] == f"0-4/{ROWS - 10}"
    assert answer.body.count(b"\n") == (0 if method == "HEAD" else 1 + 5)


def test_compression(served: Served) -> None:
    plain = get(served, "/v1/rows/cities.csv").body
    assert gzip.decompress(get(served, "/v1/rows/cities.csv?compression=gzip").body) == plain
    packed = get(served, "/v1/rows/cities.csv", **{"Accept-Encoding": "zstd"})
    assert packed.headers["Content-Encoding"] == "zstd"
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed.body) == plain


def test_a_configured_query(served: Served) -> None:
    answer = get(served, "/v1/rows/large.csv?n=like.*999*&order=id.desc&select=id")
    assert answer.body == b"id\n2999\n1999\n"
    assert served.get("/v1/datasets/large")["title"] == "Large cities"


def test_the_spreadsheet_profile(served: Served) -> None:
    first, second = (get(served, f"/v1/rows/{name}.csv?profile=excel&limit=3") for name in PATHS)
    assert first.body == second.body
    assert first.body.startswith(b"\xef\xbb\xbfid,name,")
    assert first.body.count(b"\r\n") == 4


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("name=match.^a", "unsupported", "name"),
        ("or=(id.eq.1,name.imatch.a)", "unsupported", "or"),
        ("name=fts.a", "unsupported", "name"),
        ("nothing=eq.1", "unknown_column", "nothing"),
        ("id=eq.x", "invalid_parameter", "id"),
        ("id=eq.9223372036854775808", "invalid_parameter", "id"),
        ("big=eq.maybe", "invalid_parameter", "big"),
        ("after=x", "invalid_parameter", "after"),
        ("limit=-1", "invalid_parameter", "limit"),
    ],
)
@pytest.mark.parametrize("name", PATHS)
def test_mistakes(served: Served, name: str, query: str, code: str, parameter: str) -> None:
    answer = ask(served.base, f"/v1/rows/{name}.csv?{query}")
    assert (answer.status, answer.json()["code"]) == (400, code)
    assert answer.json()["parameter"] == parameter


def test_readiness_and_status(served: Served) -> None:
    assert get(served, "/readyz").status == 200
    sources = served.get("/v1/status")["sources"]
    assert sources.keys() >= {"files", "python"}


def test_a_file_that_is_away_is_a_503(module_database_url: str, tmp_path: Path) -> None:
    config = f'[sources.files]\nurl = "sqlite:///{tmp_path}/file.db"\nexpose = ["main.*"]\n'
    with written(tmp_path / "file.db", "CREATE TABLE t (a)"):
        pass
    with without_worker(tmp_path / "served", module_database_url, config=config) as served:
        assert get(served, "/v1/rows/t.csv").body == b"a\n"
        (tmp_path / "file.db").write_bytes(b"no database at all, whatever its name says " * 99)
        answer = ask(served.base, "/v1/rows/t.csv")
        assert (answer.status, answer.json()["code"]) == (503, "source_unavailable")
        assert "SQLite" in answer.json()["detail"]
        assert str(tmp_path) not in answer.body.decode()


def check(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    file = folder / "tailrace.toml"
    file.write_text(text)
    return tailrace("check", "--config", str(file), environ=environment(None))


def test_check_explains_the_file(tmp_path: Path) -> None:
    said = check(tmp_path, '[sources.files]\nurl = "sqlite:////data/what%3F%20now.db"\n')
    assert said.returncode == 0, said.stderr
    assert "sqlite:////data/what? now.db" in said.stdout
    assert "aiosqlite" not in said.stdout
    assert "mode=ro" not in said.stdout


def test_check_explains_every_mistake(tmp_path: Path) -> None:
    urls = ["sqlite:/x.db", "sqlite:///:memory:", "sqlite:////x.db?mode=rwc", "sqlite://host/x.db"]
    text = "".join(f'[sources.s{place}]\nurl = "{url}"\n' for place, url in enumerate(urls))
    said = check(tmp_path, text + '[sources.copy]\nurl = "sqlite:////x.db"\nlane = "copy"\n')
    assert said.returncode == 2
    for place in range(len(urls)):
        assert f"tailrace.toml:{2 * place + 2}: sources.s{place}.url" in said.stderr
    assert "sources.copy.lane: only PostgreSQL has COPY" in said.stderr
    assert "Traceback" not in said.stderr
