"""The record of every export."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "tailrace"


def upgrade() -> None:
    op.create_table(
        "exports",
        *_identity(),
        *_request(),
        *_course(),
        *_outcome(),
        *_checks(),
        schema=SCHEMA,
        comment="Every job, direct stream, relay and file that Tailrace serves: one row an export.",
    )
    newest_first = [sa.text("created_at desc"), sa.text("id desc")]
    for column in ("owner", "state", "dataset"):
        op.create_index(f"exports_{column}_idx", "exports", [column, *newest_first], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("exports", schema=SCHEMA)


def _identity() -> list[sa.Column[Any]]:
    return [
        sa.Column(
            "id", sa.Uuid, primary_key=True, comment="UUIDv7, made by the process that took it."
        ),
        _text("kind", "job, stream, relay or file.", nullable=False),
        _text("owner", "Subject of the caller whose export it is.", nullable=False),
    ]


def _request() -> list[sa.Column[Any]]:
    return [
        _text("dataset", "Dataset; NULL for files and relays."),
        _text("source", "Configured source, upstream or root that the bytes come from."),
        _text("lane", "copy or rows; NULL where no query runs."),
        _text("format", "csv, ndjson or json; NULL where bytes pass as they are."),
        _text("compression", "none, gzip or zstd."),
        _text("profile", "machine or excel."),
        sa.Column(
            "request", JSONB, nullable=False, comment="The validated request as it was asked."
        ),
    ]


def _course() -> list[sa.Column[Any]]:
    return [
        _text("state", "The one truth about how far it is.", nullable=False),
        sa.Column(
            "attempt",
            sa.Integer,
            nullable=False,
            server_default="1",
            comment="Counts from 1; a write of any other attempt than this is refused.",
        ),
        _time("created_at", "When it was asked for.", nullable=False),
        _time("started_at", "When this attempt began to run."),
        _time("finished_at", "When it reached its last state."),
        _time("expires_at", "When its artifact is removed."),
        _time("heartbeat_at", "Last sign of life of the process that works on it.", nullable=False),
    ]


def _outcome() -> list[sa.Column[Any]]:
    return [
        _count("rows", "Rows written so far."),
        _count("bytes", "Bytes written so far, of the file that a client saves."),
        _count("total_rows", "Rows expected; total_kind says how sure that is."),
        _text("total_kind", "exact, estimate or unknown."),
        sa.Column("error", JSONB, comment="Problem document (RFC 9457) if it failed."),
        sa.Column("receipt", JSONB, comment="Proof of the stream, once it is known."),
    ]


def _checks() -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint("kind in ('job', 'stream', 'relay', 'file')", name="exports_kind_check"),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')",
            name="exports_state_check",
        ),
        sa.CheckConstraint(
            "total_kind in ('exact', 'estimate', 'unknown')", name="exports_total_kind_check"
        ),
        sa.CheckConstraint("attempt >= 1", name="exports_attempt_check"),
    ]


def _text(name: str, comment: str, *, nullable: bool = True) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, comment=comment)


def _time(name: str, comment: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, comment=comment)


def _count(name: str, comment: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, comment=comment)
