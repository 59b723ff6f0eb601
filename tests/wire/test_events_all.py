"""The events of all exports: what lives on connect, then one event for each change of any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import ask
from tests.curl import downloading
from tests.event_stream import EventStream, Sent, events_of
from tests.postgres import Databases, run_sql
from tests.serving import Served
from tests.session import Session, session
from tests.waiting import wait_until
from tests.wire.job_service import (
    ARRIVED,
    WITHIN,
    cancel,
    closed_gate,
    done,
    entered,
    job_service,
    reach,
    receipt,
    shown,
    written,
)

ALL = "/v1/events"
EMPTY = "DELETE FROM tailrace.exports"


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with job_service(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture(scope="module")
def base(served: Served) -> str:
    return served.base


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture
def gate(database: Session, base: str) -> Iterator[None]:
    with closed_gate(database, base):
        yield


@pytest.fixture(scope="module")
def idle_url(databases: Databases) -> Iterator[str]:
    with databases.clone() as url:
        yield url


@pytest.fixture(scope="module")
def idling(idle_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, arguments = tmp_path_factory.mktemp("idle"), ("--no-worker",)
    with job_service(folder, idle_url, arguments=arguments, limits__ping_interval="3s") as found:
        yield found


@pytest.fixture
def idle(idling: Served, idle_url: str) -> str:
    """A service without a worker: nothing happens there but what a test does."""
    run_sql(idle_url, EMPTY)
    return idling.base


def take(stream: EventStream) -> Sent:
    event = stream.next()
    assert event is not None
    return event


def take_of(stream: EventStream, export: str, *states: str) -> list[Any]:
    """What is told of one export, up to the first of these states."""
    seen: list[Any] = []
    while not seen or seen[-1]["state"] not in states:
        event = take(stream)
        assert (event.name, event.id) == ("export", None)
        if event.data["id"] == export:
            seen.append(event.data)
    return seen


def test_what_lives_is_told_on_connect_and_nothing_else(idle: str) -> None:
    ended = entered(idle, "numbers")
    cancel(idle, ended)
    live = [entered(idle, "numbers") for _ in range(3)]
    for _ in range(2):
        with events_of(idle, ALL) as stream:
            seen = [take(stream) for _ in live]
            assert stream.retries == [3_000]
            # Also a look later there is nothing that has not changed since.
            stream.hear(1)
        assert [(event.name, event.data) for event in seen] == [
            ("export", shown(idle, export)) for export in live
        ]


def test_one_event_for_each_change(idle: str) -> None:
    with events_of(idle, ALL) as stream:
        first = entered(idle, "numbers")
        assert take(stream).data == shown(idle, first)
        second = entered(idle, "numbers")
        assert take(stream).data == shown(idle, second)
        cancel(idle, first)
        event = take(stream)
        assert event.data == {**shown(idle, first), "receipt": None}
        assert event.data["state"] == "cancelled"
        assert ask(idle, f"/v1/exports/{first}", "DELETE").status == 204
        gone = take(stream)
        assert (gone.name, gone.id, gone.data) == ("deleted", None, {"id": first})
        stream.hear(1)
        third = entered(idle, "numbers")
        assert take(stream).data["id"] == third


def test_the_deletion_of_an_old_one_is_told(idle: str, idle_url: str) -> None:
    export = entered(idle, "numbers")
    cancel(idle, export)
    run_sql(
        idle_url,
        "UPDATE tailrace.exports SET finished_at = now() - interval '1 day'",
    )
    with events_of(idle, ALL) as stream:
        stream.hear(1)
        assert ask(idle, f"/v1/exports/{export}", "DELETE").status == 204
        gone = take(stream)
        assert (gone.name, gone.data) == ("deleted", {"id": export})


def test_others_are_not_told_of(idle: str, idle_url: str) -> None:
    with events_of(idle, ALL) as stream:
        run_sql(
            idle_url,
            "INSERT INTO tailrace.exports (id, kind, owner, request, state, created_at, "
            "heartbeat_at, event_seq) "
            "VALUES (gen_random_uuid(), 'job', 'another', '{}', 'queued', now(), now(), 1); "
            "NOTIFY tailrace_events, '*'",
        )
        stream.hear(1)
        mine = entered(idle, "numbers")
        assert take(stream).data["id"] == mine


def test_a_job_from_its_beginning_to_its_end(base: str) -> None:
    with events_of(base, ALL) as stream:
        export = entered(base, "numbers")
        seen = take_of(stream, export, "succeeded")
    states = [data["state"] for data in seen]
    assert (states[0], states[-1]) == ("queued", "succeeded")
    assert set(states[1:-1]) <= {"running"}
    assert seen[-1] == {**shown(base, export), "receipt": receipt(base, export)}
    assert states.count("succeeded") == 1


def test_how_far_a_running_one_is(base: str, gate: None) -> None:
    with events_of(base, ALL) as stream:
        export = entered(base, "gated")
        written(base, export)
        seen = take_of(stream, export, "running")
        while not seen[-1]["progress"]["bytes"]:
            seen += take_of(stream, export, "running")
    assert seen[-1]["progress"]["fraction"] == seen[-1]["progress"]["rows"] / 3_500


def test_a_direct_stream_is_there_as_well(
    base: str, database: Session, tmp_path: Path, gate: None
) -> None:
    with events_of(base, ALL) as stream:
        with downloading(f"{base}/v1/rows/gated.csv", tmp_path) as found:
            wait_until(lambda: found.size > ARRIVED, within=WITHIN, what="rows arrive")
            seen = take_of(stream, found.export_id, "running")
            database.open_gate()
            assert found.exit_code() == 0
            export = found.export_id
        seen += take_of(stream, export, "succeeded")
    assert {data["kind"] for data in seen} == {"stream"}
    assert seen[-1] == {**shown(base, export), "receipt": receipt(base, export)}


def test_a_live_stream_is_told_on_connect(
    base: str, database: Session, tmp_path: Path, gate: None
) -> None:
    with downloading(f"{base}/v1/rows/gated.csv", tmp_path) as found:
        wait_until(lambda: found.size > ARRIVED, within=WITHIN, what="rows arrive")
        export = found.export_id
        wait_until(
            lambda: [one["id"] for one in live(base)] == [export], within=WITHIN, what="it is known"
        )
        database.execute(f"{EMPTY} WHERE state NOT IN ('running', 'queued')")
        with events_of(base, ALL) as stream:
            first = take(stream).data
    assert (first["id"], first["kind"], first["state"]) == (export, "stream", "running")


def live(base: str) -> list[Any]:
    found: list[Any] = ask(base, "/v1/exports?state=running").json()["exports"]
    return found


def test_many_readers_are_told_the_same(base: str) -> None:
    with events_of(base, ALL) as one, events_of(base, ALL) as other:
        export = done(base, "numbers")["id"]
        ends = [take_of(stream, export, "succeeded")[-1] for stream in (one, other)]
    assert ends[0] == ends[1]


def test_an_expiry_is_told(base: str, database: Session) -> None:
    export = done(base, "numbers")["id"]
    with events_of(base, ALL) as stream:
        database.execute(
            "UPDATE tailrace.exports SET expires_at = now() - interval '1 ms' "
            f"WHERE id = '{export}'"
        )
        seen = take_of(stream, export, "expired")
    reach(base, export, "expired")
    assert [data["state"] for data in seen] == ["expired"]
    assert seen[-1]["receipt"] == receipt(base, export)
