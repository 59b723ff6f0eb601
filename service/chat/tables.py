"""The tables of generations, as the migrations leave them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from service.jobs.tables import metadata

generations = Table(
    "generations",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7, made by the process that took it."),
    Column("owner", Text, nullable=False, comment="Subject of the caller whose it is."),
    Column("provider", Text, nullable=False, comment="Configured provider."),
    Column("model", Text, nullable=False),
    Column("asked", JSONB, nullable=False, comment="Parameters; what was said is not kept."),
    Column("state", Text, nullable=False, comment="running, succeeded, failed or cancelled."),
    Column("text", Text, comment="What the model said, once it has ended."),
    Column("tokens", Integer, nullable=False, comment="Pieces of text so far."),
    Column("chars", BigInteger, nullable=False, comment="Characters so far."),
    Column("finish_reason", Text),
    Column("usage", JSONB(none_as_null=True), comment="Tokens as the provider counts them."),
    Column("error", JSONB(none_as_null=True), comment="Code, message, whether a retry helps."),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("first_token_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column(
        "heartbeat_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="Last sign of life of the process that runs it.",
    ),
    Column("cancel_requested_at", DateTime(timezone=True), comment="When somebody stopped it."),
    Column("seq", BigInteger, nullable=False, comment="Number of the last event written."),
    comment="Answers of language models.",
)
Index("generations_created_idx", generations.c.created_at)
Index(
    "generations_live_idx",
    generations.c.heartbeat_at,
    postgresql_where=text("state = 'running'"),
)

generation_events = Table(
    "generation_events",
    metadata,
    Column(
        "generation_id", Uuid, ForeignKey(generations.c.id, ondelete="CASCADE"), primary_key=True
    ),
    Column("last", BigInteger, primary_key=True, comment="Number of the last event in here."),
    Column("first", BigInteger, nullable=False, comment="Number of the first."),
    Column("events", JSON, nullable=False, comment="Name and data of each, in order."),
    comment="Events of generations, a row for each batch that was written at once.",
)
