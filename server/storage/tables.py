"""The tables of the database. ``migrations`` creates them; a test verifies that both agree."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

from server.storage.column_types import UtcDateTime

__all__ = [
    "aliases",
    "api_keys",
    "audit",
    "calibrations",
    "encryption_keys",
    "erasures",
    "galleries",
    "items",
    "job_failures",
    "jobs",
    "metadata",
    "other_vectors",
    "thumbnails",
    "vectors",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite uses only INTEGER keys as row ids; other databases need an explicit 64-bit type.
_Number = BigInteger().with_variant(Integer(), "sqlite")
# Lists and ties are ordered by code point, as in Python; SQLite does so by default.
_Id = String(128).with_variant(String(128, collation="C"), "postgresql")
_KeyId = String(16)  # of the key that encrypts a record; NULL: it is not encrypted

galleries = Table(
    "galleries",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("name", _Id, nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("description", Text),
    Column("retention_days", Integer),
    Column("items", BigInteger, nullable=False),  # number of items
    Column("sequence", BigInteger, nullable=False),  # increased with each committed change of the items
    Column("vector_type", String(16), nullable=False, server_default=text("'float32'")),
    Column("thumbnails", Boolean, nullable=False, server_default=true()),
    # Two tables hold vectors: those of a re-embedding collect in the one that the gallery does not use.
    Column("uses_other_vectors", Boolean, nullable=False, server_default=false()),
    Column(
        "renewal", JSON(none_as_null=True)
    ),  # the re-embedding; NULL: the unused table holds no vectors of this gallery
    sqlite_autoincrement=True,
)

aliases = Table(
    "aliases",
    metadata,
    Column("name", _Id, primary_key=True),  # never the name of a gallery
    Column("gallery", _Number, ForeignKey("galleries.number", ondelete="CASCADE"), nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("row", _Number, primary_key=True),  # never used twice; a replaced item gets a new one
    Column("gallery", _Number, ForeignKey("galleries.number", ondelete="CASCADE"), nullable=False),
    Column("id", _Id, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("identity", Text),
    Column("camera", Text),
    Column("captured_at", UtcDateTime),
    Column("attributes", JSON, nullable=False),
    Column("stored_at", UtcDateTime, nullable=False),
    # Sequence number of the item's last change; 0: older than this column, and so than any snapshot.
    Column("sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("warnings", Integer, nullable=False, server_default=text("0")),  # CropWarning.to_bits
    Column("content", String(64)),
    UniqueConstraint("gallery", "id"),
    Index(None, "gallery", "row"),
    Index(None, "gallery", "sequence"),
    Index(None, "gallery", "identity"),
    Index(None, "gallery", "stored_at"),
    sqlite_autoincrement=True,
)


def _vectors(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("row", _Number, ForeignKey("items.row", ondelete="CASCADE"), primary_key=True, autoincrement=False),
        Column("vector", LargeBinary, nullable=False),  # in the gallery's vector_type, little-endian
        Column("crc32", BigInteger, nullable=False),  # of ``vector`` as it is here
        Column("vector_key", _KeyId),
    )


vectors, other_vectors = _vectors("vectors"), _vectors("other_vectors")

thumbnails = Table(
    "thumbnails",
    metadata,
    Column("row", _Number, ForeignKey("items.row", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("image", LargeBinary, nullable=False),
    Column("crc32", BigInteger),  # of ``image`` as it is here, initialised with the row; NULL: older than this column
    Column("image_key", _KeyId),
)

encryption_keys = Table(
    "encryption_keys",
    metadata,
    Column("id", _KeyId, primary_key=True),  # of a key in use; empty: some data may not be encrypted
    Column("check", LargeBinary, nullable=False),  # a known text, sealed with the key
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),  # a few minutes late at most
    Column("previous_expires_at", UtcDateTime),
    Column("previous_sha256", String(64), index=True),  # of the secret before the last rotation
    Column("limits", JSON(none_as_null=True)),
    Column("gallery_numbers", JSON(none_as_null=True)),  # NULL: all; a number is never used for another gallery
)

calibrations = Table(
    "calibrations",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("gallery", _Number, ForeignKey("galleries.number", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("content", JSON, nullable=False),  # models.card.Calibration
    Index(None, "gallery", "version"),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("key_id", String(32)),
    Column("action", Text, nullable=False),
    Column("gallery", Text),
    Column("detail", JSON, nullable=False),
    Column("previous", String(64)),  # ``digest`` of the previous entry
    Column("digest", String(64)),  # NULL: older than the hash chain
    Column("case_reference", Text),
    Column("reason", Text),
    sqlite_autoincrement=True,
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("gallery", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("key_id", String(32)),
    Column("detail", JSON, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("gallery", Text),
    Column("state", String(16), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("total", BigInteger),
    Column("done", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("error", Text),
    Column("key_id", String(32)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("unclean_ends", Integer, nullable=False, server_default=text("0")),  # in a row, without progress between
    Column("run_s", Float, nullable=False, server_default=text("0")),
    Column("report", JSON(none_as_null=True)),  # counts of entries by reason; NULL: none
)

job_failures = Table(
    "job_failures",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("job", String(32), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("reason", JSON, nullable=False),
    Index(None, "job", "number"),
    sqlite_autoincrement=True,
)
