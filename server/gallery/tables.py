"""Every table of the database. How it came to be is in ``migrations``; a test holds the two equal."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["api_keys", "audit", "galleries", "items", "metadata", "thumbnails", "vectors"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes only INTEGER keys its row id; elsewhere 64 bits must be asked for.
_Number = BigInteger().with_variant(Integer(), "sqlite")
# Lists and ties go by code point, as Python compares; SQLite does so by itself.
_Id = String(128).with_variant(String(128, collation="C"), "postgresql")

galleries = Table(
    "galleries",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("name", _Id, nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),  # microseconds since the epoch, as everywhere below
    Column("description", Text),
    Column("retention_days", Integer),
    Column("items", BigInteger, nullable=False),  # how many there are
    Column("sequence", BigInteger, nullable=False),  # one more with each committed change of the items
    sqlite_autoincrement=True,
)

items = Table(
    "items",
    metadata,
    Column("row", _Number, primary_key=True),  # never given twice; a replaced item gets a new one
    Column("gallery", _Number, ForeignKey("galleries.number", ondelete="CASCADE"), nullable=False),
    Column("id", _Id, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("identity", Text),
    Column("camera", Text),
    Column("captured_at", BigInteger),
    Column("attributes", JSON, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    UniqueConstraint("gallery", "id"),
    Index(None, "gallery", "row"),
    Index(None, "gallery", "identity"),
    Index(None, "gallery", "stored_at"),
    sqlite_autoincrement=True,
)

vectors = Table(
    "vectors",
    metadata,
    Column("row", _Number, ForeignKey("items.row", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
    Column("crc32", BigInteger, nullable=False),  # of ``vector``
)

thumbnails = Table(
    "thumbnails",
    metadata,
    Column("row", _Number, ForeignKey("items.row", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("image", LargeBinary, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("galleries", JSON(none_as_null=True)),  # NULL: all
    Column("created_at", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("key_id", String(32)),
    Column("action", Text, nullable=False),
    Column("gallery", Text),
    Column("detail", JSON, nullable=False),
    sqlite_autoincrement=True,
)
