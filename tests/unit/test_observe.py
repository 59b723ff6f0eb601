"""What happens is told once, and each subscriber makes its own of it."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import structlog

from service.observe import (
    DatasetUnusable,
    Event,
    EventsUnread,
    GenerationEnded,
    GenerationStarted,
    JobEnded,
    JobStarted,
    Metrics,
    RecordsDropped,
    RecordsNotWritten,
    RequestEnded,
    StreamEnded,
    StreamStarted,
    Swept,
    Unexpected,
    UpstreamFailed,
    WorkerWaiting,
    log,
    observer,
)

STARTED = StreamStarted("id-1", "stream", "numbers", "csv", "copy", 0.25)
ENDED = StreamEnded("id-1", "stream", "numbers", "csv", "copy", "complete", 7, 70, 1.5, None)
REQUEST = RequestEnded("GET", "/v1/rows/numbers.csv", "/v1/rows/{dataset:path}", 200, 0.5)
FIRST_TOKEN = GenerationStarted("id-2", "default", "m", 0.25)
GENERATED = GenerationEnded("id-2", "default", "m", "succeeded", 7, 30, 1.5, None)
EVENTS = [
    (STARTED, "info"),
    (ENDED, "info"),
    (REQUEST, "info"),
    (RecordsNotWritten(3, "OSError()"), "warning"),
    (RecordsDropped(2), "error"),
    (DatasetUnusable("numbers", "it is gone"), "error"),
    (Unexpected("/", "Traceback"), "error"),
    (UpstreamFailed("archive", "upstream_timeout", "ReadTimeout()"), "warning"),
    (JobStarted("an id", "numbers", 1), "info"),
    (JobEnded("an id", "numbers", 1, "succeeded", 7, 70, 0.5, None), "info"),
    (WorkerWaiting("OSError()"), "warning"),
    (EventsUnread("OSError()"), "warning"),
    (Swept({"lost": 1}), "info"),
    (FIRST_TOKEN, "info"),
    (GENERATED, "info"),
]
EXPORT = {"dataset": "numbers", "format": "csv", "lane": "copy"}
COMPLETE = EXPORT | {"outcome": "complete"}


def test_every_subscriber_is_told_in_order() -> None:
    told: list[tuple[int, Event]] = []
    observe = observer(
        [lambda event: told.append((1, event)), lambda event: told.append((2, event))]
    )
    observe(STARTED)
    observe(ENDED)
    assert told == [(1, STARTED), (2, STARTED), (1, ENDED), (2, ENDED)]


@pytest.mark.parametrize(
    ("event", "level"), EVENTS, ids=[type(event).__name__ for event, _ in EVENTS]
)
def test_an_event_is_one_line_with_its_fields(event: Event, level: str) -> None:
    with structlog.testing.capture_logs() as lines:
        log(event)
    (line,) = lines
    assert (line.pop("event"), line.pop("log_level")) == (event.name, level)
    assert line == asdict(event)


def test_every_event_has_a_name_of_its_own() -> None:
    names = [type(event).name for event, _ in EVENTS]
    assert len(set(names)) == len(names)
    assert set(names) == {kind.name for kind in Event.__subclasses__()}
    assert Event.name not in names


def test_a_line_has_the_id_of_its_request() -> None:
    merge = structlog.contextvars.merge_contextvars
    with (
        structlog.testing.capture_logs(processors=[merge]) as lines,
        structlog.contextvars.bound_contextvars(request_id="r-1"),
    ):
        log(STARTED)
    assert lines[0]["request_id"] == "r-1"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def sample(metrics: Metrics, name: str, labels: dict[str, str]) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_stream_is_active_between_its_events(metrics: Metrics) -> None:
    metrics(STARTED)
    metrics(STARTED)
    assert sample(metrics, "tailrace_streams_active", EXPORT) == 2
    assert sample(metrics, "tailrace_first_byte_seconds_sum", EXPORT) == 0.5
    assert sample(metrics, "tailrace_streams_total", COMPLETE) is None
    metrics(ENDED)
    assert sample(metrics, "tailrace_streams_active", EXPORT) == 1


def test_streams_are_counted_by_outcome(metrics: Metrics) -> None:
    metrics(ENDED)
    metrics(ENDED)
    metrics(replace(ENDED, outcome="failed", rows=1, bytes=3, seconds=0.5))
    assert sample(metrics, "tailrace_streams_total", COMPLETE) == 2
    assert sample(metrics, "tailrace_stream_rows_total", COMPLETE) == 14
    assert sample(metrics, "tailrace_stream_bytes_total", COMPLETE) == 140
    assert sample(metrics, "tailrace_stream_seconds_sum", COMPLETE) == 3.0
    assert sample(metrics, "tailrace_stream_seconds_count", COMPLETE) == 2
    failed = EXPORT | {"outcome": "failed"}
    assert sample(metrics, "tailrace_streams_total", failed) == 1
    assert sample(metrics, "tailrace_stream_rows_total", failed) == 1


def test_requests_are_counted_by_route(metrics: Metrics) -> None:
    metrics(REQUEST)
    metrics(replace(REQUEST, path="/v1/rows/other.csv"))
    metrics(replace(REQUEST, status=None))
    route = {"method": "GET", "route": "/v1/rows/{dataset:path}"}
    assert sample(metrics, "tailrace_requests_total", route | {"status": "200"}) == 2
    assert sample(metrics, "tailrace_requests_total", route | {"status": "none"}) == 1
    assert sample(metrics, "tailrace_request_seconds_sum", route) == 1.5


def test_losses_and_bugs_are_counted(metrics: Metrics) -> None:
    metrics(RecordsDropped(2))
    metrics(RecordsDropped(3))
    metrics(Unexpected("/", "Traceback"))
    assert sample(metrics, "tailrace_records_dropped_total", {}) == 5
    assert sample(metrics, "tailrace_unexpected_errors_total", {}) == 1


def test_failures_are_counted_by_upstream_and_code(metrics: Metrics) -> None:
    metrics(UpstreamFailed("archive", "upstream_timeout", "ReadTimeout()"))
    metrics(UpstreamFailed("archive", "upstream_timeout", "another"))
    metrics(UpstreamFailed("other", "upstream_error", "LocalProtocolError()"))
    name = "tailrace_upstream_failures_total"
    timeouts = {"upstream": "archive", "code": "upstream_timeout"}
    assert sample(metrics, name, timeouts) == 2
    assert sample(metrics, name, {"upstream": "other", "code": "upstream_error"}) == 1
    assert sample(metrics, name, timeouts | {"upstream": "other"}) is None


def test_generations_are_counted_by_how_they_ended(metrics: Metrics) -> None:
    metrics(FIRST_TOKEN)
    metrics(GENERATED)
    metrics(replace(GENERATED, tokens=3, model="another"))
    metrics(replace(GENERATED, outcome="failed", code="timeout", tokens=1))
    ended = {"provider": "default", "outcome": "succeeded", "code": ""}
    assert sample(metrics, "tailrace_generations_total", ended) == 2
    failed = ended | {"outcome": "failed", "code": "timeout"}
    assert sample(metrics, "tailrace_generations_total", failed) == 1
    provider = {"provider": "default"}
    assert sample(metrics, "tailrace_generation_tokens_total", provider) == 11
    assert sample(metrics, "tailrace_first_token_seconds_sum", provider) == 0.25


def test_what_has_no_metric_is_passed_over(metrics: Metrics) -> None:
    metrics(DatasetUnusable("numbers", "it is gone"))
    metrics(RecordsNotWritten(3, "OSError()"))


def test_two_services_in_a_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first(ENDED)
    assert sample(second, "tailrace_streams_total", COMPLETE) is None
