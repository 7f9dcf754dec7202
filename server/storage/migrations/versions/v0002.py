"""Vector types, aliases, what an item was made from, changes since a sequence number, erasures and jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def upgrade() -> None:
    """Add columns with defaults, which rewrites no row, and make the new tables."""
    op.add_column(
        "galleries", sa.Column("vector_type", sa.String(16), nullable=False, server_default=sa.text("'float32'"))
    )
    op.add_column("galleries", sa.Column("thumbnails", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("galleries", sa.Column("uses_other_vectors", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("galleries", sa.Column("renewal", sa.JSON()))
    op.create_table(
        "other_vectors",
        sa.Column("row", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_other_vectors"),
        sa.ForeignKeyConstraint(["row"], ["items.row"], name="fk_other_vectors_row_items", ondelete="CASCADE"),
    )
    op.add_column("items", sa.Column("sequence", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("items", sa.Column("warnings", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("items", sa.Column("content", sa.String(64)))
    op.add_column("thumbnails", sa.Column("crc32", sa.BigInteger()))
    op.create_index("ix_items_gallery_sequence", "items", ["gallery", "sequence"])
    op.create_table(
        "aliases",
        sa.Column("name", _ID, nullable=False),
        sa.Column("gallery", _NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_aliases"),
        sa.ForeignKeyConstraint(
            ["gallery"], ["galleries.number"], name="fk_aliases_gallery_galleries", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("gallery", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.String(32)),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("gallery", sa.Text()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("total", sa.BigInteger()),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("key_id", sa.String(32)),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_table(
        "job_failures",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_job_failures"),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name="fk_job_failures_job_jobs", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_failures_job_number", "job_failures", ["job", "number"])
