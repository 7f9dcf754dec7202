"""Life cycle of API keys, which are bound to galleries by number, and the hash chain of the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns without defaults, which rewrites no row. A key keeps those of its galleries that exist."""
    for name in ("expires_at", "last_used_at", "previous_expires_at"):
        op.add_column("api_keys", sa.Column(name, sa.BigInteger()))
    op.add_column("api_keys", sa.Column("previous_sha256", sa.String(64)))
    op.add_column("api_keys", sa.Column("limits", sa.JSON()))
    op.add_column("api_keys", sa.Column("gallery_numbers", sa.JSON()))
    op.create_index("ix_api_keys_previous_sha256", "api_keys", ["previous_sha256"])
    _bind_keys_to_numbers(op.get_bind())
    op.drop_column("api_keys", "galleries")
    for name in ("previous", "digest"):
        op.add_column("audit", sa.Column(name, sa.String(64)))
    for name in ("case_reference", "reason"):
        op.add_column("audit", sa.Column(name, sa.Text()))


def _bind_keys_to_numbers(connection: sa.Connection) -> None:
    keys = sa.table(
        "api_keys",
        sa.column("id", sa.String),
        sa.column("galleries", sa.JSON(none_as_null=True)),
        sa.column("gallery_numbers", sa.JSON(none_as_null=True)),
    )
    galleries = sa.table("galleries", sa.column("number", sa.BigInteger), sa.column("name", sa.String))
    numbers = {row.name: row.number for row in connection.execute(sa.select(galleries))}
    for row in connection.execute(sa.select(keys).where(keys.c.galleries.is_not(None))).all():
        found = sorted(numbers[name] for name in row.galleries if name in numbers)
        connection.execute(sa.update(keys).where(keys.c.id == row.id).values(gallery_numbers=found))
