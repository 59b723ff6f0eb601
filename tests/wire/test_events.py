"""The events of one export: in their order, replayed, ended, kept alive by pings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.clients import ask, stalled
from tests.curl import downloading
from tests.event_stream import EventStream, Sent, events_of, names
from tests.jobs import Logged, log_of, post
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
from tests.wire.problems import check_problem

ROWS = 400
PACED = f"""
[datasets.paced]
sql = '''
    select i as id,
           case when i % 4 = 0 then pg_sleep(0.02)::text else '' end || repeat('x', 2000) as word
    from (select generate_series(1, {ROWS}) as i) s
'''
"""
TIMES = """
    SELECT jsonb_agg(at ORDER BY seq)::text FROM tailrace.export_events
    WHERE export_id = $1::text::uuid AND name = 'progress'
"""
PRUNE = "DELETE FROM tailrace.export_events WHERE export_id::text = '{}' AND seq <= {}"
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with job_service(folder, module_database_url, config=PACED) as found:
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


def events(export: str) -> str:
    return f"/v1/exports/{export}/events"


def without_links(data: Any) -> Any:
    return {name: value for name, value in data.items() if name != "links"}


def check_logged(seen: list[Sent], log: list[Logged]) -> None:
    """Events as they are in the log: all of them, except progress that a newer one superseded."""
    first = seen[0].id or 0
    kept = [event for event in log if event.seq >= first]
    assert [(event.id, event.name, without_links(event.data)) for event in seen] == [
        (event.seq, event.name, event.data)
        for event in kept
        if event.name != "progress" or event.seq in {one.id for one in seen}
    ]


def read(base: str, export: str, last: int | str | None = None) -> list[Sent]:
    """Everything that a new connection gets of one that has ended."""
    with events_of(base, events(export), last) as stream:
        assert stream.status == 200
        return stream.rest()


def test_the_whole_story(base: str, database: Session, gate: None) -> None:
    export = entered(base, "gated")
    with events_of(base, events(export)) as stream:
        first = stream.next()
        assert first is not None
        assert (stream.status, stream.retries) == (200, [3_000])
        assert {name: stream.headers[name] for name in HEADERS} == HEADERS
        assert stream.headers["Transfer-Encoding"] == "chunked"
        seen = [first, *stream.until("progress")]
        database.open_gate()
        seen += stream.rest()
    assert names(seen)[-2:] == ["succeeded", "close"]
    assert set(names(seen)[:-2]) == {"state"}
    log = log_of(database, export)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    check_logged(seen[1:], log)
    assert first.data["state"] in ("queued", "running")
    assert next(event.seq for event in log if event.seq > (first.id or 0)) == seen[1].id
    assert seen[-1].data == {}


def test_state_is_the_whole_export(base: str, gate: None) -> None:
    export = entered(base, "closed")
    reach(base, export, "running")
    with events_of(base, events(export)) as stream:
        (first,) = stream.until("state")
    assert (first.id, first.data) == (2, shown(base, export))


def test_the_end_is_the_whole_export_with_its_receipt(base: str) -> None:
    export = done(base, "numbers")
    state, end, close = read(base, export["id"])
    assert (state.name, end.name, close.name) == ("state", "succeeded", "close")
    assert end.data == {**export, "receipt": receipt(base, export["id"])}
    assert (state.data, close.data) == (export, {})


def test_progress_is_how_far_it_is(base: str, gate: None) -> None:
    export = entered(base, "gated")
    with events_of(base, events(export)) as stream:
        written(base, export)
        progress = [event for event in stream.until("progress") if event.name == "progress"][-1]
    assert progress.data.keys() == {
        *("attempt", "rows", "bytes", "total_rows", "total_kind"),
        *("fraction", "rows_per_s", "bytes_per_s", "eta_s"),
    }
    assert (progress.data["attempt"], progress.data["total_kind"]) == (1, "estimate")
    assert progress.data["fraction"] == progress.data["rows"] / 3_500


@pytest.mark.parametrize(
    ("dataset", "end"), [("numbers", "succeeded"), ("broken", "failed"), ("gated", "cancelled")]
)
def test_each_end_has_its_name(
    base: str, database: Session, gate: None, dataset: str, end: str
) -> None:
    export = entered(base, dataset)
    with events_of(base, events(export)) as stream:
        seen = stream.until("state")
        if end == "cancelled":
            cancel(base, export)
        seen += stream.rest()
    assert names(seen)[-2:] == [end, "close"]
    told = ask(base, f"/v1/exports/{export}/receipt")
    expected = told.json() if told.status == 200 else None
    assert without_links(seen[-2].data) == without_links(shown(base, export)) | {
        "receipt": expected
    }
    check_logged(seen[1:], log_of(database, export))


@pytest.mark.parametrize("way", ["header", "query", "both"])
def test_what_was_missed_is_replayed(base: str, database: Session, gate: None, way: str) -> None:
    export = entered(base, "gated")
    written(base, export)
    log = log_of(database, export)
    for last in range(1, len(log) + 1):
        path = events(export) + {"header": "", "query": f"?last_event_id={last}"}.get(
            way, "?last_event_id=1"
        )
        missed = [event for event in log if event.seq > last]
        with events_of(base, path, None if way == "query" else last) as stream:
            seen = [take(stream) for _ in missed]
        assert [(event.id, event.name, without_links(event.data)) for event in seen] == [
            (event.seq, event.name, event.data) for event in missed
        ]


def take(stream: EventStream) -> Sent:
    event = stream.next()
    assert event is not None
    return event


def test_behind_what_was_missed_it_goes_on_live(base: str, database: Session, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    with events_of(base, events(export), 1) as stream:
        seen = stream.until("progress")
        database.open_gate()
        seen += stream.rest()
    check_logged(seen, log_of(database, export))
    assert (seen[0].id, seen[-1].name) == (2, "close")


def test_of_one_that_has_ended_every_event_can_be_replayed(base: str, database: Session) -> None:
    export = done(base, "numbers")["id"]
    log = log_of(database, export)
    for last in range(1, len(log) - 1):
        seen = read(base, export, last)
        assert [(event.id, event.name, without_links(event.data)) for event in seen] == [
            (event.seq, event.name, event.data) for event in log if event.seq > last
        ]


@pytest.mark.parametrize("dataset", ["numbers", "broken"])
def test_who_has_the_end_is_told_to_stay_away(base: str, database: Session, dataset: str) -> None:
    export = done(base, dataset)["id"]
    length = len(log_of(database, export))
    for last in (length - 1, length):
        for path, headers in (
            (events(export), {"Last-Event-ID": str(last)}),
            (f"{events(export)}?last_event_id={last}", {}),
        ):
            answer = ask(base, path, headers=headers)
            assert (answer.status, answer.body) == (204, b"")
            assert answer.headers["Content-Type"] is None


UNKNOWN = ["999999", "abc", "-5", "1.5", "9" * 30, "0"]


@pytest.mark.parametrize("last", UNKNOWN)
def test_an_unknown_id_resets_a_live_one(base: str, gate: None, last: str) -> None:
    export = entered(base, "closed")
    reach(base, export, "running")
    with events_of(base, events(export), last) as stream:
        reset, state = take(stream), take(stream)
        assert stream.retries == [3_000]
    assert (reset.name, reset.id, reset.data) == ("reset", None, {})
    assert (state.name, state.id, state.data) == ("state", 2, shown(base, export))


@pytest.mark.parametrize("last", UNKNOWN)
def test_an_unknown_id_resets_one_that_has_ended(base: str, last: str) -> None:
    seen = read(base, done(base, "numbers")["id"], last)
    assert [event.name for event in seen] == ["reset", "state", "succeeded", "close"]


def test_what_is_no_longer_kept_is_reset(base: str, database: Session) -> None:
    export = done(base, "paced")["id"]
    database.execute(PRUNE.format(export, 2))
    assert [event.name for event in read(base, export, 1)] == [
        "reset",
        *("state", "succeeded", "close"),
    ]
    log = log_of(database, export)
    assert [event.id for event in read(base, export, 3)] == [
        event.seq for event in log if event.seq > 3
    ]


def test_an_empty_id_is_none(base: str) -> None:
    seen = read(base, done(base, "numbers")["id"], "")
    assert [event.name for event in seen] == ["state", "succeeded", "close"]


def test_ids_of_a_fresh_connection_are_those_of_the_log(base: str, database: Session) -> None:
    export = done(base, "numbers")["id"]
    length = len(log_of(database, export))
    assert [event.id for event in read(base, export)] == [length - 2, length - 1, length]


def test_a_second_try_goes_on_in_the_same_log(base: str, database: Session) -> None:
    export = done(base, "broken")["id"]
    length = len(log_of(database, export))
    assert post(base, f"/v1/exports/{export}/retry").status == 202
    with events_of(base, events(export), length) as stream:
        seen = stream.rest()
    assert names(seen) == ["state", "state", "failed", "close"]
    check_logged(seen, log_of(database, export))
    assert seen[0].id == length + 1


def test_one_that_is_deleted_is_closed(base: str, gate: None) -> None:
    export = entered(base, "gated")
    reach(base, export, "running")
    with events_of(base, events(export)) as stream:
        stream.until("state")
        assert ask(base, f"/v1/exports/{export}", "DELETE").status == 204
        assert names(stream.rest())[-1] == "close"
    check_problem(ask(base, events(export)), 404, "not_found")


def test_a_direct_stream_has_events(
    base: str, database: Session, tmp_path: Path, gate: None
) -> None:
    with downloading(f"{base}/v1/rows/gated.csv", tmp_path) as found:
        wait_until(lambda: found.size > ARRIVED, within=WITHIN, what="rows arrive")
        export = found.export_id
        with events_of(base, events(export)) as stream:
            seen = stream.until("state")
            cancel(base, export)
            seen += stream.rest()
    assert names(seen) == ["state", "cancelled", "close"]
    assert seen[0].data["kind"] == "stream"
    assert seen[-2].data["receipt"]["cancel"]["backend_gone"] is True
    check_logged(seen[1:], log_of(database, export))


def test_a_direct_stream_that_has_ended_has_its_end(base: str) -> None:
    export = ask(base, "/v1/rows/numbers.csv").export_id
    wait_until(
        lambda: shown(base, export)["state"] == "succeeded", within=WITHIN, what="it has ended"
    )
    wait_until(
        lambda: [event.name for event in read(base, export)] == ["state", "succeeded", "close"],
        within=WITHIN,
        what="its end is written",
    )


def test_progress_comes_four_times_a_second_at_most(base: str, database: Session) -> None:
    export = done(base, "paced")["id"]
    times = [datetime.fromisoformat(at) for at in json.loads(str(database.value(TIMES, export)))]
    seconds = (times[-1] - times[0]).total_seconds()
    assert 2 < len(times) <= 4 * seconds + 2


def test_ids_that_are_none(base: str) -> None:
    check_problem(ask(base, events(str(uuid4()))), 404, "not_found")
    check_problem(ask(base, events("no-uuid")), 422, "invalid_request")


def test_head_tells_what_get_would(base: str, gate: None) -> None:
    export = entered(base, "closed")
    for path in (events(export), "/v1/events"):
        head = ask(base, path, "HEAD")
        with stalled(base, path) as response:
            got = dict(response.headers.items())
        assert (head.status, head.body) == (200, b"")
        assert {name: head.headers[name] for name in HEADERS} == HEADERS
        assert {name: got[name.lower()] for name in HEADERS} == HEADERS


def test_quiet_readers_are_pinged(database_url: str, tmp_path: Path) -> None:
    arguments = ("--no-worker",)
    with job_service(
        tmp_path, database_url, arguments=arguments, limits__ping_interval="200ms"
    ) as served:
        export = entered(served.base, "numbers")
        for path, first in ((events(export), "state"), ("/v1/events", "export")):
            with events_of(served.base, path) as stream:
                stream.until(first)
                assert stream.hear(3) == ["ping"] * 3
                cancel(served.base, export)
                assert stream.next() is not None
            export = entered(served.base, "numbers")
