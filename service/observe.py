"""What happens, told once: ``observe(event)``; the log and the metrics subscribe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 14400)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; the fields of its subclasses become fields of the log line."""

    name: ClassVar[str] = "event"
    level: ClassVar[str] = "info"


@dataclass(frozen=True, slots=True)
class RequestEnded(Event):
    name: ClassVar[str] = "request"
    method: str
    path: str
    route: str
    status: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class StreamStarted(Event):
    name: ClassVar[str] = "stream started"
    export_id: str
    kind: str
    dataset: str
    format: str
    lane: str
    first_byte_seconds: float


@dataclass(frozen=True, slots=True)
class StreamEnded(Event):
    name: ClassVar[str] = "stream ended"
    export_id: str
    kind: str
    dataset: str
    format: str
    lane: str
    outcome: str
    rows: int
    bytes: int
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    name: ClassVar[str] = "job started"
    export_id: str
    dataset: str
    attempt: int


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """``state`` is that of the export afterwards; "lost" if another attempt has taken over."""

    name: ClassVar[str] = "job ended"
    export_id: str
    dataset: str
    attempt: int
    state: str
    rows: int
    bytes: int
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class WorkerWaiting(Event):
    """Tailrace's own database does not answer."""

    name: ClassVar[str] = "worker waiting"
    level: ClassVar[str] = "warning"
    error: str


@dataclass(frozen=True, slots=True)
class EventsUnread(Event):
    """Tailrace's own database does not answer; who watches exports waits."""

    name: ClassVar[str] = "events not read"
    level: ClassVar[str] = "warning"
    error: str


@dataclass(frozen=True, slots=True)
class Swept(Event):
    """What the sweeper found: counts by what was done."""

    name: ClassVar[str] = "swept"
    found: dict[str, int]


@dataclass(frozen=True, slots=True)
class RecordsNotWritten(Event):
    name: ClassVar[str] = "records not written"
    level: ClassVar[str] = "warning"
    pending: int
    error: str


@dataclass(frozen=True, slots=True)
class RecordsDropped(Event):
    name: ClassVar[str] = "records dropped"
    level: ClassVar[str] = "error"
    count: int


@dataclass(frozen=True, slots=True)
class DatasetUnusable(Event):
    name: ClassVar[str] = "dataset unusable"
    level: ClassVar[str] = "error"
    dataset: str
    reason: str


@dataclass(frozen=True, slots=True)
class GenerationStarted(Event):
    """The first token has come."""

    name: ClassVar[str] = "generation started"
    generation_id: str
    provider: str
    model: str
    first_token_seconds: float


@dataclass(frozen=True, slots=True)
class GenerationEnded(Event):
    """``outcome`` is its last state; ``code`` is that of its error."""

    name: ClassVar[str] = "generation ended"
    generation_id: str
    provider: str
    model: str
    outcome: str
    tokens: int
    chars: int
    seconds: float
    code: str | None


@dataclass(frozen=True, slots=True)
class UpstreamFailed(Event):
    """What an upstream failed with; ``error`` says more than its client is told."""

    name: ClassVar[str] = "upstream failed"
    level: ClassVar[str] = "warning"
    upstream: str
    code: str
    error: str


@dataclass(frozen=True, slots=True)
class Unexpected(Event):
    """An exception that is our bug."""

    name: ClassVar[str] = "unexpected error"
    level: ClassVar[str] = "error"
    path: str
    error: str


Subscriber = Callable[[Event], None]
Observer = Callable[[Event], None]


def observer(subscribers: Sequence[Subscriber]) -> Observer:
    """One function that tells every subscriber."""

    def observe(event: Event) -> None:
        for subscriber in subscribers:
            subscriber(event)

    return observe


def log(event: Event) -> None:
    """Subscriber: one structured line an event, with the request's id from the context."""
    fields: dict[str, Any] = asdict(event)
    getattr(structlog.get_logger("tailrace"), event.level)(event.name, **fields)


