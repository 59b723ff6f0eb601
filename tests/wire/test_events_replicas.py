"""The same events on every replica, and through the end of the one that sends them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import ask
from tests.event_stream import EventStream, Sent, events_of, names
from tests.jobs import Logged, log_of
from tests.serving import Served
from tests.session import Session, session
from tests.waiting import wait_until
from tests.wire.job_service import (
    WITHIN,
    cancel,
    closed_gate,
    entered,
    job_service,
    reach,
    shown,
    written,
)

IDLE = ("--no-worker",)


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with job_service(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture(scope="module")
def other(
    served: Served, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Another server on the same database, which runs no jobs."""
    with job_service(
        tmp_path_factory.mktemp("other"), module_database_url, arguments=IDLE
    ) as found:
        yield found


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture
def gate(database: Session, served: Served) -> Iterator[None]:
    with closed_gate(database, served.base):
        yield


def events(export: str) -> str:
    return f"/v1/exports/{export}/events"


def told(seen: list[Sent]) -> list[tuple[int | None, str]]:
    return [(event.id, event.name) for event in seen if event.name != "progress"]


def logged(log: list[Logged], behind: int) -> list[tuple[int | None, str]]:
    kept = [event for event in log if event.seq > behind and event.name != "progress"]
    return [(event.seq, event.name) for event in kept]


def first_of(stream: EventStream) -> Sent:
    event = stream.next()
    assert event is not None
    return event


def test_the_replica_that_runs_nothing_tells_of_everything(
    served: Served, other: Served, database: Session, gate: None
) -> None:
    export = entered(other.base, "gated")
    with (
        events_of(other.base, events(export)) as elsewhere,
        events_of(served.base, events(export)) as here,
    ):
        firsts = [first_of(elsewhere), first_of(here)]
        written(other.base, export)
        database.open_gate()
        seen = [
            [first, *stream.rest()] for first, stream in zip(firsts, (elsewhere, here), strict=True)
        ]
    log = log_of(database, export)
    for one in seen:
        assert told(one)[1:] == logged(log, one[0].id or 0)
        assert names(one)[-2:] == ["succeeded", "close"]
    assert seen[0][-2].data["receipt"] == seen[1][-2].data["receipt"]
    assert seen[0][-2].data["links"]["self"] == f"{other.base}/v1/exports/{export}"


def test_progress_comes_by_any_replica(
    served: Served, other: Served, database: Session, gate: None
) -> None:
    export = entered(served.base, "gated")
    with events_of(other.base, events(export)) as stream:
        progress = stream.until("progress")[-1]
        written(served.base, export)
        while progress.data["bytes"] < shown(served.base, export)["progress"]["bytes"]:
            progress = stream.until("progress")[-1]
    (newest, *_) = [event for event in log_of(database, export)[::-1] if event.name == "progress"]
    assert (progress.id, progress.data) == (newest.seq, newest.data)


def test_what_was_missed_by_one_is_replayed_by_another(
    served: Served, other: Served, database: Session, gate: None
) -> None:
    export = entered(served.base, "gated")
    written(served.base, export)
    with events_of(served.base, events(export)) as stream:
        last = first_of(stream).id
    cancel(served.base, export)
    with events_of(other.base, events(export), last) as stream:
        seen = stream.rest()
    assert told(seen) == logged(log_of(database, export), last or 0)
    assert names(seen) == ["cancelled", "close"]


def test_all_events_come_by_any_replica(served: Served, other: Served) -> None:
    with events_of(other.base, "/v1/events") as stream:
        export = entered(served.base, "numbers")
        states = []
        while "succeeded" not in states:
            event = first_of(stream)
            if event.data["id"] == export:
                states.append(event.data["state"])
    assert states[-1] == "succeeded"
    assert states[0] in ("queued", "running")


def refuses(served: Served) -> bool:
    try:
        return ask(served.base, "/livez").status != 200
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_ends_events_without_their_end_and_the_next_server_goes_on(
    served: Served,
    module_database_url: str,
    database: Session,
    tmp_path: Path,
    gate: None,
    number: signal.Signals,
) -> None:
    export = entered(served.base, "gated")
    written(served.base, export)
    with job_service(tmp_path / "first", module_database_url, arguments=IDLE) as first:
        with (
            events_of(first.base, events(export)) as stream,
            events_of(first.base, "/v1/events") as everything,
        ):
            seen = stream.until("state")
            everything.until("export")
            first.process.send_signal(number)
            # Neither breaks, and neither says that anything has ended.
            seen += stream.rest()
            assert {event.name for event in everything.rest()} <= {"export"}
        assert names(seen) == ["state"]
        assert first.process.wait(WITHIN) == 0
    database.open_gate()
    reach(served.base, export, "succeeded")
    last = seen[-1].id
    with (
        job_service(tmp_path / "second", module_database_url, arguments=IDLE) as second,
        events_of(second.base, events(export), last) as stream,
    ):
        missed = stream.rest()
    assert told(missed) == logged(log_of(database, export), last or 0)
    assert names(missed) == ["succeeded", "close"]


def test_a_server_that_drains_takes_no_new_reader(
    module_database_url: str, served: Served, database: Session, tmp_path: Path, gate: None
) -> None:
    export = entered(served.base, "gated")
    written(served.base, export)
    with job_service(
        tmp_path, module_database_url, arguments=IDLE, limits__drain_timeout="30s"
    ) as draining:
        with events_of(draining.base, events(export)) as stream:
            stream.until("state")
            draining.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(draining), within=WITHIN, what="it takes no more")
            assert names(stream.rest()) == []
        assert draining.process.wait(WITHIN) == 0
