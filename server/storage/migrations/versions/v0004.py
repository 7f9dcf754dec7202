"""Attempts, running time and counts by reason of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns with defaults, which rewrites no row."""
    for name in ("attempts", "unclean_ends"):
        op.add_column("jobs", sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("jobs", sa.Column("run_s", sa.Float(), nullable=False, server_default=sa.text("0")))
    op.add_column("jobs", sa.Column("report", sa.JSON()))
