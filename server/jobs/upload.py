"""The uploaded file of a job on disk, encrypted if the server has encryption keys.

An encrypted file begins with a header: a mark, the id of the key, and the salt of the file's own key.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from server.storage.encryption import DecryptedFile, Encryption, FileCipher

__all__ = ["Upload", "start_upload"]

_HEADER = struct.Struct("<8s16s16s")
_MARK = b"vireidE1"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file and its cipher; None: it is not encrypted. The reader process gets the key of this file only."""

    path: Path
    cipher: FileCipher | None = None

    @classmethod
    def at(cls, path: Path, encryption: Encryption) -> Upload:
        """Return the upload in an existing file.

        Raises:
            NotDecrypted: its key is missing.
        """
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        if encryption.key is None or len(header) < _HEADER.size or not header.startswith(_MARK):
            return cls(path)
        _, key, salt = _HEADER.unpack(header)
        return cls(path, encryption.file_cipher(salt, key.rstrip(b"\0").decode("ascii", "replace")))

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return self.path.stat().st_size - (_HEADER.size if self.cipher else 0)

    def open(self) -> IO[bytes]:
        """Open the content for reading at any place."""
        if self.cipher is None:
            return self.path.open("rb")
        return cast("IO[bytes]", io.BufferedReader(DecryptedFile(self.path, self.cipher, _HEADER.size), 2**17))


def start_upload(file: IO[bytes], encryption: Encryption) -> Callable[[bytes], object]:
    """Begin a new file; return the function that appends to its content."""
    salt = encryption.new_salt()
    cipher = encryption.file_cipher(salt)
    if cipher is None or encryption.key is None:
        return file.write
    file.write(_HEADER.pack(_MARK, encryption.key.encode(), salt))

    def write(data: bytes) -> None:
        block = bytearray(data)
        cipher.apply_into(memoryview(block), file.tell() - _HEADER.size)
        file.write(block)

    return write
