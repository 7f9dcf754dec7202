"""Encryption at rest: the key of each vector and thumbnail, and the keys in use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add columns without a value, which rewrites no row: data of earlier versions is not encrypted."""
    for table, column in (("vectors", "vector_key"), ("other_vectors", "vector_key"), ("thumbnails", "image_key")):
        op.add_column(table, sa.Column(column, sa.String(16)))
    op.create_table(
        "encryption_keys",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("check", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_encryption_keys"),
    )
