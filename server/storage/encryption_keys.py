"""Which encryption keys a database uses: verified at the start, and replaced in the background."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from contextlib import suppress
from threading import Event
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, bindparam, delete, insert, or_, select, update

from server.storage import tables
from server.storage.encryption import Encryption, KeysRejected, NotDecrypted, encryption_of, place_of
from server.storage.transactions import reading, writing

__all__ = ["accept_keys", "reencrypt"]

_PLAIN = ""
"""Stands in the table of keys for data that may not be encrypted."""
_CHECK, _PLACE = b"vireid", "encryption_keys"
_BATCH = 500
"""Records that are encrypted in one transaction: others write between two."""

_keys = tables.encryption_keys.c
_DATA = (
    (tables.vectors, "vector", "vector_key"),
    (tables.other_vectors, "vector", "vector_key"),
    (tables.thumbnails, "image", "image_key"),
)

log = logging.getLogger(__name__)


def accept_keys(engine: Engine, encryption: Encryption) -> None:
    """Verify that every key that the database uses is there, and note a new one.

    Raises:
        KeysRejected: a key is missing or is another one under the same id; nothing was changed.
    """
    with reading(engine) as connection:
        used = {row.id: row.check for row in connection.execute(select(tables.encryption_keys))}
        for id in sorted(used.keys() - {_PLAIN}):
            _check(encryption, id, used[id])
        plain = not used and any(connection.execute(select(table.c.row).limit(1)).first() for table, *_ in _DATA)
    if encryption.key is not None and encryption.key not in used:
        added = [{"id": encryption.key, "check": encryption.seal(_CHECK, _PLACE)}]
        with writing(engine) as connection:
            connection.execute(
                insert(tables.encryption_keys), [*added, *([{"id": _PLAIN, "check": b""}] if plain else [])]
            )


def reencrypt(engine: Engine, stopping: Event) -> None:
    """Encrypt all data with the key for new data, in batches, and forget the other keys.

    An interruption loses nothing: the next start continues.
    """
    with reading(engine) as connection:
        key = encryption_of(connection).key
        used = set(connection.scalars(select(_keys.id)))
    if key is None or not used - {key}:
        return
    log.info("data is encrypted with the key %s", key)
    for table, data, key_column in _DATA:
        last = 0
        while rows := _next_batch(engine, table, key_column, key, last):
            with writing(engine, erases=True) as connection:
                _replace(connection, table, data, key_column, [row.row for row in rows])
            last = rows[-1].row
            if stopping.is_set():
                return
    with writing(engine) as connection:
        connection.execute(delete(tables.encryption_keys).where(_keys.id != key))
    log.info("all data is encrypted with the key %s; other keys can be removed", key)


def _check(encryption: Encryption, id: str, check: bytes) -> None:
    if id not in encryption.keys:
        raise KeysRejected(
            f"the data is encrypted with the key {id}, which is missing. Nothing was changed. "
            "Add the key to those of VIREID_ENCRYPTION_KEY_FILE or VIREID_ENCRYPTION_KEYS"
        )
    try:
        encryption.open(id, check, _PLACE)
    except NotDecrypted:
        raise KeysRejected(
            f"the encryption key {id} is not the key of that id with which the data was encrypted. Nothing was changed"
        ) from None


def _next_batch(engine: Engine, table: Table, key_column: str, key: str, last: int) -> Sequence[Row[Any]]:
    column = table.c[key_column]
    query = select(table.c.row).where(table.c.row > last, or_(column.is_(None), column != key))
    with reading(engine) as connection:
        return connection.execute(query.order_by(table.c.row).limit(_BATCH)).all()


def _replace(connection: Connection, table: Table, data: str, key_column: str, rows: Sequence[int]) -> None:
    encryption = encryption_of(connection)
    records = []
    for record in connection.execute(select(table).where(table.c.row.in_(rows))).mappings():
        row, place = record["row"], place_of(table, record["row"])
        start = row if table is tables.thumbnails else 0
        with suppress(NotDecrypted):  # damaged: the next read of it says so
            if record["crc32"] in (None, zlib.crc32(record[data], start)):
                sealed = encryption.seal(encryption.open(record[key_column], record[data], place), place)
                records.append({"at": row, "data": sealed, "key": encryption.key, "sum": zlib.crc32(sealed, start)})
    if records:
        change = update(table).where(table.c.row == bindparam("at"))
        names = {data: "data", key_column: "key", "crc32": "sum"}
        connection.execute(change.values({column: bindparam(name) for column, name in names.items()}), records)
