"""Records and receipts of streams, and what becomes of them when Tailrace's database is away."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.clients import Answer, ask, stalled
from tests.outage import away
from tests.postgres import Databases, fetch, run_sql
from tests.serving import Served, without_worker
from tests.waiting import wait_until

LARGE_ROWS = 60_000  # of a kilobyte each: more than every buffer between us and a client
DATASETS = f"""
[datasets.small]
sql = "select i as id from generate_series(1, 10) i"
[datasets.paged]
sql = "select 1 as id"
[datasets.large]
sql = "select i as id, repeat('x', 1000) as pad from generate_series(1, {LARGE_ROWS}) i"
[datasets.failing]
sql = "select 1 / (20000 - i) as id, repeat('x', 1000) as pad from generate_series(1, 60000) i"
"""
WITHIN = 30.0  # seconds
ANOTHERS = "11111111-2222-7333-8444-555555555555"


@pytest.fixture(scope="module")
def config(source_url: str) -> str:
    return f'[sources.main]\nurl = "{source_url}"\n{DATASETS}'


@pytest.fixture(scope="module")
def served(
    module_database_url: str, config: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=config
    ) as found:
        yield found


def stream(served: Served, dataset: str = "small") -> Answer:
    answer = ask(served.base, f"/v1/rows/{dataset}.csv")
    assert answer.status == 200
    return answer


def export(served: Served, export_id: str) -> Any:
    answer = ask(served.base, f"/v1/exports/{export_id}")
    assert answer.status == 200
    return answer.json()


def listed(served: Served, query: str = "") -> list[str]:
    """The ids of one page."""
    answer = ask(served.base, f"/v1/exports?{query}")
    assert answer.status == 200
    return [item["id"] for item in answer.json()["exports"]]


def stored(url: str, export_id: str) -> str | None:
    """The state in the table."""
    rows = fetch(url, "SELECT state FROM tailrace.exports WHERE id::text = $1", export_id)
    return rows[0]["state"] if rows else None


def test_a_record_says_what_was_exported(served: Served) -> None:
    path = "/v1/rows/small.ndjson?compression=gzip&id=lt.5&end=1"
    answer = ask(served.base, path)
    record = export(served, answer.export_id)
    here = f"{served.base}/v1/exports/{answer.export_id}"
    assert record["created_at"] <= record["started_at"] <= record["finished_at"]
    assert record["created_at"].endswith("Z")
    progress = record.pop("progress")
    assert record == {
        "id": answer.export_id,
        "kind": "stream",
        "owner": "anonymous",
        "dataset": "small",
        "source": "main",
        "format": "ndjson",
        "compression": "gzip",
        "profile": "machine",
        "request": {
            "format": "ndjson",
            "query": [["compression", "gzip"], ["id", "lt.5"], ["end", "1"]],
        },
        "state": "succeeded",
        "attempt": 1,
        "attempts": [],
        "created_at": record["created_at"],
        "started_at": record["started_at"],
        "finished_at": record["finished_at"],
        "expires_at": None,
        "error": None,
        "links": {
            "self": here,
            "events": f"{here}/events",
            "content": None,
            "receipt": f"{here}/receipt",
            "cancel": f"{here}/cancel",
        },
    }
    assert (progress["rows"], progress["bytes"]) == (4, len(answer.body))
    assert (progress["total_rows"], progress["total_kind"]) == (4, "exact")
    assert progress["total_bytes"] == len(answer.body)
    assert (progress["fraction"], progress["eta_s"]) == (1.0, None)


def test_the_receipt_is_there_as_soon_as_the_last_byte(served: Served) -> None:
    for _ in range(30):
        answer = stream(served)
        receipt = ask(served.base, str(answer.link("receipt")))
        assert receipt.status == 200
        assert receipt.json()["outcome"] == "complete"
        assert listed(served, "limit=1") == [answer.export_id]


def test_the_list_is_newest_first_and_filtered(served: Served) -> None:
    ids = [stream(served, dataset).export_id for dataset in ("small", "paged", "small")]
    assert listed(served, "limit=3") == ids[::-1]
    assert listed(served, "limit=2&dataset=small") == [ids[2], ids[0]]
    assert listed(served, "limit=1&dataset=paged&state=succeeded&kind=stream") == [ids[1]]
    for query in ("dataset=paged&state=failed", "dataset=nothing", "kind=job", "state=queued"):
        assert listed(served, query) == []


def test_paging_gives_each_once_while_new_ones_are_added(served: Served) -> None:
    before = [stream(served, "paged").export_id for _ in range(11)]
    expected = listed(served, "dataset=paged&limit=500")
    assert set(before) <= set(expected)
    found: list[str] = []
    target: str | None = f"{served.base}/v1/exports?dataset=paged&limit=3"
    while target is not None:
        page = ask(served.base, target)
        found += [item["id"] for item in page.json()["exports"]]
        assert len(page.json()["exports"]) <= 3
        target = page.link("next")
        stream(served, "paged")
    assert found == expected


def test_records_of_one_moment_are_paged_by_their_ids(
    served: Served, module_database_url: str
) -> None:
    run_sql(
        module_database_url,
        """
        insert into tailrace.exports
            (id, kind, owner, dataset, request, state, created_at, heartbeat_at, total_kind)
        select gen_random_uuid(), 'stream', 'anonymous', 'moment', '{}', 'failed',
               '2026-01-01T00:00:00.123456Z', now(), 'unknown'
        from generate_series(1, 7)
        """,
    )
    target: str | None = f"{served.base}/v1/exports?dataset=moment&limit=2"
    found: list[str] = []
    while target is not None:
        page = ask(served.base, target)
        found += [item["id"] for item in page.json()["exports"]]
        target = page.link("next")
    assert len(found) == len(set(found)) == 7
    assert found == sorted(found, reverse=True)


def test_a_stream_is_seen_while_it_runs_and_after_its_client_left(served: Served) -> None:
    with stalled(served.base, "/v1/rows/large.csv") as response:
        export_id = str(response.headers["X-Export-Id"])
        wait_until(
            lambda: export(served, export_id)["progress"]["rows"] > 0,
            within=WITHIN,
            what="rows in the record",
        )
        record = export(served, export_id)
        assert (record["state"], record["finished_at"]) == ("running", None)
        assert 0 < record["progress"]["rows"] < LARGE_ROWS
        assert record["progress"]["bytes"] > 1000
        assert record["progress"]["rows_per_s"] > 0
        assert listed(served, "state=running") == [export_id]
        receipt = ask(served.base, f"/v1/exports/{export_id}/receipt")
        assert (receipt.status, receipt.json()["code"]) == (404, "not_found")
    wait_until(
        lambda: export(served, export_id)["state"] == "failed", within=WITHIN, what="its end"
    )
    record = export(served, export_id)
    assert record["error"]["code"] == "client_left"
    receipt = ask(served.base, f"/v1/exports/{export_id}/receipt").json()
    assert receipt["outcome"] == "truncated"
    assert receipt["rows"] < LARGE_ROWS
    assert listed(served, "state=running") == []


def test_a_slow_client_gets_everything_and_its_receipt_at_once(served: Served) -> None:
    with stalled(served.base, "/v1/rows/large.csv") as response:
        export_id = str(response.headers["X-Export-Id"])
        wait_until(
            lambda: export(served, export_id)["progress"]["rows"] > 0, within=WITHIN, what="rows"
        )
        body = response.read()
    receipt = ask(served.base, f"/v1/exports/{export_id}/receipt").json()
    assert (receipt["outcome"], receipt["rows"]) == ("complete", LARGE_ROWS)
    assert receipt["bytes"] == len(body)


def test_a_stream_that_fails_breaks_and_says_why_in_its_record(served: Served) -> None:
    with stalled(served.base, "/v1/rows/failing.csv") as response:
        export_id = str(response.headers["X-Export-Id"])
        with pytest.raises((http.client.IncompleteRead, ConnectionError)) as cut:
            response.read()
    assert b"division" not in getattr(cut.value, "partial", b"")
    wait_until(
        lambda: export(served, export_id)["state"] == "failed", within=WITHIN, what="its end"
    )
    record = export(served, export_id)
    assert record["error"]["code"] == "source_error"
    assert "division by zero" in record["error"]["detail"]
    receipt = ask(served.base, f"/v1/exports/{export_id}/receipt").json()
    assert (receipt["outcome"], receipt["next_cursor"]) == ("failed", None)


def test_what_fails_before_the_first_byte_has_no_record(served: Served) -> None:
    last = stream(served).export_id
    for path in ("/v1/rows/small.csv?id=eq.x", "/v1/rows/nothing.csv"):
        assert ask(served.base, path).status in (400, 404)
    assert listed(served, "limit=1") == [last]


def test_records_of_others_are_not_there(served: Served, module_database_url: str) -> None:
    run_sql(
        module_database_url,
        f"""
        insert into tailrace.exports (id, kind, owner, dataset, request, state, created_at,
                                      heartbeat_at, total_kind, receipt)
        values ('{ANOTHERS}', 'stream', 'somebody', 'small', '{{}}', 'succeeded',
                now() + interval '1 day', now(), 'unknown', '{{"outcome": "complete"}}')
        """,
    )
    assert ANOTHERS not in listed(served, "limit=500")
    unknown = ask(served.base, f"/v1/exports/{uuid4()}")
    for path in (f"/v1/exports/{ANOTHERS}", f"/v1/exports/{ANOTHERS}/receipt"):
        answer = ask(served.base, path)
        assert (answer.status, answer.json()["code"]) == (404, "not_found")
        assert answer.json()["title"] == unknown.json()["title"]
    home = ask(served.base, "/").body.decode()
    assert ANOTHERS not in home


def test_records_outlive_the_process(
    database_url: str, config: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What ended just before SIGTERM is written, too."""
    folder = tmp_path_factory.mktemp("first")
    with without_worker(folder, database_url, config=config) as first:
        answer = stream(first)
        receipt = ask(first.base, f"/v1/exports/{answer.export_id}/receipt").json()
        last = stream(first).export_id
        assert first.stop(signal.SIGTERM) == 0
    assert stored(database_url, last) == "succeeded"
    with without_worker(folder, database_url, config=config) as second:
        assert listed(second) == [last, answer.export_id]
        assert ask(second.base, f"/v1/exports/{answer.export_id}/receipt").json() == receipt


