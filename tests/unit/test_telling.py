"""What a stream tells of itself while it runs: its record, an event at each end, a stop at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.database import service_engine, utcnow
from service.errors import Cancelled, TailraceError, UpstreamTimeout
from service.export.receipt import Outcome
from service.jobs.model import Kind, Record, State
from service.jobs.store import Recorder
from service.jobs.telling import Telling
from service.observe import Event, StreamEnded, StreamStarted

NOWHERE = "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"  # a recorder that never writes
ROWS = {
    "dataset": "numbers",
    "source": "main",
    "lane": "copy",
    "format": "csv",
    "compression": "none",
    "profile": "machine",
}
DOWNLOAD: dict[str, Any] = {**dict.fromkeys(ROWS), "source": "archive"}
RECEIPT = {"rows": None, "bytes": 70, "encoded_bytes": None}


def telling(
    kind: Kind, told: list[Event], *, recorder: Recorder | None = None, **values: Any
) -> Telling:
    record = Record(
        id="019b7f5e-0000-7000-8000-000000000001",
        kind=kind,
        owner="anonymous",
        request={},
        created_at=datetime.now(UTC),
        **values,
    )
    return Telling(record, recorder, told.append, time.monotonic())


def recording() -> Recorder:
    return Recorder(service_engine(NOWHERE), lambda _: None)


def counting(sizes: list[int]) -> Callable[[Record], Record]:
    return lambda record: replace(record, bytes=sum(sizes))


@pytest.mark.parametrize(
    ("kind", "values", "labels"),
    [
        (Kind.STREAM, ROWS, ("stream", "numbers", "csv", "copy")),
        (Kind.RELAY, DOWNLOAD, ("relay", "archive", "", "relay")),
        (Kind.FILE, DOWNLOAD, ("file", "archive", "", "file")),
    ],
)
def test_it_tells_of_both_ends_under_the_same_labels(
    kind: Kind, values: dict[str, Any], labels: tuple[str, ...]
) -> None:
    told: list[Event] = []
    stream = telling(kind, told, recorder=recording(), **values)
    stream.started(lambda record: record)
    stream.ended(RECEIPT, Outcome.COMPLETE, utcnow(), None)
    started, ended = told
    assert isinstance(started, StreamStarted)
    assert isinstance(ended, StreamEnded)
    assert (started.kind, started.dataset, started.format, started.lane) == labels
    assert (ended.kind, ended.dataset, ended.format, ended.lane) == labels
    assert (ended.outcome, ended.rows, ended.bytes, ended.error) == ("complete", 0, 70, None)
    assert started.export_id == ended.export_id == stream.record.id


def test_its_record_is_known_from_the_first_byte_to_the_end() -> None:
    recorder, sizes = recording(), [10]
    stream = telling(Kind.RELAY, [], recorder=recorder, **DOWNLOAD)
    assert recorder.known(stream.record.id) is None
    stream.started(counting(sizes))
    sizes.append(20)
    running = recorder.known(stream.record.id)
    assert running is not None
    assert (running.state, running.bytes) == (State.RUNNING, 30)
    assert running.started_at is not None
    stream.ended(RECEIPT, Outcome.TRUNCATED, utcnow(), UpstreamTimeout("It went silent."))
    done = recorder.known(stream.record.id)
    assert done == stream.record
    assert (done.state, done.bytes, done.receipt) == (State.FAILED, 70, RECEIPT)
    assert done.error is not None
    assert (done.error["code"], done.error["detail"]) == ("upstream_timeout", "It went silent.")


def test_without_a_recorder_the_log_is_told_alone() -> None:
    told: list[Event] = []
    stream = telling(Kind.FILE, told, **DOWNLOAD)
    stream.started(lambda record: record)
    stream.ended(RECEIPT, Outcome.COMPLETE, utcnow(), None)
    assert [type(event) for event in told] == [StreamStarted, StreamEnded]
    assert (stream.record.state, stream.record.bytes) == (State.SUCCEEDED, 70)


def test_a_stream_is_stopped_once() -> None:
    recorder, broken = recording(), list[TailraceError]()
    stream = telling(Kind.FILE, [], recorder=recorder, **DOWNLOAD)
    stream.break_off = broken.append
    stream.started(lambda record: record)
    before = stream.cancel_asked
    assert recorder.cancel(stream.record.id)
    asked = stream.cancel_asked
    assert recorder.cancel(stream.record.id)
    assert [type(error) for error in broken] == [Cancelled]
    assert before is None
    assert asked is not None
    assert stream.cancel_asked == asked