class Metrics:
    """Subscriber: Prometheus metrics of this process in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        export = ("dataset", "format", "lane")
        ended = (*export, "outcome")

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, labels: Sequence[str]) -> Histogram:
            return Histogram(name, text, labels, registry=self.registry, buckets=SECONDS)

        self.streams = counter("tailrace_streams", "Streams ended, by outcome.", ended)
        self.rows = counter("tailrace_stream_rows", "Rows sent.", ended)
        self.bytes = counter("tailrace_stream_bytes", "Bytes of files sent.", ended)
        self.duration = histogram(
            "tailrace_stream_seconds", "Time from first to last byte of a stream.", ended
        )
        self.first_byte = histogram(
            "tailrace_first_byte_seconds", "Time from request to first byte.", export
        )
        self.active = Gauge(
            "tailrace_streams_active", "Streams being sent.", export, registry=self.registry
        )
        self.requests = counter("tailrace_requests", "Requests.", ("method", "route", "status"))
        self.request_duration = histogram(
            "tailrace_request_seconds", "Duration of requests.", ("method", "route")
        )
        self.dropped = counter("tailrace_records_dropped", "Records given up unwritten.")
        self.jobs = Gauge(
            "tailrace_jobs", "Jobs of the service.", ("state",), registry=self.registry
        )
        self.workers = Gauge("tailrace_workers", "Workers heard of lately.", registry=self.registry)
        self.readers = Gauge(
            "tailrace_event_readers", "Open streams of events.", registry=self.registry
        )
        self.upstreams = counter(
            "tailrace_upstream_failures",
            "Failures of upstreams, those that were made up for included.",
            ("upstream", "code"),
        )
        # Not the model, which callers name.
        self.generations = counter(
            "tailrace_generations",
            "Answers of language models that ended.",
            ("provider", "outcome", "code"),
        )
        self.tokens = counter("tailrace_generation_tokens", "Pieces of text.", ("provider",))
        self.first_token = histogram(
            "tailrace_first_token_seconds", "Time from request to first token.", ("provider",)
        )
        self.unexpected = counter("tailrace_unexpected_errors", "Errors that are bugs.")

    def __call__(self, event: Event) -> None:
        match event:
            case StreamStarted():
                labels = (event.dataset, event.format, event.lane)
                self.first_byte.labels(*labels).observe(event.first_byte_seconds)
                self.active.labels(*labels).inc()
            case StreamEnded():
                self._ended(event)
            case RequestEnded():
                self.requests.labels(event.method, event.route, str(event.status or "none")).inc()
                self.request_duration.labels(event.method, event.route).observe(event.seconds)
            case RecordsDropped():
                self.dropped.inc(event.count)
            case GenerationStarted():
                self.first_token.labels(event.provider).observe(event.first_token_seconds)
            case GenerationEnded():
                self.generations.labels(event.provider, event.outcome, event.code or "").inc()
                self.tokens.labels(event.provider).inc(event.tokens)
            case UpstreamFailed():
                self.upstreams.labels(event.upstream, event.code).inc()
            case Unexpected():
                self.unexpected.inc()
            case _:
                pass

    def looked_at(
        self, *, queued: int | None, running: int | None, workers: int | None, readers: int
    ) -> None:
        """What was found when somebody asked; NaN where the database did not answer."""
        for state, count in (("queued", queued), ("running", running)):
            self.jobs.labels(state).set(math.nan if count is None else count)
        self.workers.set(math.nan if workers is None else workers)
        self.readers.set(readers)

    def _ended(self, event: StreamEnded) -> None:
        labels = (event.dataset, event.format, event.lane)
        self.active.labels(*labels).dec()
        self.streams.labels(*labels, event.outcome).inc()
        self.rows.labels(*labels, event.outcome).inc(event.rows)
        self.bytes.labels(*labels, event.outcome).inc(event.bytes)
        self.duration.labels(*labels, event.outcome).observe(event.seconds)
