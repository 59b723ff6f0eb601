"""Jobs from request to file: how they end, are listed, estimated, tried again and deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clients import Answer, ask
from tests.jobs import artifacts, post
from tests.postgres import fetch, run_sql
from tests.serving import Served
from tests.session import Session, session
from tests.waiting import wait_until
from tests.wire.job_service import (
    NUMBERS,
    WITHIN,
    asked,
    closed_gate,
    done,
    entered,
    job_service,
    numbers_csv,
    reach,
    receipt,
    shown,
    written,
)
from tests.wire.problems import check_problem

SWITCH = """
    create table switch (n int);
    insert into switch values (0);
    create table measured (id int primary key, word text);
    insert into measured select i, md5(i::text) from generate_series(1, 500) i;
    analyze measured;
"""
CONFIG = """
[sources.main]
expose = ["public.measured"]
[datasets.switched]
sql = "select 1 / n as id from switch"
"""
OTHERS = "SELECT count(*) FROM tailrace.export_events WHERE export_id::text = $1"


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, SWITCH)
    folder = tmp_path_factory.mktemp("served")
    with job_service(folder, module_database_url, config=CONFIG) as found:
        yield found


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture
def gate(database: Session, served: Served) -> Iterator[None]:
    with closed_gate(database, served.base):
        yield


@pytest.fixture(scope="module")
def base(served: Served) -> str:
    return served.base


def content(base: str, export: str) -> Answer:
    return ask(base, f"/v1/exports/{export}/content")


def moments(export: Any, *names: str) -> list[datetime]:
    return [datetime.fromisoformat(export[name]) for name in names]


def test_it_ends_with_everything_known(base: str) -> None:
    export = done(base, "numbers")
    progress = export["progress"]
    assert (export["state"], export["attempt"], export["error"]) == ("succeeded", 1, None)
    times = moments(export, "created_at", "started_at", "finished_at", "expires_at")
    assert times == sorted(times)
    assert times[3] - times[2] == timedelta(days=7)
    assert (progress["rows"], progress["bytes"]) == (NUMBERS, len(numbers_csv()))
    assert (progress["total_rows"], progress["total_kind"]) == (NUMBERS, "exact")
    assert (progress["fraction"], progress["eta_s"]) == (1.0, None)


def test_its_receipt_proves_its_file(base: str) -> None:
    export = done(base, "numbers")
    body = content(base, export["id"]).body
    found = receipt(base, export["id"])
    assert body == numbers_csv()
    expected = {
        "export_id": export["id"],
        "outcome": "complete",
        "rows": NUMBERS,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "encoded_bytes": None,
        "encoded_sha256": None,
        "format": "csv",
        "compression": "none",
        "next_cursor": None,
        "cancel": None,
    }
    assert expected.items() <= found.items()
    told = {"query_sha256", "snapshot", "started_at", "finished_at", "db_seconds_held"}
    assert found.keys() == expected.keys() | told
    assert len(bytes.fromhex(found["query_sha256"])) == 32


@pytest.mark.parametrize("form", ["csv", "ndjson", "json"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_its_file_is_that_of_the_direct_stream(base: str, form: str, compression: str) -> None:
    wanted = {"where": {"id": ["gt.3", "lt.400"]}, "order": ["id.desc"], "select": ["word", "n:id"]}
    export = done(base, "numbers", format=form, compression=compression, **wanted)
    query = "id=gt.3&id=lt.400&order=id.desc&select=word,n:id"
    direct = ask(base, f"/v1/rows/numbers.{form}?{query}&compression={compression}")
    got = content(base, export["id"])
    assert got.body == direct.body
    assert got.headers["Content-Type"] == direct.headers["Content-Type"]
    assert got.headers["Content-Disposition"] == direct.headers["Content-Disposition"]
    both = [receipt(base, one) for one in (export["id"], direct.export_id)]
    for name in ("rows", "bytes", "sha256", "format", "compression", "query_sha256"):
        assert both[0][name] == both[1][name]


def test_what_can_be_continued_tells_how(base: str) -> None:
    first = done(base, "numbers", format="ndjson", limit=300)
    cursor = receipt(base, first["id"])["next_cursor"]
    second = done(base, "numbers", format="ndjson", after=cursor)
    rows = b"".join(content(base, one["id"]).body for one in (first, second))
    assert [json.loads(line)["id"] for line in rows.splitlines()] == list(range(1, NUMBERS + 1))


def test_who_would_rather_wait_gets_the_end(base: str) -> None:
    answer = asked(base, "numbers", {"Prefer": "wait=60"}, fresh=True)
    export = answer.json()
    assert (answer.status, export["state"]) == (200, "succeeded")
    assert answer.headers["Location"] == f"{base}/v1/exports/{export['id']}"
    assert answer.headers["Preference-Applied"] == "wait=60"
    assert answer.headers["Retry-After"] is None
    assert shown(base, export["id"]) == export


def test_who_would_rather_wait_is_told_of_a_failure(base: str) -> None:
    answer = asked(base, "broken", {"Prefer": "wait=100"})
    assert (answer.status, answer.json()["state"]) == (200, "failed")
    assert answer.headers["Preference-Applied"] == "wait=60"


def test_a_key_is_answered_with_the_end_that_was_waited_for(base: str) -> None:
    headers = {"Prefer": "wait=60", "Idempotency-Key": "waited"}
    first, second = (asked(base, "numbers", headers, fresh=True) for _ in range(2))
    assert (first.status, second.status) == (200, 200)
    assert second.json() == first.json()
    assert second.headers["Retry-After"] is None


def test_a_failure_tells_why(base: str) -> None:
    export = done(base, "broken")
    assert export["state"] == "failed"
    error = export["error"]
    assert (error["code"], error["status"], error["sqlstate"]) == ("source_error", 502, "22012")
    assert "division by zero" in error["detail"]
    assert [(one["attempt"], one["code"]) for one in export["attempts"]] == [(1, "source_error")]


def test_a_running_one_is_joined_while_its_data_is_new(base: str, gate: None) -> None:
    first = entered(base, "gated")
    written(base, first)
    joined = asked(base, "gated")
    assert joined.json()["id"] == first
    assert joined.headers["X-Export-Joined"] == "true"
    assert joined.json()["state"] == "running"


def test_a_running_one_shows_how_far_it_is(base: str, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    found = shown(base, export)
    progress = found["progress"]
    totals = (progress["total_rows"], progress["total_kind"])
    assert (found["state"], totals) == ("running", (3_500, "estimate"))
    assert progress["fraction"] == progress["rows"] / 3_500
    assert 0 < progress["rows"] <= 3_000
    assert progress["bytes"] <= 3_000 * 971
    assert ask(base, f"/v1/exports/{export}/receipt").status == 404


def listed(base: str, query: str) -> list[Any]:
    """Every page of the list."""
    found, target = [], f"/v1/exports?{query}"
    while target:
        page = ask(base, target)
        assert page.status == 200, page.body
        found.append(page.json()["exports"])
        following = page.link("next") or ""
        assert following.startswith(base) or not following
        parts = urlsplit(following)
        target = f"{parts.path}?{parts.query}" if following else ""
    return found


def test_the_list_has_jobs_and_streams_newest_first(base: str) -> None:
    made = []
    for _ in range(3):
        made.append(done(base, "numbers")["id"])
        made.append(ask(base, "/v1/rows/nothing.csv").export_id)
        made.append(done(base, "broken")["id"])
    pages = listed(base, "limit=2")
    ids = [export["id"] for page in pages for export in page]
    assert ids[:9] == made[::-1]
    assert len(ids) == len(set(ids))
    assert {len(page) for page in pages[:-1]} == {2}
    assert ids == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("kind=job", {"kind": "job"}),
        ("kind=stream", {"kind": "stream"}),
        ("state=failed", {"state": "failed"}),
        ("dataset=numbers", {"dataset": "numbers"}),
        ("kind=job&state=succeeded&dataset=numbers", {"kind": "job", "state": "succeeded"}),
        ("state=expired", None),
        ("kind=relay", None),
        ("dataset=unheard%20of", None),
    ],
)
def test_the_list_is_filtered(base: str, query: str, expected: dict[str, str] | None) -> None:
    done(base, "numbers")
    done(base, "broken")
    ask(base, "/v1/rows/numbers.csv")
    everything = [export for page in listed(base, "limit=500") for export in page]
    found = [export for page in listed(base, f"{query}&limit=3") for export in page]
    wanted = dict(part.split("=") for part in query.split("&"))
    same = [one for one in everything if wanted.items() <= one.items()]
    assert [one["id"] for one in found] == [one["id"] for one in same]
    assert bool(found) is (expected is not None)
    assert all((expected or {}).items() <= one.items() for one in found)


@pytest.mark.parametrize(
    ("query", "status"), [("kind=x", 422), ("state=x", 422), ("limit=501", 422), ("cursor=x", 400)]
)
def test_a_list_that_is_none(base: str, query: str, status: int) -> None:
    assert ask(base, f"/v1/exports?{query}").status == status


def test_an_estimate_says_how_sure_it_is(base: str) -> None:
    answer = post(base, "/v1/exports/estimate", {"dataset": "measured"})
    assert answer.status == 200
    found = answer.json()
    assert found.keys() == {"rows", "rows_kind", "bytes", "bytes_kind"}
    assert (found["rows"], found["rows_kind"], found["bytes_kind"]) == (500, "estimate", "estimate")
    assert found["bytes"] == done(base, "measured")["progress"]["bytes"]


def test_an_estimate_of_nothing_is_exact(base: str) -> None:
    answer = post(base, "/v1/exports/estimate", {"dataset": "measured", "limit": 0})
    head = len(b"id,word\n")
    assert answer.json() == {
        "rows": 0,
        "rows_kind": "exact",
        "bytes": head,
        "bytes_kind": "estimate",
    }


def test_a_preview_has_the_first_rows(base: str) -> None:
    wanted = {"dataset": "numbers", "order": ["id.desc"], "select": ["n:id", "word"]}
    answer = post(base, "/v1/exports/preview", {**wanted, "format": "csv", "compression": "gzip"})
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    columns = [{"name": "n", "type": "integer"}, {"name": "word", "type": "text"}]
    rows = ask(base, "/v1/rows/numbers.json?order=id.desc&select=n:id,word&limit=20").json()
    assert answer.json() == {"columns": columns, "rows": rows}
    few = post(base, "/v1/exports/preview", {**wanted, "limit": 2}).json()["rows"]
    assert few == rows[:2]
    none = post(base, "/v1/exports/preview", {"dataset": "nothing"}).json()["rows"]
    assert none == []


def test_a_preview_that_fails_says_so(base: str) -> None:
    check_problem(post(base, "/v1/exports/preview", {"dataset": "broken"}), 502, "source_error")


def test_a_failed_one_is_tried_again(base: str, module_database_url: str) -> None:
    run_sql(module_database_url, "update switch set n = 0")
    failed = done(base, "switched")
    assert failed["state"] == "failed"
    run_sql(module_database_url, "update switch set n = 1")
    answer = post(base, f"/v1/exports/{failed['id']}/retry")
    assert answer.status == 202
    assert answer.headers["Location"] == failed["links"]["self"]
    assert answer.headers["Retry-After"] == "1"
    again = answer.json()
    assert (again["state"], again["attempt"], again["error"]) == ("queued", 2, None)
    made = reach(base, failed["id"], "succeeded")
    assert [one["attempt"] for one in made["attempts"]] == [1]
    assert made["links"]["content"].endswith("/content?attempt=2")
    assert content(base, failed["id"]).body == b"id\n1\n"


def test_only_a_failed_job_is_tried_again(base: str, gate: None) -> None:
    finished = done(base, "numbers")["id"]
    running = entered(base, "gated")
    stream = ask(base, "/v1/rows/numbers.csv").export_id
    for export in (finished, running, stream):
        check_problem(post(base, f"/v1/exports/{export}/retry"), 409, "conflict")


def test_what_is_deleted_is_gone(base: str, served: Served, database: Session) -> None:
    export = done(base, "numbers")["id"]
    (row,) = fetch_artifact(database, export)
    assert (artifacts(served) / row).exists()
    answer = ask(base, f"/v1/exports/{export}", "DELETE")
    assert (answer.status, answer.body) == (204, b"")
    assert not (artifacts(served) / row).exists()
    for path in ("", "/content", "/receipt", "/events"):
        assert ask(base, f"/v1/exports/{export}{path}").status == 404
    assert ask(base, f"/v1/exports/{export}", "DELETE").status == 404
    assert database.value(OTHERS, export) == 0


def fetch_artifact(database: Session, export: str) -> list[str]:
    query = "SELECT artifact FROM tailrace.exports WHERE id::text = $1"
    found = database.value(query, export)
    return [] if found is None else [str(found)]


def test_a_live_one_is_stopped_and_deleted(
    base: str, served: Served, database: Session, gate: None
) -> None:
    export = entered(base, "gated")
    written(base, export)
    (row,) = fetch_artifact(database, export)
    assert database.exporting() == 1
    assert ask(base, f"/v1/exports/{export}", "DELETE").status == 204
    assert database.exporting() == 0
    assert ask(base, f"/v1/exports/{export}").status == 404
    wait_until(
        lambda: not list(artifacts(served).glob(f"{row}*")), within=WITHIN, what="its file is gone"
    )


def test_a_stream_is_deleted_as_well(base: str, module_database_url: str) -> None:
    export = ask(base, "/v1/rows/numbers.csv").export_id
    assert ask(base, f"/v1/exports/{export}", "DELETE").status == 204
    assert ask(base, f"/v1/exports/{export}").status == 404
    query = "SELECT id FROM tailrace.exports WHERE id::text = $1"
    assert fetch(module_database_url, query, export) == []


def test_files_are_for_one_account_alone(base: str, served: Served, gate: None) -> None:
    done(base, "numbers")
    written(base, entered(base, "gated"))
    folder: Path = artifacts(served)
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert {path.suffix for path in files} == {"", ".part"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
