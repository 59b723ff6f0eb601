"""The tables of Tailrace's own schema, as the migrations leave them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "tailrace"

metadata = MetaData(schema=SCHEMA)

exports = Table(
    "exports",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7, made by the process that took it."),
    Column("kind", Text, nullable=False, comment="job, stream, relay or file."),
    Column("owner", Text, nullable=False, comment="Subject of the caller whose export it is."),
    Column("dataset", Text, comment="Dataset; NULL for files and relays."),
    Column("source", Text, comment="Configured source, upstream or root that the bytes come from."),
    Column("lane", Text, comment="copy or rows; NULL where no query runs."),
    Column("format", Text, comment="csv, ndjson or json; NULL where bytes pass as they are."),
    Column("compression", Text, comment="none, gzip or zstd."),
    Column("profile", Text, comment="machine or excel."),
    Column("request", JSONB, nullable=False, comment="The validated request as it was asked."),
    Column("state", Text, nullable=False, comment="The one truth about how far it is."),
    Column(
        "attempt",
        Integer,
        nullable=False,
        server_default="1",
        comment="Counts from 1; a write of any other attempt than this is refused.",
    ),
    Column("created_at", DateTime(timezone=True), nullable=False, comment="When it was asked for."),
    Column("started_at", DateTime(timezone=True), comment="When this attempt began to run."),
    Column("finished_at", DateTime(timezone=True), comment="When it reached its last state."),
    Column("expires_at", DateTime(timezone=True), comment="When its artifact is removed."),
    Column(
        "heartbeat_at",
        DateTime(timezone=True),
        nullable=False,
        comment="Last sign of life of the process that works on it.",
    ),
    Column("rows", BigInteger, comment="Rows written so far."),
    Column("bytes", BigInteger, comment="Bytes written so far, of the file that a client saves."),
    Column("total_rows", BigInteger, comment="Rows expected; total_kind says how sure that is."),
    Column("total_kind", Text, comment="exact, estimate or unknown."),
    Column(
        "total_bytes", BigInteger, comment="Bytes expected of a file or relay; NULL if unknown."
    ),
    Column("filename", Text, comment="Name of the saved file, where one was asked for."),
    Column("fingerprint", Text, comment="Digest of owner and request: equal ones may share a job."),
    Column("priority", Integer, comment="Higher ones run first: what is small goes before large."),
    Column("attempts", JSONB(none_as_null=True), comment="Past attempts, each with its reason."),
    Column("attempts_until", Integer, comment="The last attempt that is made without being asked."),
    Column("artifact", Text, comment="Random name of this attempt's file; NULL without one."),
    Column("worker", Text, comment="The worker that runs this attempt."),
    Column("lease_until", DateTime(timezone=True), comment="When the worker loses the attempt."),
    Column("not_before", DateTime(timezone=True), comment="When a queued attempt may begin."),
    Column("snapshot_at", DateTime(timezone=True), comment="Which state of the data is read."),
    Column("cancel_requested_at", DateTime(timezone=True), comment="When somebody asked to stop."),
    Column("cancel", JSONB(none_as_null=True), comment="Proof that the query has stopped."),
    Column("rows_per_s", Double, comment="Smoothed rate; NULL until it is known."),
    Column("bytes_per_s", Double, comment="Smoothed rate; NULL until it is known."),
    Column("eta_s", Double, comment="Seconds left as they were estimated last."),
    Column(
        "event_seq",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="Number of the last event; events are numbered in its transaction.",
    ),
    # None is SQL's NULL here, not the JSON value null
    Column("error", JSONB(none_as_null=True), comment="Problem document (RFC 9457) if it failed."),
    Column("receipt", JSONB(none_as_null=True), comment="Proof of the stream, once it is known."),
    CheckConstraint("kind in ('job', 'stream', 'relay', 'file')", name="exports_kind_check"),
    CheckConstraint(
        "state in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')",
        name="exports_state_check",
    ),
    CheckConstraint(
        "total_kind in ('exact', 'estimate', 'unknown')", name="exports_total_kind_check"
    ),
    CheckConstraint("attempt >= 1", name="exports_attempt_check"),
    comment="Every job, direct stream, relay and file that Tailrace serves: one row an export.",
)

# lists are paged newest first: the pair (created_at, id) is the cursor
NEWEST_FIRST = (exports.c.created_at.desc(), exports.c.id.desc())

Index("exports_owner_idx", exports.c.owner, *NEWEST_FIRST)
Index("exports_state_idx", exports.c.state, *NEWEST_FIRST)
Index("exports_dataset_idx", exports.c.dataset, *NEWEST_FIRST)
Index("exports_finished_idx", exports.c.finished_at)
Index(
    "exports_live_idx",
    exports.c.state,
    exports.c.fingerprint,
    postgresql_where=text("state in ('queued', 'running')"),
)
Index("exports_expires_idx", exports.c.expires_at, postgresql_where=text("artifact is not null"))

export_events = Table(
    "export_events",
    metadata,
    Column("export_id", Uuid, ForeignKey(exports.c.id, ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, comment="Counts from 1 without gaps."),
    Column(
        "name",
        Text,
        nullable=False,
        comment="state, progress, succeeded, failed, cancelled, close.",
    ),
    Column("data", JSONB, nullable=False, comment="What a client is sent, without links."),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    comment="What happened to each export, in order: what event streams replay.",
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Text, primary_key=True, comment="Subject of the caller."),
    Column("key", Text, primary_key=True, comment="The client's Idempotency-Key."),
    Column("request_sha256", Text, nullable=False, comment="Digest of the body it came with."),
    Column("answer", JSONB(none_as_null=True), comment="Status, headers and body that were sent."),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    comment="Answers to requests that may be repeated.",
)
Index("idempotency_keys_created_idx", idempotency_keys.c.created_at)

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True, comment="Host, process and a random part."),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("running", Integer, nullable=False, comment="Exports that it runs."),
    Column("concurrency", Integer, nullable=False, comment="Exports that it may run at once."),
    comment="The workers that are there; one that is not seen for a while is gone.",
)
