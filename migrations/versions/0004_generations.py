"""Generations: answers of language models, and their events in batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "tailrace"


def upgrade() -> None:
    op.create_table(
        "generations",
        sa.Column(
            "id", sa.Uuid, primary_key=True, comment="UUIDv7, made by the process that took it."
        ),
        _text("owner", "Subject of the caller whose it is.", nullable=False),
        _text("provider", "Configured provider.", nullable=False),
        _text("model", None, nullable=False),
        sa.Column("asked", JSONB, nullable=False, comment="Parameters; what was said is not kept."),
        _text("state", "running, succeeded, failed or cancelled.", nullable=False),
        _text("text", "What the model said, once it has ended."),
        sa.Column("tokens", sa.Integer, nullable=False, comment="Pieces of text so far."),
        sa.Column("chars", sa.BigInteger, nullable=False, comment="Characters so far."),
        _text("finish_reason", None),
        sa.Column("usage", JSONB, comment="Tokens as the provider counts them."),
        sa.Column("error", JSONB, comment="Code, message, whether a retry helps."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_token_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column(
            "heartbeat_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="Last sign of life of the process that runs it.",
        ),
        sa.Column(
            "cancel_requested_at", sa.DateTime(timezone=True), comment="When somebody stopped it."
        ),
        sa.Column(
            "seq", sa.BigInteger, nullable=False, comment="Number of the last event written."
        ),
        schema=SCHEMA,
        comment="Answers of language models.",
    )
    op.create_index("generations_created_idx", "generations", ["created_at"], schema=SCHEMA)
    live = sa.text("state = 'running'")
    columns = ["heartbeat_at"]
    op.create_index(
        "generations_live_idx", "generations", columns, schema=SCHEMA, postgresql_where=live
    )
    op.create_table(
        "generation_events",
        sa.Column(
            "generation_id",
            sa.Uuid,
            sa.ForeignKey(f"{SCHEMA}.generations.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column(
            "last", sa.BigInteger, primary_key=True, comment="Number of the last event in here."
        ),
        sa.Column("first", sa.BigInteger, nullable=False, comment="Number of the first."),
        sa.Column("events", sa.JSON, nullable=False, comment="Name and data of each, in order."),
        schema=SCHEMA,
        comment="Events of generations, a row for each batch that was written at once.",
    )


def downgrade() -> None:
    op.drop_table("generation_events", schema=SCHEMA)
    op.drop_table("generations", schema=SCHEMA)


def _text(name: str, comment: str | None, *, nullable: bool = True) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, comment=comment)
