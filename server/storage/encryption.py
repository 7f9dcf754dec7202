"""Encryption at rest: vectors, thumbnails, snapshots and uploads, by keys that the operator holds.

Records (a vector, a thumbnail) are sealed with AES-256-GCM under a random nonce, bound to their table and row. Files
that are read at any place (vectors of a snapshot, an upload) are encrypted with AES-256-CTR by a key of their own.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, Table

from server.domain.errors import StartupError

__all__ = [
    "ENCRYPTION",
    "DecryptedFile",
    "Encryption",
    "FileCipher",
    "KeysRejected",
    "NotDecrypted",
    "encryption_of",
    "place_of",
    "read_keys",
]

ENCRYPTION = "vireid_encryption"
"""Execution option of an engine: its ``Encryption``."""

_KEY_BYTES = 32
_NONCE_BYTES, _SALT_BYTES, _BLOCK = 12, 16, 16
_LINE = re.compile(r"(?P<id>[A-Za-z0-9_-]{1,16}):(?P<key>[A-Za-z0-9+/=]+)")


class KeysRejected(StartupError):
    """The encryption keys cannot be used with this data, or at all. Nothing was changed."""


class NotDecrypted(Exception):
    """A record is not what was stored there under this key."""


def read_keys(text: str) -> dict[str, bytes]:
    """Return the keys by id from lines ``ID:KEY``, where KEY is 32 bytes in base64; the first is for new data.

    Raises:
        KeysRejected: a line is malformed, an id is repeated, or there is no line. The message names no key.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.split(), 1):
        match = _LINE.fullmatch(line)
        key = _decoded(match["key"]) if match else b""
        if match is None or len(key) != _KEY_BYTES:
            raise KeysRejected(
                f"encryption key {number} is malformed: expected ID:KEY, with an ID of at most 16 letters, digits, - "
                f"or _ and a KEY of {_KEY_BYTES} bytes in base64, as `openssl rand -base64 {_KEY_BYTES}` prints"
            )
        if match["id"] in keys:
            raise KeysRejected(f"the id {match['id']} of encryption key {number} is used twice")
        keys[match["id"]] = key
    if not keys:
        raise KeysRejected("there is no encryption key; expected lines ID:KEY")
    return keys


class Encryption:
    """Seals with the first of ``keys`` and opens with any; without keys, data stays as it is. Thread-safe."""

    def __init__(self, keys: Mapping[str, bytes] | None = None) -> None:
        self._keys = dict(keys or {})
        self._records = {id: AESGCM(_derived(key, b"", b"record")) for id, key in self._keys.items()}
        self.key: str | None = next(iter(self._keys), None)
        """Id of the key for new data; None: data is not encrypted."""

    @property
    def keys(self) -> frozenset[str]:
        """The ids of all keys."""
        return frozenset(self._keys)

    def seal(self, data: bytes, place: str) -> bytes:
        """Encrypt a record, bound to its ``place``."""
        if self.key is None:
            return data
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._records[self.key].encrypt(nonce, data, place.encode())

    def open(self, key: str | None, sealed: bytes, place: str) -> bytes:
        """Decrypt a record that was sealed with the key of that id; None: it was not encrypted.

        Raises:
            NotDecrypted: the key is unknown, or the record was sealed by another one, for another place, or changed.
        """
        if key is None:
            return sealed
        try:
            return self._records[key].decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except (KeyError, ValueError, InvalidTag):
            raise NotDecrypted(place) from None

    def new_salt(self) -> bytes:
        """Return what makes the key of a new file; empty without keys."""
        return b"" if self.key is None else os.urandom(_SALT_BYTES)

    def file_cipher(self, salt: bytes, key: str | None = None) -> FileCipher | None:
        """Return the cipher of a file that was encrypted under a key, this one's unless given; None: it was not.

        Raises:
            NotDecrypted: the key is unknown.
        """
        if not salt:
            return None
        if (key := key or self.key) not in self._keys:
            raise NotDecrypted("file")
        return FileCipher(_derived(self._keys[key], salt, b"file"))


class FileCipher:
    """AES-256-CTR of one file, at any offset. The key must not be used for another content of the file."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def apply_into(self, data: memoryview, offset: int = 0) -> None:
        """Encrypt or decrypt bytes in place that begin at ``offset`` of the file."""
        skipped = offset % _BLOCK
        counter = (offset // _BLOCK).to_bytes(_BLOCK, "big")
        stream = Cipher(algorithms.AES(self._key), modes.CTR(counter)).encryptor()
        stream.update(bytes(skipped))
        stream.update_into(data, data)


class DecryptedFile(io.RawIOBase):
    """The content of an encrypted file behind its first ``start`` bytes, for reading at any place."""

    def __init__(self, path: Path, cipher: FileCipher, start: int) -> None:
        self._file, self._cipher, self._start = path.open("rb", buffering=0), cipher, start
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            offset += self._start
        return max(0, self._file.seek(offset, whence) - self._start)

    def tell(self) -> int:
        return self._file.tell() - self._start

    def readinto(self, buffer: Any) -> int:
        place = self.tell()
        count = self._file.readinto(buffer)
        self._cipher.apply_into(memoryview(buffer)[:count], place)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def encryption_of(connection: Connection) -> Encryption:
    """Return the encryption of a database."""
    found: Encryption = connection.get_execution_options()[ENCRYPTION]
    return found


def place_of(table: Table, row: int) -> str:
    """Return the place to which a record of a table is bound."""
    return f"{table.name}:{row}"


def _derived(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt, b"vireid " + purpose).derive(key)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