def test_another_process_sees_a_running_stream_and_its_end(
    served: Served,
    module_database_url: str,
    config: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("other")
    with without_worker(folder, module_database_url, config=config) as other:
        with stalled(served.base, "/v1/rows/large.csv") as response:
            export_id = str(response.headers["X-Export-Id"])
            wait_until(
                lambda: export_id in listed(other, "state=running"), within=WITHIN, what="it"
            )
            wait_until(
                lambda: export(other, export_id)["progress"]["rows"] > 0, within=WITHIN, what="rows"
            )
            body = response.read()
        wait_until(
            lambda: export(other, export_id)["state"] == "succeeded", within=WITHIN, what="its end"
        )
        receipt = ask(other.base, f"/v1/exports/{export_id}/receipt").json()
        assert receipt == ask(served.base, f"/v1/exports/{export_id}/receipt").json()
        assert receipt["bytes"] == len(body)


def test_links_keep_the_prefix_of_a_proxy(database_url: str, config: str, tmp_path: Path) -> None:
    with without_worker(
        tmp_path, database_url, config=config, server__root_path="/tail/race"
    ) as found:
        answers = [stream(found) for _ in range(3)]
        assert answers[0].link("receipt") == (
            f"{found.base}/tail/race/v1/exports/{answers[0].export_id}/receipt"
        )
        page = ask(found.base, "/v1/exports?limit=2&dataset=small")
        following = str(page.link("next"))
        prefix = f"{found.base}/tail/race"
        assert following.startswith(f"{prefix}/v1/exports?")
        older = ask(found.base, following.removeprefix(prefix))
        assert [item["id"] for item in older.json()["exports"]] == [answers[0].export_id]


def test_a_stream_needs_no_database_of_tailrace(
    databases: Databases, database_url: str, config: str, tmp_path: Path
) -> None:
    with without_worker(tmp_path, database_url, config=config) as found:
        with away(databases, database_url):
            answers = [stream(found, dataset) for dataset in ("small", "large")]
            for answer in answers:
                receipt = ask(found.base, f"/v1/exports/{answer.export_id}/receipt")
                assert receipt.status == 200
                assert receipt.json()["bytes"] == len(answer.body)
            for path in ("/v1/exports", f"/v1/exports/{uuid4()}"):
                answer = ask(found.base, path)
                assert (answer.status, answer.json()["code"]) == (503, "records_unavailable")
                assert int(answer.headers["Retry-After"]) > 0
            wait_until(
                lambda: found.events("records not written"), within=WITHIN, what="the log says so"
            )
        for answer in answers:
            wait_until(
                lambda export_id=answer.export_id: (  # type: ignore[misc]  # of a default
                    stored(database_url, export_id) == "succeeded"
                ),
                within=WITHIN,
                what="the record in the table",
            )
        assert found.events("unexpected error") == []
        assert "Traceback" not in found.log.read_text()


def test_a_running_stream_outlives_the_database_of_tailrace(
    databases: Databases, database_url: str, config: str, tmp_path: Path
) -> None:
    with without_worker(tmp_path, database_url, config=config) as found:
        with ExitStack() as outage:
            with stalled(found.base, "/v1/rows/large.ndjson?end=1") as response:
                export_id = str(response.headers["X-Export-Id"])
                wait_until(
                    lambda: stored(database_url, export_id) == "running", within=WITHIN, what="it"
                )
                outage.enter_context(away(databases, database_url))
                wait_until(
                    lambda: found.events("records not written"), within=WITHIN, what="the log"
                )
                body = response.read()
            end = json.loads(body.splitlines()[-1])["_end"]
            assert (end["status"], end["rows"]) == ("complete", LARGE_ROWS)
            receipt = ask(found.base, f"/v1/exports/{export_id}/receipt").json()
            assert (receipt["outcome"], receipt["bytes"]) == ("complete", len(body))
        wait_until(
            lambda: stored(database_url, export_id) == "succeeded", within=WITHIN, what="its end"
        )
