"""The tables of Tailrace's own schema, as the migrations leave them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
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
