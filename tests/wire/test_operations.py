"""What those see who run the service: health, readiness, metrics, status, the log."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.runtime import Service
from service.settings import Settings
from tests.clients import Answer, ask, send_raw, stalled
from tests.outage import away
from tests.postgres import Databases, fetch, run_sql
from tests.serving import Served, serving
from tests.waiting import wait_until

WITHIN = 30.0  # seconds
SOON = 5.0  # seconds for an answer that waits for nothing
LARGE_ROWS = 60_000
DATASETS = f"""
[datasets.small]
sql = "select i as id from generate_series(1, 10) i"
[datasets.large]
sql = "select i as id, repeat('x', 1000) as pad from generate_series(1, {LARGE_ROWS}) i"
[datasets.failing]
sql = "select 1 / (20000 - i) as id, repeat('x', 1000) as pad from generate_series(1, 60000) i"
"""
CHECKS = {"database", "schema", "source main", "draining", "artifacts", "queue"}
Labels = dict[str, str]


@pytest.fixture(scope="module")
def config(source_url: str) -> str:
    return f'[sources.main]\nurl = "{source_url}"\nmax_connections = 2\n{DATASETS}'


@pytest.fixture(scope="module")
def served(
    module_database_url: str, config: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, module_database_url, config=config, limits__slot_timeout="200ms") as found:
        yield found


class Known:
    """Streams of every outcome, and what their clients got of them."""

    def __init__(self, served: Served) -> None:
        self.complete = [ask(served.base, "/v1/rows/small.csv") for _ in range(2)]
        self.complete.append(ask(served.base, "/v1/rows/small.csv?compression=gzip"))
        self.coded = ask(served.base, "/v1/rows/small.ndjson", headers={"Accept-Encoding": "gzip"})
        with stalled(served.base, "/v1/rows/failing.csv") as response:
            self.failed = str(response.headers["X-Export-Id"])
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                response.read()
        with stalled(served.base, "/v1/rows/large.csv") as response:
            self.left = str(response.headers["X-Export-Id"])
        wait_until(lambda: len(ended(served)) >= 6, within=WITHIN, what="every stream ended")


def ended(served: Served) -> list[dict[str, Any]]:
    return served.events("stream ended")


@pytest.fixture(scope="module")
def known(served: Served) -> Known:
    return Known(served)


def metrics_of(served: Served) -> dict[str, Metric]:
    answer = ask(served.base, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


def value(family: Metric, suffix: str, labels: Labels) -> float:
    """The one sample with those labels; 0 where there is none."""
    found = [
        sample.value
        for sample in family.samples
        if sample.name == family.name + suffix
        and labels.items() <= sample.labels.items()
        and "le" not in sample.labels
    ]
    assert len(found) <= 1
    return found[0] if found else 0.0


def stream_labels(dataset: str, form: str, outcome: str) -> Labels:
    return {"dataset": dataset, "format": form, "lane": "copy", "outcome": outcome}


def test_metrics_count_what_was_sent(served: Served, known: Known) -> None:
    found = metrics_of(served)
    labels = stream_labels("small", "csv", "complete")
    assert value(found["tailrace_streams"], "_total", labels) == 3
    assert value(found["tailrace_stream_rows"], "_total", labels) == 30
    sizes = sum(len(answer.body) for answer in known.complete)
    assert value(found["tailrace_stream_bytes"], "_total", labels) == sizes
    assert value(found["tailrace_stream_seconds"], "_count", labels) == 3
    assert 0 < value(found["tailrace_stream_seconds"], "_sum", labels) < WITHIN
    first = {name: text for name, text in labels.items() if name != "outcome"}
    assert value(found["tailrace_first_byte_seconds"], "_count", first) == 3
    coded = stream_labels("small", "ndjson", "complete")
    assert value(found["tailrace_streams"], "_total", coded) == 1
    receipt = ask(served.base, f"/v1/exports/{known.coded.export_id}/receipt").json()
    assert value(found["tailrace_stream_bytes"], "_total", coded) == receipt["bytes"]


@pytest.mark.parametrize(
    ("dataset", "outcome", "export"),
    [("failing", "failed", "failed"), ("large", "truncated", "left")],
)
def test_metrics_count_what_was_not_sent_to_its_end(
    served: Served, known: Known, dataset: str, outcome: str, export: str
) -> None:
    found = metrics_of(served)
    labels = stream_labels(dataset, "csv", outcome)
    receipt = ask(served.base, f"/v1/exports/{getattr(known, export)}/receipt").json()
    assert receipt["outcome"] == outcome
    assert value(found["tailrace_streams"], "_total", labels) == 1
    assert value(found["tailrace_stream_rows"], "_total", labels) == receipt["rows"]
    assert value(found["tailrace_stream_bytes"], "_total", labels) == receipt["bytes"]
    complete = stream_labels(dataset, "csv", "complete")
    assert value(found["tailrace_streams"], "_total", complete) == 0
    assert value(found["tailrace_unexpected_errors"], "_total", {}) == 0
    assert value(found["tailrace_records_dropped"], "_total", {}) == 0


def test_metrics_count_requests_by_their_route_and_not_by_their_path(served: Served) -> None:
    def count(route: str, status: int, method: str = "GET") -> float:
        labels = {"route": route, "status": str(status), "method": method}
        return value(metrics_of(served)["tailrace_requests"], "_total", labels)

    before = [count("/v1/datasets/{name:path}", 200), count("unrouted", 404)]
    for _ in range(3):
        ask(served.base, "/v1/datasets/small")
        ask(served.base, "/nothing/at/all")
    wait_until(
        lambda: (
            [count("/v1/datasets/{name:path}", 200), count("unrouted", 404)]
            == [before[0] + 3, before[1] + 3]
        ),
        within=SOON,
        what="six requests are counted",
    )
    assert "/nothing/at/all" not in ask(served.base, "/metrics").body.decode()
    ask(served.base, "/v1/rows/small.csv", "HEAD")
    assert count("/v1/rows/{dataset:path}", 200, "HEAD") >= 1


def test_the_gauge_of_active_streams_goes_up_and_down(served: Served) -> None:
    labels = {"dataset": "large", "format": "json", "lane": "copy"}

    def active() -> float:
        return value(metrics_of(served)["tailrace_streams_active"], "", labels)

    assert active() == 0
    with stalled(served.base, "/v1/rows/large.json"):
        assert active() == 1
        assert ask(served.base, "/v1/status").json()["streams"] == 1
    wait_until(lambda: active() == 0, within=WITHIN, what="the stream ended")
    assert ask(served.base, "/v1/status").json()["streams"] == 0


def test_livez_and_readyz_answer_while_every_slot_is_taken(served: Served) -> None:
    with ExitStack() as streams:
        for _ in range(2):
            streams.enter_context(stalled(served.base, "/v1/rows/large.csv"))
        busy = ask(served.base, "/v1/rows/small.csv")
        assert (busy.status, busy.json()["code"]) == (503, "busy")
        assert int(busy.headers["Retry-After"]) > 0
        for path in ("/livez", "/readyz", "/v1/status", "/metrics", "/v1/datasets", "/"):
            begun = time.monotonic()
            assert ask(served.base, path).status == 200
            assert time.monotonic() - begun < SOON
        main = ask(served.base, "/v1/status").json()["sources"]["main"]
        assert main["slots"] == {"total": 2, "taken": 2}
        assert main["backends"] >= 2
        assert main["oldest_snapshot"].endswith("Z")
    wait_until(
        lambda: ask(served.base, "/v1/rows/small.csv").status == 200, within=WITHIN, what="a slot"
    )


def test_livez_answers_while_streams_are_compressed(served: Served) -> None:
    """Compression is work: it must not be done where the requests are answered."""
    url = f"{served.base}/v1/rows/large.csv?compression=gzip"
    command = ["curl", "-sSf", "-o", "/dev/null", "--retry", "3", url, "-o", "/dev/null", url]
    slowest, answers = 0.0, 0
    with subprocess.Popen(command) as curl:
        while curl.poll() is None:
            begun = time.monotonic()
            assert ask(served.base, "/livez").json() == {"status": "ok"}
            slowest, answers = max(slowest, time.monotonic() - begun), answers + 1
    assert curl.returncode == 0
    assert answers > 1
    assert slowest < SOON


def test_status_says_what_is_set_and_running(served: Served) -> None:
    status = ask(served.base, "/v1/status").json()
    assert (status["draining"], status["streams"]) == (False, 0)
    assert status["limits"]["slot_timeout"] == 0.2
    assert status["datasets_unusable"] == {}
    assert status["sources"].keys() == {"main"}
    assert status["sources"]["main"]["pool"]["open"] >= status["sources"]["main"]["pool"]["in_use"]


def checks(answer: Answer) -> dict[str, str]:
    """Of the readiness that ``answer`` tells: those that are not ok."""
    body = answer.json()
    failed = {name: said for name, said in body["checks"].items() if said != "ok"}
    assert (answer.status, body["status"]) == ((503, "unavailable") if failed else (200, "ok"))
    assert body["checks"].keys() == CHECKS
    return failed


def test_readiness_fails_with_each_of_its_checks(
    databases: Databases, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ready")
    with databases.clone() as source:
        config = f'[sources.main]\nurl = "{source}"\n{DATASETS}'
        with serving(folder, database_url, config=config) as found:

            def failing() -> dict[str, str]:
                assert ask(found.base, "/livez").status == 200
                return checks(ask(found.base, "/readyz"))

            assert failing() == {}
            with away(databases, database_url):
                assert failing().keys() == {"database", "schema", "queue"}
            assert failing() == {}
            with away(databases, source):
                assert failing().keys() == {"source main"}
                status = ask(found.base, "/v1/status").json()
                assert "error" in status["sources"]["main"]
            assert failing() == {}
            version = fetch(database_url, "SELECT version_num FROM tailrace.alembic_version")[0][0]
            run_sql(database_url, "DELETE FROM tailrace.alembic_version")
            assert "tailrace migrate" in failing()["schema"]
            assert failing().keys() == {"schema"}
            run_sql(database_url, f"INSERT INTO tailrace.alembic_version VALUES ('{version}')")
            assert failing() == {}
            assert found.events("unexpected error") == []


async def test_readiness_fails_while_the_process_drains(database_url: str) -> None:
    """In-process, for once: the socket of a process that stops takes no more questions."""
    app = create_app(Settings(), database_url)
    service: Service = app.state.service
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/readyz")).status_code == 200
        service.active.draining = True
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["draining"] == "draining"
        assert (await client.get("/livez")).status_code == 200
    await service.stop()


def test_every_line_of_the_log_is_json(served: Served, known: Known) -> None:
    send_raw(served.base, b"GARBAGE\r\n\r\n")
    curl = ["curl", "-sSf", "--http2", "-o", "/dev/null", f"{served.base}/v1/rows/small.csv"]
    subprocess.run(curl, check=True, timeout=60)
    for line in served.log.read_text().rstrip("\n").split("\n"):
        fields = json.loads(line)
        assert fields["event"]
        assert fields["level"] in ("debug", "info", "warning", "error")
        assert fields["timestamp"].endswith("Z")


def test_a_stream_is_logged_with_the_ids_of_its_request_and_its_export(served: Served) -> None:
    request_id = f"logged-{time.monotonic_ns()}"
    sent = {"X-Request-Id": request_id}
    answer = ask(served.base, "/v1/rows/small.ndjson?end=1", headers=sent)
    wait_until(lambda: _told(served, "request", request_id), within=SOON, what="the request's line")
    (begun,) = _told(served, "stream started", request_id)
    (done,) = _told(served, "stream ended", request_id)
    (request,) = _told(served, "request", request_id)
    assert begun["export_id"] == done["export_id"] == answer.export_id
    assert begun["first_byte_seconds"] > 0
    labels = {"kind": "stream", "dataset": "small", "format": "ndjson", "lane": "copy"}
    assert labels.items() <= begun.items()
    ending = {"outcome": "complete", "rows": 10, "bytes": len(answer.body), "error": None}
    assert (labels | ending).items() <= done.items()
    assert done["seconds"] >= 0
    assert (request["method"], request["path"], request["status"]) == (
        "GET",
        "/v1/rows/small.ndjson",
        200,
    )


def _told(served: Served, event: str, request_id: str) -> list[dict[str, Any]]:
    return [line for line in served.events(event) if line.get("request_id") == request_id]


def test_a_broken_stream_is_told_once_and_without_a_traceback(served: Served, known: Known) -> None:
    """Breaking the connection is an exception inside, which is nobody's bug."""
    by_id = {line["export_id"]: line for line in ended(served)}
    assert by_id[known.failed]["outcome"] == "failed"
    assert "division by zero" in by_id[known.failed]["error"]
    assert by_id[known.left]["outcome"] == "truncated"
    for export_id in (known.failed, known.left):
        assert by_id[export_id]["request_id"]
        assert len([line for line in ended(served) if line["export_id"] == export_id]) == 1
    log = served.log.read_text()
    assert "Traceback" not in log
    assert "StreamBroken" not in log
    assert served.events("unexpected error") == []
