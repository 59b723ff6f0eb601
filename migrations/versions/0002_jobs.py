"""Jobs: what a worker needs to know of an export, its events, and the queue."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from service.jobs.queue import install, uninstall

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "tailrace"


def upgrade() -> None:
    for column in (*_attempt(), *_pace(), *_log()):
        op.add_column("exports", column, schema=SCHEMA)
    op.create_index("exports_finished_idx", "exports", ["finished_at"], schema=SCHEMA)
    # Progress changes no indexed column: with room in its page, it touches no index either.
    op.execute(f"ALTER TABLE {SCHEMA}.exports SET (fillfactor = 50)")
    live = sa.text("state in ('queued', 'running')")
    columns = ["state", "fingerprint"]
    op.create_index("exports_live_idx", "exports", columns, schema=SCHEMA, postgresql_where=live)
    kept = sa.text("artifact is not null")
    columns = ["expires_at"]
    op.create_index("exports_expires_idx", "exports", columns, schema=SCHEMA, postgresql_where=kept)
    _create_events()
    _create_idempotency_keys()
    _create_workers()
    install(op.get_bind())
    _number_past_events()


def downgrade() -> None:
    uninstall(op.get_bind())
    for table in ("workers", "idempotency_keys", "export_events"):
        op.drop_table(table, schema=SCHEMA)
    for index in ("exports_expires_idx", "exports_live_idx", "exports_finished_idx"):
        op.drop_index(index, "exports", schema=SCHEMA)
    op.execute(f"ALTER TABLE {SCHEMA}.exports RESET (fillfactor)")
    for column in reversed((*_attempt(), *_pace(), *_log())):
        op.drop_column("exports", column.name, schema=SCHEMA)


def _attempt() -> tuple[sa.Column[Any], ...]:
    return (
        _text("filename", "Name of the saved file, where one was asked for."),
        _text("fingerprint", "Digest of owner and request: equal ones may share a job."),
        sa.Column(
            "priority",
            sa.Integer,
            comment="Higher ones run first: what is small goes before large.",
        ),
        sa.Column("attempts", JSONB, comment="Past attempts, each with its reason."),
        sa.Column(
            "attempts_until",
            sa.Integer,
            comment="The last attempt that is made without being asked.",
        ),
        _text("artifact", "Random name of this attempt's file; NULL without one."),
        _text("worker", "The worker that runs this attempt."),
        _time("lease_until", "When the worker loses the attempt."),
        _time("not_before", "When a queued attempt may begin."),
        _time("snapshot_at", "Which state of the data is read."),
        _time("cancel_requested_at", "When somebody asked to stop."),
        sa.Column("cancel", JSONB, comment="Proof that the query has stopped."),
    )


def _pace() -> tuple[sa.Column[Any], ...]:
    return (
        _rate("rows_per_s", "Smoothed rate; NULL until it is known."),
        _rate("bytes_per_s", "Smoothed rate; NULL until it is known."),
        _rate("eta_s", "Seconds left as they were estimated last."),
    )


def _log() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column(
            "event_seq",
            sa.BigInteger,
            nullable=False,
            server_default="0",
            comment="Number of the last event; events are numbered in its transaction.",
        ),
    )


def _create_events() -> None:
    op.create_table(
        "export_events",
        sa.Column(
            "export_id",
            sa.Uuid,
            sa.ForeignKey(f"{SCHEMA}.exports.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("seq", sa.BigInteger, primary_key=True, comment="Counts from 1 without gaps."),
        _text("name", "state, progress, succeeded, failed, cancelled, close.", nullable=False),
        sa.Column("data", JSONB, nullable=False, comment="What a client is sent, without links."),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.clock_timestamp(),
        ),
        schema=SCHEMA,
        comment="What happened to each export, in order: what event streams replay.",
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text, primary_key=True, comment="Subject of the caller."),
        sa.Column("key", sa.Text, primary_key=True, comment="The client's Idempotency-Key."),
        _text("request_sha256", "Digest of the body it came with.", nullable=False),
        sa.Column("answer", JSONB, comment="Status, headers and body that were sent."),
        _since("created_at", None),
        schema=SCHEMA,
        comment="Answers to requests that may be repeated.",
    )
    op.create_index(
        "idempotency_keys_created_idx", "idempotency_keys", ["created_at"], schema=SCHEMA
    )


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("name", sa.Text, primary_key=True, comment="Host, process and a random part."),
        _since("started_at", None),
        _since("seen_at", None),
        sa.Column("running", sa.Integer, nullable=False, comment="Exports that it runs."),
        sa.Column(
            "concurrency",
            sa.Integer,
            nullable=False,
            comment="Exports that it may run at once.",
        ),
        schema=SCHEMA,
        comment="The workers that are there; one that is not seen for a while is gone.",
    )


def _number_past_events() -> None:
    """As if they had been logged: the last state, and behind it the end where it has ended."""
    final = "CASE WHEN state IN ('queued', 'running') THEN 1 ELSE 2 END"
    op.execute(f"UPDATE {SCHEMA}.exports SET event_seq = {final}")  # noqa: S608 - constants


def _text(name: str, comment: str, *, nullable: bool = True) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, comment=comment)


def _time(name: str, comment: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), comment=comment)


def _since(name: str, comment: str | None) -> sa.Column[Any]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.now(),
        comment=comment,
    )


def _rate(name: str, comment: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, comment=comment)
