"""Downloads: how many bytes are expected of a file or relay."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "tailrace"


def upgrade() -> None:
    total = sa.Column(
        "total_bytes",
        sa.BigInteger,
        comment="Bytes expected of a file or relay; NULL if unknown.",
    )
    op.add_column("exports", total, schema=SCHEMA)


def downgrade() -> None:
    op.drop_column("exports", "total_bytes", schema=SCHEMA)
