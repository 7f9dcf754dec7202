"""Calibrations measured on the items of a gallery."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0005"
down_revision = "0004"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table; galleries of earlier versions have no calibrations."""
    op.create_table(
        "calibrations",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("gallery", _NUMBER, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_calibrations"),
        sa.ForeignKeyConstraint(
            ["gallery"], ["galleries.number"], name="fk_calibrations_gallery_galleries", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_calibrations_gallery_version", "calibrations", ["gallery", "version"])
