"""The events of one job as the log has them: from the queue to its end, and of its retry."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.clients import ask
from tests.event_stream import Sent, events_of, names
from tests.jobs import Logged, log_of, post
from tests.own_jobs import OwnJobs, events_path, ids, logged, own_jobs
from tests.serving import Served
from tests.session import Session, session
from tests.wire.job_service import (
    cancel,
    closed_gate,
    done,
    entered,
    job_service,
    reach,
    receipt,
    shown,
)

# In two seconds, so that there is progress.
PACED = """
[datasets.paced]
sql = '''
    select case when i % 50 = 0 then pg_sleep(0.05)::text else '' end
               || repeat(md5(i::text), 30) as word
    from (select generate_series(1, 2000) as i) s
'''
"""
APART = 0.2  # seconds, with some room below a quarter
GAPS = """
    SELECT jsonb_agg(gap)::text FROM (
        SELECT extract(epoch FROM at - lag(at) OVER (ORDER BY seq)) AS gap
        FROM tailrace.export_events WHERE export_id = $1::text::uuid AND name = 'progress'
    ) s WHERE gap IS NOT NULL
"""


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """It runs one job at a time."""
    folder = tmp_path_factory.mktemp("served")
    with job_service(folder, module_database_url, config=PACED, worker__concurrency="1") as found:
        yield found


@pytest.fixture
def jobs(module_database_url: str, database: Session) -> Iterator[OwnJobs]:
    with own_jobs(module_database_url, database) as found:
        yield found


def test_the_state_is_the_whole_export(served: Served, jobs: OwnJobs) -> None:
    record = jobs.waiting(dataset="things", request={"dataset": "things"}, total_rows=20)
    with events_of(served.base, events_path(record)) as stream:
        state = stream.next()
    assert state == Sent(1, "state", shown(served.base, record.id))
    here = f"{served.base}/v1/exports/{record.id}"
    assert state.data == {
        "id": record.id,
        "kind": "job",
        "owner": "anonymous",
        "dataset": "things",
        "source": "nowhere",
        "format": "csv",
        "compression": "none",
        "profile": "machine",
        "request": {"dataset": "things"},
        "state": "queued",
        "attempt": 1,
        "attempts": [],
        "created_at": state.data["created_at"],
        **dict.fromkeys(("started_at", "finished_at", "expires_at", "error")),
        "progress": {
            "rows": 0,
            "bytes": 0,
            "total_rows": 20,
            "total_kind": "unknown",
            "total_bytes": None,
            "fraction": 0.0,
            **dict.fromkeys(("rows_per_s", "bytes_per_s", "eta_s")),
        },
        "links": {
            "self": here,
            "events": f"{here}/events",
            "content": f"{here}/content?attempt=1",
            "receipt": f"{here}/receipt",
            "cancel": f"{here}/cancel",
        },
    }


def test_links_are_those_of_the_address_by_which_a_client_came(
    served: Served, jobs: OwnJobs, database: Session
) -> None:
    """Several addresses at once, from the first event to the last."""
    record = jobs.running()
    path = events_path(record)
    bases = (served.base, "http://exports.example:8443", "http://other.example")
    with (
        events_of(served.base, path) as one,
        events_of(served.base, path, Host="exports.example:8443") as two,
        events_of(served.base, path, Host="other.example") as three,
    ):
        streams = (one, two, three)
        states = [stream.next() for stream in streams]
        jobs.succeed(record)
        rest = [stream.rest() for stream in streams]
    for base, state, events in zip(bases, states, rest, strict=True):
        assert [state, *events] == logged(database, record, base, behind=1)


def test_from_the_queue_to_the_end(served: Served, database: Session) -> None:
    with closed_gate(database, served.base):
        first = entered(served.base, "gated")
        reach(served.base, first, "running")
        export = entered(served.base, "gated")
        with events_of(served.base, events_path(export)) as stream:
            seen = [stream.next()]
            assert seen == [Sent(1, "state", shown(served.base, export))]
            cancel(served.base, first)
            events = stream.until("progress")
            database.open_gate()
            events += stream.rest()
    assert [*seen, *events] == logged(database, export, served.base)
    assert ids(events) == list(range(2, len(events) + 2))
    assert names(events) == ["state", "succeeded", "close"]
    assert events[0].data["state"] == "running"
    assert events[-2].data == {
        **shown(served.base, export),
        "receipt": receipt(served.base, export),
    }
    assert events[-2].data["state"] == "succeeded"
    assert events[-2].data["receipt"]["outcome"] == "complete"
    assert events[-1].data == {}
    assert stream.retries == [3_000]


def test_progress_tells_how_far_it_is(served: Served, jobs: OwnJobs) -> None:
    record = jobs.running(total_rows=20, total_kind="estimate")
    with events_of(served.base, events_path(record)) as stream:
        stream.until("state")
        jobs.beat(record, 5)
        (progress,) = stream.until("progress")
    assert progress.data == {
        "attempt": 1,
        "rows": 5,
        "bytes": 50,
        "total_rows": 20,
        "total_kind": "estimate",
        "total_bytes": None,
        "fraction": 0.25,
        **dict.fromkeys(("rows_per_s", "bytes_per_s", "eta_s")),
    }


@pytest.mark.parametrize("dataset", ["breaking", "broken"])
def test_a_failure_is_told_with_its_reason(served: Served, database: Session, dataset: str) -> None:
    """Be it in the middle or before the first row."""
    export = done(served.base, dataset)["id"]
    with events_of(served.base, events_path(export)) as stream:
        state, failure, close = stream.rest()
    assert [failure, close] == logged(database, export, served.base)[-2:]
    assert (state.name, failure.name, close.name) == ("state", "failed", "close")
    assert state.data == shown(served.base, export)
    assert failure.data == {**state.data, "receipt": receipt(served.base, export)}
    error = failure.data["error"]
    assert (failure.data["state"], error["status"]) == ("failed", 502)
    assert (error["code"], "division by zero" in error["detail"]) == ("source_error", True)
    assert failure.data["receipt"]["outcome"] == "failed"


def test_a_cancellation_is_told_with_its_proof(served: Served, database: Session) -> None:
    with closed_gate(database, served.base):
        export = entered(served.base, "gated")
        with events_of(served.base, events_path(export)) as stream:
            stream.until("progress")
            answer = cancel(served.base, export).json()
            *_, cancelled, close = stream.rest()
    assert [cancelled, close] == logged(database, export, served.base)[-2:]
    assert (cancelled.name, close.name) == ("cancelled", "close")
    assert cancelled.data == {
        **shown(served.base, export),
        "receipt": receipt(served.base, export),
    }
    assert cancelled.data["state"] == "cancelled"
    assert cancelled.data["receipt"]["cancel"] == answer["proof"]
    assert answer["proof"]["backend_gone"] is True


def test_the_events_of_a_retry_go_on(served: Served, database: Session) -> None:
    export = done(served.base, "broken")["id"]
    before = log_of(database, export)
    assert [event.name for event in before[-2:]] == ["failed", "close"]
    assert post(served.base, f"/v1/exports/{export}/retry").status == 202
    with events_of(served.base, events_path(export), len(before)) as stream:
        seen = stream.rest()
    assert seen == logged(database, export, served.base, behind=len(before))
    assert ids(seen) == list(range(len(before) + 1, len(before) + len(seen) + 1))
    assert names(seen) == ["state", "state", "failed", "close"]
    assert [event.data["attempt"] for event in seen[:-1]] == [2] * (len(seen) - 1)
    assert [event.data["state"] for event in seen if event.name == "state"] == ["queued", "running"]


def test_a_lost_attempt_is_no_end(served: Served, jobs: OwnJobs, database: Session) -> None:
    """The next one is told of on the same connection."""
    record = jobs.running()
    with events_of(served.base, events_path(record)) as stream:
        stream.until("state")
        jobs.put_back(record)
        again = jobs.claim(record)
        jobs.beat(again, 1)
        jobs.fail(again)
        seen = stream.rest()
    assert seen == logged(database, record, served.base, behind=2)
    assert ids(seen) == [3, 4, 5, 6, 7]
    assert [(event.name, event.data.get("attempt")) for event in seen] == [
        *(("state", 2), ("state", 2), ("progress", 2)),
        *(("failed", 2), ("close", None)),
    ]


def test_there_are_four_reports_a_second_at_most(served: Served, database: Session) -> None:
    export = entered(served.base, "paced")
    with events_of(served.base, events_path(export)) as stream:
        seen = stream.rest()
    assert seen[-2].name == "succeeded"
    progress = [event for event in log_of(database, export) if event.name == "progress"]
    gaps = json.loads(str(database.value(GAPS, export)))
    assert len(gaps) == len(progress) - 1 > 2
    assert min(gaps) > APART
    assert_further(progress)


def assert_further(progress: list[Logged]) -> None:
    rows = [event.data["rows"] for event in progress]
    assert rows == sorted(set(rows))
    assert rows[-1] <= 2_000


def test_the_events_of_what_is_gone_end(served: Served, jobs: OwnJobs) -> None:
    record = jobs.running()
    with events_of(served.base, events_path(record)) as stream:
        stream.until("state")
        jobs.remove(record.id)
        jobs.hint(record)
        assert stream.rest() == [Sent(None, "close", {})]


def test_a_deletion_ends_the_events_of_what_lives(served: Served, jobs: OwnJobs) -> None:
    record = jobs.waiting()
    with events_of(served.base, events_path(record)) as stream:
        stream.until("state")
        assert ask(served.base, f"/v1/exports/{record.id}", "DELETE").status == 204
        seen = stream.rest()
    # It is cancelled first, and maybe gone before anybody could tell of that.
    assert names(seen) in (["cancelled", "close"], ["close"])
