"""POST /v1/exports where nobody works: what is answered, joined, replayed and refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.clients import Answer, ask
from tests.jobs import post
from tests.postgres import fetch, run_sql
from tests.serving import Served
from tests.wire.job_service import asked, entered, job_service, shown
from tests.wire.problems import check_problem

IDLE = ("--no-worker",)
EMPTY = "DELETE FROM tailrace.exports; DELETE FROM tailrace.idempotency_keys"
COUNT = "SELECT count(*) FROM tailrace.exports"


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with job_service(folder, module_database_url, arguments=IDLE) as found:
        yield found


@pytest.fixture
def base(served: Served, module_database_url: str) -> str:
    """The service without an export."""
    run_sql(module_database_url, EMPTY)
    return served.base


@pytest.fixture
def count(module_database_url: str) -> Callable[[], int]:
    """How many exports there are."""
    return lambda: int(fetch(module_database_url, COUNT)[0][0])


def keyed(base: str, key: str, dataset: str = "numbers", **wanted: Any) -> Answer:
    return asked(base, dataset, {"Idempotency-Key": key}, **wanted)


def test_it_is_accepted_and_tells_where_it_is(base: str) -> None:
    answer = asked(base, "numbers")
    export = answer.json()
    assert answer.status == 202
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Location"] == f"{base}/v1/exports/{export['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["X-Export-Joined"] is None
    assert UUID(export["id"]).version == 7
    assert shown(base, export["id"]) == export


def test_the_whole_resource(base: str) -> None:
    wanted: dict[str, Any] = {
        "format": "ndjson",
        "select": ["id", "text:word"],
        "where": {"id": ["gt.1", "lt.9"]},
        "order": ["id.desc"],
        "limit": 5,
        "compression": "zstd",
        "filename": "mine.zst",
    }
    export = asked(base, "numbers", **wanted).json()
    here = f"{base}/v1/exports/{export['id']}"
    request, progress = export.pop("request"), export.pop("progress")
    assert export == {
        "id": export["id"],
        "kind": "job",
        "owner": "anonymous",
        "dataset": "numbers",
        "source": "main",
        "format": "ndjson",
        "compression": "zstd",
        "profile": "machine",
        "state": "queued",
        "attempt": 1,
        "attempts": [],
        "created_at": export["created_at"],
        "started_at": None,
        "finished_at": None,
        "expires_at": None,
        "error": None,
        "links": {
            "self": here,
            "events": f"{here}/events",
            "content": f"{here}/content?attempt=1",
            "receipt": f"{here}/receipt",
            "cancel": f"{here}/cancel",
        },
    }
    assert export["created_at"].endswith("Z")
    datetime.fromisoformat(export["created_at"])
    assert request == request | wanted | {"dataset": "numbers"}
    assert "fresh" not in request
    assert progress.keys() == {
        *("rows", "bytes", "total_rows", "total_kind", "total_bytes"),
        *("fraction", "rows_per_s", "bytes_per_s", "eta_s"),
    }
    assert (progress["rows"], progress["bytes"], progress["total_kind"]) == (0, 0, "estimate")
    assert (progress["rows_per_s"], progress["eta_s"]) == (None, None)


def test_an_equal_request_joins(base: str, count: Callable[[], int]) -> None:
    first = asked(base, "numbers", where={"id": "gt.1", "word": "neq.x"})
    second = asked(base, "numbers", where={"word": "neq.x", "id": "gt.1"})
    assert second.status == 202
    assert second.headers["X-Export-Joined"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert second.json() == first.json()
    assert count() == 1


@pytest.mark.parametrize(
    "other", [{"fresh": True}, {"where": {"id": "gt.2"}}, {"format": "json"}], ids=str
)
def test_another_request_does_not(
    base: str, count: Callable[[], int], other: dict[str, Any]
) -> None:
    first = asked(base, "numbers", where={"id": "gt.1"})
    second = asked(base, "numbers", **{"where": {"id": "gt.1"}} | other)
    assert second.headers["X-Export-Joined"] is None
    assert second.json()["id"] != first.json()["id"]
    assert count() == 2


def test_a_fresh_one_may_be_joined_later(base: str) -> None:
    asked(base, "numbers")
    fresh = asked(base, "numbers", fresh=True)
    joined = asked(base, "numbers")
    assert joined.json()["id"] == fresh.json()["id"]
    assert "fresh" not in joined.json()["request"]


def test_a_key_is_answered_as_before(base: str, count: Callable[[], int]) -> None:
    first = keyed(base, "nightly", fresh=True)
    second = keyed(base, "nightly", fresh=True)
    assert (second.status, second.json()) == (first.status, first.json())
    for name in ("Location", "Retry-After", "Content-Type", "X-Export-Joined"):
        assert second.headers[name] == first.headers[name]
    other = keyed(base, "another", fresh=True)
    assert other.json()["id"] != first.json()["id"]
    assert count() == 2


def test_a_key_remembers_that_it_joined(base: str) -> None:
    asked(base, "numbers")
    first, second = keyed(base, "nightly"), keyed(base, "nightly")
    assert first.headers["X-Export-Joined"] == second.headers["X-Export-Joined"] == "true"


def test_a_key_with_another_body_is_refused(base: str, count: Callable[[], int]) -> None:
    keyed(base, "nightly")
    answer = keyed(base, "nightly", fresh=True)
    check_problem(answer, 422, "idempotency_key_reused")
    assert count() == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_none_is_refused(base: str, count: Callable[[], int], key: str) -> None:
    answer = keyed(base, key)
    check_problem(answer, 400, "invalid_parameter")
    assert answer.json()["parameter"] == "Idempotency-Key"
    assert count() == 0


def test_who_would_rather_wait_is_told_in_the_end_that_it_is_not_ready(base: str) -> None:
    answer = asked(base, "numbers", {"Prefer": "wait=1"})
    assert answer.status == 202
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert (answer.headers["Retry-After"], answer.json()["state"]) == ("1", "queued")


@pytest.mark.parametrize("prefer", ["wait=0", "wait=soon", "respond-async", "wait=-5"])
def test_other_preferences_are_ignored(base: str, prefer: str) -> None:
    answer = asked(base, "numbers", {"Prefer": prefer})
    assert (answer.status, answer.headers["Preference-Applied"]) == (202, None)


@pytest.mark.parametrize(
    ("wanted", "code", "parameter"),
    [
        ({"select": ["nope"]}, "unknown_column", "select"),
        ({"where": {"nope": "eq.1"}}, "unknown_column", "nope"),
        ({"where": {"id": "eq.x"}}, "invalid_parameter", "id"),
        ({"where": {"limit": "eq.1"}}, "invalid_parameter", "where.limit"),
        ({"order": ["nope"]}, "unknown_column", "order"),
        ({"delimiter": ";;"}, "invalid_parameter", "delimiter"),
        ({"after": "made up"}, "invalid_parameter", "after"),
        ({"where": {"id": "eq.99999999999999999999"}}, "invalid_parameter", "id"),
    ],
    ids=str,
)
def test_a_mistake_is_told_at_once(
    base: str, count: Callable[[], int], wanted: dict[str, Any], code: str, parameter: str
) -> None:
    for path in ("", "/estimate", "/preview"):
        answer = post(base, f"/v1/exports{path}", {"dataset": "numbers", **wanted})
        check_problem(answer, 400, code)
        assert answer.json()["parameter"] == parameter
    assert count() == 0


@pytest.mark.parametrize("path", ["", "/estimate", "/preview"])
def test_an_unknown_dataset_is_not_found(base: str, path: str) -> None:
    check_problem(post(base, f"/v1/exports{path}", {"dataset": "nope"}), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, [["body", "dataset"]]),
        ({"dataset": "numbers", "limit": -1}, [["body", "limit"]]),
        ({"dataset": "numbers", "filename": "a\0b"}, [["body", "filename"]]),
        ({"dataset": "a\0", "format": "xml"}, [["body", "dataset"], ["body", "format"]]),
        ({"dataset": "numbers", "nope": 1}, [["body", "nope"]]),
        ([], [["body"]]),
        (None, [["body", 0]]),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["", "/estimate", "/preview"])
def test_a_body_that_is_none_is_named_place_by_place(
    base: str, path: str, body: object, loc: list[list[str | int]]
) -> None:
    answer = post(base, f"/v1/exports{path}", body)
    check_problem(answer, 422, "invalid_request")
    assert [item["loc"] for item in answer.json()["errors"]] == loc
    assert all(item["msg"] for item in answer.json()["errors"])


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonl"]
)
def test_another_media_type_is_refused(
    base: str, count: Callable[[], int], media_type: str
) -> None:
    answer = asked(base, "numbers", {"Content-Type": media_type})
    check_problem(answer, 415, "unsupported_media_type")
    assert count() == 0


def test_a_charset_is_none_of_our_business(base: str) -> None:
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert asked(base, "numbers", kind).status == 202


def test_a_body_that_is_too_large_is_refused(base: str, count: Callable[[], int]) -> None:
    answer = asked(base, "numbers", filename="x" * 1024 * 1024)
    check_problem(answer, 413, "body_too_large")
    assert count() == 0


def test_ids_that_are_none(base: str) -> None:
    for path in ("", "/cancel", "/retry"):
        method = "DELETE" if path == "" else "POST"
        unknown = ask(base, f"/v1/exports/{uuid4()}{path}", method)
        check_problem(unknown, 404, "not_found")
        malformed = ask(base, f"/v1/exports/no-uuid{path}", method)
        check_problem(malformed, 422, "invalid_request")


def test_what_is_asked_for_is_kept_word_for_word(base: str) -> None:
    name = 'ü "quoted" \u2028 \\ \x7f €'
    export = shown(base, entered(base, "numbers", filename=name, where={"word": f"neq.{name}"}))
    assert export["request"]["filename"] == name
    assert export["request"]["where"] == {"word": f"neq.{name}"}


def test_so_many_may_wait(database_url: str, tmp_path: Path) -> None:
    limits = {"limits__max_queued": "3", "limits__max_queued_per_caller": "2"}
    with job_service(tmp_path, database_url, arguments=IDLE, **limits) as served:
        for _ in range(2):
            entered(served.base, "numbers")
        refused = asked(served.base, "numbers", fresh=True)
        check_problem(refused, 429, "too_many_queued")
        assert refused.headers["Retry-After"] == "10"
        assert asked(served.base, "numbers").headers["X-Export-Joined"] == "true"
        run_sql(
            database_url,
            "INSERT INTO tailrace.exports (id, kind, owner, request, state, created_at, heartbeat_at) "
            "VALUES (gen_random_uuid(), 'job', 'another', '{}', 'queued', now(), now())",
        )
        full = asked(served.base, "numbers", fresh=True)
        check_problem(full, 503, "queue_full")
        assert full.headers["Retry-After"] == "10"
        assert served.get("/v1/status")["queue"]["queued"] == 3


def test_no_room_on_the_disk(database_url: str, tmp_path: Path) -> None:
    limits = {"limits__min_free_space": "1000000GiB"}
    with job_service(tmp_path, database_url, arguments=IDLE, **limits) as served:
        answer = asked(served.base, "numbers", {"Idempotency-Key": "nightly"})
        check_problem(answer, 507, "storage_full")
        assert answer.headers["Retry-After"] == "60"
        assert ask(served.base, "/v1/rows/numbers.csv").status == 200
        assert ask(served.base, "/v1/exports?kind=job").json() == {"exports": []}
    assert fetch(database_url, "SELECT key FROM tailrace.idempotency_keys") == []
