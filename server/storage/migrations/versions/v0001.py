"""Galleries, items, vectors, thumbnails, API keys and the audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "galleries",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("name", _ID, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("retention_days", sa.Integer()),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_galleries"),
        sa.UniqueConstraint("name", name="uq_galleries_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "items",
        sa.Column("row", _NUMBER, nullable=False),
        sa.Column("gallery", _NUMBER, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("identity", sa.Text()),
        sa.Column("camera", sa.Text()),
        sa.Column("captured_at", sa.BigInteger()),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_items"),
        sa.ForeignKeyConstraint(
            ["gallery"], ["galleries.number"], name="fk_items_gallery_galleries", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("gallery", "id", name="uq_items_gallery_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_items_gallery_row", "items", ["gallery", "row"])
    op.create_index("ix_items_gallery_identity", "items", ["gallery", "identity"])
    op.create_index("ix_items_gallery_stored_at", "items", ["gallery", "stored_at"])
    op.create_table(
        "vectors",
        sa.Column("row", _NUMBER, nullable=False, autoincrement=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.Column("crc32", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_vectors"),
        sa.ForeignKeyConstraint(["row"], ["items.row"], name="fk_vectors_row_items", ondelete="CASCADE"),
    )
    op.create_table(
        "thumbnails",
        sa.Column("row", _NUMBER, nullable=False, autoincrement=False),
        sa.Column("image", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_thumbnails"),
        sa.ForeignKeyConstraint(["row"], ["items.row"], name="fk_thumbnails_row_items", ondelete="CASCADE"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("galleries", sa.JSON()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("secret_sha256", name="uq_api_keys_secret_sha256"),
    )
    op.create_table(
        "audit",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.String(32)),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("gallery", sa.Text()),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit"),
        sqlite_autoincrement=True,
    )
