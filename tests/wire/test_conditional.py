"""Stable resources have a strong ETag, and 304 for those who have them (RFC 9110, section 13)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients import Answer, ask, stalled
from tests.postgres import run_sql
from tests.serving import Served, without_worker
from tests.waiting import wait_until

CONFIG = """
[sources.main]
expose = ["public.*"]
[datasets.small]
sql = "select i as id from generate_series(1, 10) i"
[datasets.large]
sql = "select i as id, repeat('x', 1000) as pad from generate_series(1, 60000) i"
"""
STABLE = {
    "/v1/datasets": "private, no-cache",
    "/v1/datasets/small": "private, no-cache",
    "/v1/exports/{}": "private, no-cache",
    "/v1/exports/{}/receipt": "private, no-cache",
    "/openapi.json": "no-cache",
    "/docs": "no-cache",
    "/static/style.css": "max-age=300",
}
LIVE = ("/v1/exports", "/v1/rows/small.csv", "/livez", "/readyz", "/metrics", "/v1/status", "/")
OF_ONE_ANSWER = {"date", "x-request-id"}
OF_THE_BODY = {"content-type", "content-length"}


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with without_worker(
        folder, module_database_url, config=CONFIG, server__cors_origins="https://a.example"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def export_id(served: Served) -> str:
    return ask(served.base, "/v1/rows/small.csv").export_id


def asked(served: Served, path: str, if_none_match: str, method: str = "GET") -> Answer:
    return ask(served.base, path, method, {"If-None-Match": if_none_match})


def lasting(answer: Answer) -> dict[str, str]:
    """The headers that two answers about the same state share."""
    headers = {name.lower(): text for name, text in answer.headers.items()}
    return {name: text for name, text in headers.items() if name not in OF_ONE_ANSWER}


@pytest.mark.parametrize("path", STABLE)
def test_a_stable_resource_has_a_strong_tag(served: Served, export_id: str, path: str) -> None:
    first, second = (ask(served.base, path.format(export_id)) for _ in range(2))
    assert first.status == 200
    assert first.headers["ETag"].startswith('"')
    assert first.headers["Cache-Control"] == STABLE[path]
    assert (first.body, lasting(first)) == (second.body, lasting(second))


@pytest.mark.parametrize("path", STABLE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("given", ["{}", "W/{}", '"other", {}', ', "a,b" ,{},', "*"])
def test_who_has_it_gets_304(
    served: Served, export_id: str, path: str, method: str, given: str
) -> None:
    whole = ask(served.base, path.format(export_id))
    tag = whole.headers["ETag"]
    answer = asked(served, path.format(export_id), given.format(tag), method)
    assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    kept = {name: text for name, text in lasting(whole).items() if name not in OF_THE_BODY}
    assert lasting(answer) == kept
    assert answer.headers["X-Request-Id"]
    assert answer.headers["Date"]


@pytest.mark.parametrize("path", STABLE)
@pytest.mark.parametrize("given", ['"other"', 'W/"other"', "", "{} x", "no tag"])
def test_who_has_another_gets_it_whole(
    served: Served, export_id: str, path: str, given: str
) -> None:
    whole = ask(served.base, path.format(export_id))
    answer = asked(served, path.format(export_id), given.format(whole.headers["ETag"]))
    assert (answer.status, answer.body) == (200, whole.body)


def test_the_lines_of_the_field_are_one_list(served: Served) -> None:
    tag = ask(served.base, "/v1/datasets").headers["ETag"]
    headers = {"If-None-Match": '"a"', "if-none-match": f'"b", {tag}'}
    assert ask(served.base, "/v1/datasets", headers=headers).status == 304


@pytest.mark.parametrize("path", LIVE)
def test_what_is_live_has_no_tag(served: Served, path: str) -> None:
    answer = asked(served, path, "*")
    assert answer.status == 200
    assert "ETag" not in answer.headers
    if path != "/metrics":
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/v1/datasets/nothing", "/v1/exports/01a203ef-8aee-74ea-aabc-6500ea4d2b62", "/nothing"]
)
def test_an_error_is_an_error_whatever_the_client_has(served: Served, path: str) -> None:
    answer = asked(served, path, "*")
    assert (answer.status, answer.headers["Cache-Control"]) == (404, "no-store")
    assert "ETag" not in answer.headers


def test_another_state_has_another_tag(served: Served, module_database_url: str) -> None:
    before = ask(served.base, "/v1/datasets").headers["ETag"]
    run_sql(module_database_url, "create table added (id int)")
    try:
        ask(served.base, "/v1/datasets/refresh", "POST")
        changed = asked(served, "/v1/datasets", before)
        assert changed.status == 200
        assert changed.headers["ETag"] != before
    finally:
        run_sql(module_database_url, "drop table added")
        ask(served.base, "/v1/datasets/refresh", "POST")
    assert asked(served, "/v1/datasets", before).status == 304


def test_an_export_has_another_tag_once_it_has_ended(served: Served) -> None:
    with stalled(served.base, "/v1/rows/large.csv") as response:
        path = f"/v1/exports/{response.headers['X-Export-Id']}"
        running = ask(served.base, path)
        assert running.json()["state"] == "running"
    wait_until(
        lambda: ask(served.base, path).json()["state"] == "failed", within=30, what="its end"
    )
    ended = asked(served, path, running.headers["ETag"])
    assert (ended.status, ended.json()["state"]) == (200, "failed")
    assert asked(served, path, ended.headers["ETag"]).status == 304


def test_a_receipt_has_the_same_tag_in_every_process(
    served: Served,
    export_id: str,
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One answers from memory, the other from the table, whose JSON has an order of its own."""
    path = f"/v1/exports/{export_id}/receipt"
    here = ask(served.base, path)
    assert next(iter(here.json())) == "export_id"
    folder = tmp_path_factory.mktemp("other")
    with without_worker(folder, module_database_url, config=CONFIG) as other:
        there = ask(other.base, path)
        assert (there.status, there.body) == (200, here.body)
        assert asked(other, path, here.headers["ETag"]).status == 304


def test_pages_of_other_origins_may_read_the_tag_of_a_304(served: Served) -> None:
    sent = {"Origin": "https://a.example", "If-None-Match": "*"}
    answer = ask(served.base, "/v1/datasets", headers=sent)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (304, sent["Origin"])
    exposed = answer.headers["Access-Control-Expose-Headers"].lower()
    assert {"etag", "x-request-id"} <= {name.strip() for name in exposed.split(",")}


def test_304_is_counted_and_logged_under_its_route(served: Served, export_id: str) -> None:
    path = f"/v1/exports/{export_id}/receipt"
    asked(served, path, "*")
    line = 'method="GET",route="/v1/exports/{export_id}/receipt",status="304"'
    wait_until(
        lambda: line in ask(served.base, "/metrics").body.decode(), within=5, what="it is counted"
    )
    told = [event for event in served.events("request") if event["path"] == path]
    assert 304 in {event["status"] for event in told}
