"""Snapshots of galleries on disk, which save a start from reading the whole store: derived, verified, dispensable."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from models.cores import usable_cores
from server.domain.timestamps import to_microseconds
from server.domain.types import Gallery, StoredVectors
from server.gallery.columns import DTYPES, GalleryView, empty, pack
from server.gallery.live_gallery import LiveGallery
from server.index.protocol import Mask, Rows, VectorIndex
from server.storage.encryption import Encryption, NotDecrypted
from server.storage.files import fsync_directory, write_atomically, write_durably

__all__ = ["Snapshot", "SnapshotDirectory"]

_log = logging.getLogger(__name__)

_FORMAT = 2
_MANIFEST = "manifest.json"
_BLANK = "blank"
"""Name in the metadata of the mask of rows whose vectors are zeros in their file; not every dead row is blank."""
_ROWS = 65536
"""Rows of a vector file; the last file has fewer."""
_CHUNK = 4096
_ZEROS = bytes(1 << 22)


class _Unusable(Exception):
    """The reason why a snapshot cannot be used."""


@dataclass(slots=True)
class _VectorFile:
    """A vector file. ``sha256`` is None if rows were blanked since it was computed; ``salt`` makes its key."""

    path: Path
    rows: int
    sha256: str | None
    salt: bytes


class Snapshot:
    """The snapshot of one gallery: a folder with vector files, a metadata file, and a manifest.

    Each vector file has ``_ROWS`` rows, raw as the index holds them. Rows never change, so a new snapshot writes only
    rows added since. The manifest names the gallery, the files and their SHA-256; it is written last and atomically,
    so a snapshot is complete or absent.

    With ``encryption`` all three are encrypted; under another key the snapshot is removed. Blank rows are zeros in any
    case.

    Deleted data must not stay on disk: ``erase`` removes the manifest, overwrites the metadata, and blanks the rows in
    the vector files. The next ``write`` needs only new metadata and new checksums.

    Threads: any method may be called from any thread.
    """

    def __init__(self, folder: Path, gallery: Gallery, encryption: Encryption | None = None) -> None:
        self._folder, self._gallery = folder, gallery
        self._encryption = encryption or Encryption()
        self._lock = Lock()
        self.sequence: int | None = None
        """Sequence number of the gallery in the snapshot; None without a snapshot."""
        self._index: VectorIndex | None = None  # the index whose rows the files hold
        self._vector_files: list[_VectorFile] = []
        self._blank: Mask = np.empty(0, np.bool_)
        self._metadata: Path | None = None
        self._outdated: set[Path] = set()  # files that the current manifest names and the next one will not
        self._clean = False  # whether the folder holds only known files

    def read(self, build: Callable[[], VectorIndex], advance: Callable[[int], None]) -> LiveGallery | None:
        """Return the gallery as it was, or None with a log line if it is unusable. ``advance`` gets row counts."""
        if not self._folder.exists():
            return None
        with self._lock:
            try:
                return self._read(build(), advance)
            except (_Unusable, NotDecrypted, OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("gallery %s: its snapshot is not used: %s", self._gallery.name, error)
                if self._encryption.key is not None:  # it may not be encrypted, or with a key that is to be removed
                    self._forget_files()
                    self._sweep()
                return None

    def write(self, now: Callable[[], GalleryView]) -> None:
        """Bring the snapshot up to date with the view that ``now`` returns. Others may write and erase meanwhile.

        Raises:
            OSError: it could not be written; the previous snapshot is still there, or none.
        """
        view = now()
        with self._lock:
            if self.sequence == view.sequence and self._index is view.index:
                return
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._index is not view.index:
                self._forget_files()
                self._index = view.index
            self._sweep()
        for number in range(_count_files(view)):  # most of the work, in pieces between which items can be erased
            with self._lock:
                self._write_vectors(now(), number)
        with self._lock:
            view = now()
            for number in range(_count_files(view)):
                self._write_vectors(view, number)
            if view.index is self._index:
                self._finish(view)

    def missing_share(self, view: GalleryView) -> float:
        """Return about which share of the gallery's changes the snapshot lacks: 1 without a snapshot."""
        if self.sequence is None or self._index is not view.index:
            return 1.0
        appended, changes = len(view.alive) - len(self._blank), view.sequence - self.sequence
        return max(appended, changes) / max(1, len(view.alive))

    def erase(self, view: GalleryView | None) -> None:
        """Remove from disk everything that is dead in ``view``; without a view, everything."""
        with self._lock:
            if view is None or view.index is not self._index:
                self._forget_files()
            self._sweep()
            if view is None or not self._vector_files:
                return
            held = min(len(view.alive), len(self._blank))
            rows = np.flatnonzero(~view.alive[:held] & ~self._blank[:held])
            if len(rows) or self._outdated:
                self._invalidate()
                self._blank_rows(rows)

    def count_remaining(self, view: GalleryView) -> int:
        """Count the rows that are dead in ``view`` and still on disk, by reading them."""
        size = self._gallery.dimension * self._gallery.vector_type.dtype.itemsize
        found = 0
        with self._lock:
            for number, part in enumerate(self._vector_files):
                dead = np.flatnonzero(~view.alive[number * _ROWS :][: part.rows])
                with part.path.open("rb", buffering=0) as file:
                    found += sum(any(os.pread(file.fileno(), size, row * size)) for row in dead.tolist())
        return found

    def destroy(self) -> None:
        """Remove everything from disk."""
        self.erase(None)
        if self._folder.exists():
            self._folder.rmdir()

    def _read(self, index: VectorIndex, advance: Callable[[int], None]) -> LiveGallery:
        manifest = self._read_manifest()
        for name, value in self._identity().items():
            if manifest[name] != value:
                raise _Unusable(f"its {name} is {manifest[name]}, that of the gallery {value}")
        parts = [
            _VectorFile(self._folder / name, rows, sha256, bytes.fromhex(salt))
            for name, rows, sha256, salt in manifest["vectors"]
        ]
        name, sha256 = manifest["facts"]
        with ThreadPoolExecutor(usable_cores()) as pool:  # reading and hashing release the interpreter lock
            vectors = [pool.submit(self._read_vectors, part) for part in parts]
            metadata = self._open(_verified(self._folder / name, sha256), "metadata")
            with np.load(io.BytesIO(metadata), allow_pickle=False) as file:
                arrays = dict(file)
            blank = arrays.pop(_BLANK)
            rows = sum(part.rows for part in parts)
            whole = arrays.keys() == empty().keys() and all(len(arrays[name]) == rows for name in DTYPES)
            if not whole or int(arrays["alive"].sum()) != manifest["count"]:
                raise _Unusable("its metadata and its vectors do not belong together")
            live = LiveGallery(index, arrays, manifest["sequence"])
            first = 0
            for part, found in zip(parts, vectors, strict=True):
                found.result()[blank[first : first + part.rows]] = 0  # they are not encrypted
                first += part.rows
                index.add(found.result())
                advance(part.rows)
        self._index, self._vector_files, self._blank = index, parts, blank
        self._metadata, self.sequence = self._folder / name, manifest["sequence"]
        return live

    def _read_vectors(self, part: _VectorFile) -> StoredVectors:
        vectors = np.empty((part.rows, self._gallery.dimension), self._gallery.vector_type.dtype)
        if part.path.stat().st_size != vectors.nbytes:
            raise _Unusable(f"{part.path.name} has {part.path.stat().st_size} bytes, expected {vectors.nbytes}")
        with part.path.open("rb", buffering=0) as file:
            left = vectors.data.cast("B")
            while len(left):
                left = left[file.readinto(left) :]
        if hashlib.sha256(vectors.data).hexdigest() != part.sha256:
            raise _Unusable(f"{part.path.name} is not what was written")
        cipher = self._encryption.file_cipher(part.salt)
        if cipher is not None:
            cipher.apply_into(vectors.data.cast("B"))
        return vectors

    def _write_vectors(self, view: GalleryView, number: int) -> None:
        """Write the vector file of that number, or update its checksum, as needed."""
        if view.index is not self._index:  # compacted or invalidated meanwhile
            return
        first, last = number * _ROWS, min((number + 1) * _ROWS, len(view.alive))
        old = self._vector_files[number] if number < len(self._vector_files) else None
        if old is None or old.rows < last - first:
            blank = ~view.alive[first:last]
            path, salt = self._folder / f"vectors-{number:05d}-{last - first}", self._encryption.new_salt()
            sha256 = write_durably(path, self._blocks(view.index, first, blank, salt))
            self._vector_files[number:] = [_VectorFile(path, last - first, sha256, salt)]
            self._blank = np.concatenate([self._blank[:first], blank])
            self._outdated |= set() if old is None else {old.path}
        elif old.sha256 is None:
            checksum = hashlib.sha256()
            for block in self._blocks(view.index, first, self._blank[first:last], old.salt):
                checksum.update(block)
            old.sha256 = checksum.hexdigest()

    def _blocks(self, index: VectorIndex, first: int, blank: Mask, salt: bytes) -> Iterator[memoryview]:
        """Yield the bytes of rows from ``first`` on, encrypted, but ``blank`` ones as zeros."""
        cipher = self._encryption.file_cipher(salt)
        for start in range(0, len(blank), _CHUNK):
            part = blank[start : start + _CHUNK]
            vectors = index.vectors(np.arange(first + start, first + start + len(part)))
            stored = vectors.astype(self._gallery.vector_type.dtype)
            if cipher is not None:
                cipher.apply_into(stored.data.cast("B"), start * stored.strides[0])
            stored[part] = 0
            yield stored.data.cast("B")

    def _finish(self, view: GalleryView) -> None:
        metadata = io.BytesIO()
        np.savez(metadata, allow_pickle=False, **pack(view, np.arange(len(view.alive))), **{_BLANK: self._blank})
        path = self._folder / f"facts-{view.sequence}"
        manifest = self._identity() | {
            "sequence": view.sequence,
            "count": int(view.alive.sum()),
            "vectors": [(part.path.name, part.rows, part.sha256, part.salt.hex()) for part in self._vector_files],
            "facts": (path.name, write_durably(path, [self._seal(metadata.getvalue(), "metadata")])),
        }
        write_atomically(self._folder / _MANIFEST, self._seal(_sealed(json.dumps(manifest)).encode(), _MANIFEST))
        self._metadata, self.sequence = path, view.sequence
        self._outdated, self._clean = set(), False
        self._sweep()

    def _read_manifest(self) -> dict[str, Any]:
        path = self._folder / _MANIFEST
        if not path.exists():
            raise _Unusable("it is unfinished, or items were erased since")
        text, checksum = self._open(path.read_bytes(), _MANIFEST).decode().splitlines()
        if hashlib.sha256(text.encode()).hexdigest() != checksum:
            raise _Unusable("its manifest is not what was written")
        manifest: dict[str, Any] = json.loads(text)
        return manifest

    def _seal(self, content: bytes, name: str) -> bytes:
        return self._encryption.seal(content, f"{self._folder.name}/{name}")

    def _open(self, content: bytes, name: str) -> bytes:
        return self._encryption.open(self._encryption.key, content, f"{self._folder.name}/{name}")

    def _identity(self) -> dict[str, Any]:
        gallery = self._gallery
        return {
            "format": _FORMAT,
            "gallery": gallery.name,
            "created_at": to_microseconds(gallery.created_at),
            "fingerprint": gallery.fingerprint,
            "dimension": gallery.dimension,
            "vector_type": gallery.vector_type.value,
        }

    def _forget_files(self) -> None:
        """Forget all files, so that ``_sweep`` removes them."""
        self._index, self._vector_files, self._blank = None, [], np.empty(0, np.bool_)
        self._metadata, self.sequence = None, None
        self._outdated, self._clean = set(), False

    def _invalidate(self) -> None:
        self._metadata, self.sequence = None, None
        self._outdated, self._clean = set(), False
        self._sweep()

    def _sweep(self) -> None:
        """Overwrite and remove every unknown file; the manifest first, because it names them."""
        if self._clean or not self._folder.exists():
            return
        if self.sequence is None:
            (self._folder / _MANIFEST).unlink(missing_ok=True)
            fsync_directory(self._folder)
        known = {part.path for part in self._vector_files} | self._outdated | {self._metadata, self._folder / _MANIFEST}
        for path in set(self._folder.iterdir()) - known:
            _wipe(path)
        self._clean = True

    def _blank_rows(self, rows: Rows) -> None:
        size = self._gallery.dimension * self._gallery.vector_type.dtype.itemsize
        for number in np.unique(rows // _ROWS).tolist():
            part = self._vector_files[number]
            part.sha256 = None
            with part.path.open("r+b", buffering=0) as file:
                for row in (rows[rows // _ROWS == number] % _ROWS).tolist():
                    os.pwrite(file.fileno(), bytes(size), row * size)
                os.fsync(file.fileno())
        self._blank[rows] = True


class SnapshotDirectory:
    """The snapshots of all galleries with at least ``least`` rows, one folder each in ``directory``.

    ``database`` tells the store from others that may give the same sequence number to other content.
    """

    def __init__(
        self, directory: Path, least: int = 10_000, encryption: Encryption | None = None, database: str = ""
    ) -> None:
        self._directory, self._encryption, self._database = directory, encryption, database
        self.least = least

    def of(self, gallery: Gallery) -> Snapshot:
        """Return the snapshot of one gallery, which need not exist yet."""
        return Snapshot(self._directory / self._folder_name(gallery), gallery, self._encryption)

    def sweep(self, galleries: Collection[Gallery]) -> None:
        """Overwrite and remove everything that belongs to none of these galleries."""
        if not self._directory.exists():
            return
        known = {self._folder_name(gallery) for gallery in galleries}
        for found in self._directory.iterdir():
            if not found.is_dir():
                _wipe(found)
            elif found.name not in known:
                for path in found.iterdir():
                    _wipe(path)
                found.rmdir()

    def _folder_name(self, gallery: Gallery) -> str:
        """Return a name that is safe as a path, and new when the gallery is created again or bound to another model."""
        key = f"{gallery.name} {to_microseconds(gallery.created_at)} {gallery.fingerprint}{self._database}"
        return hashlib.sha256(key.encode()).hexdigest()[:32]


def _count_files(view: GalleryView) -> int:
    return -(-len(view.alive) // _ROWS)


def _sealed(text: str) -> str:
    """Return a manifest of one line followed by its checksum."""
    return f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n"


def _verified(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _Unusable(f"{path.name} is not what was written")
    return content


def _wipe(path: Path) -> None:
    """Overwrite and remove a file: only unlinking it would leave its bytes on the disk."""
    left = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        while left > 0:
            left -= file.write(_ZEROS[: min(left, len(_ZEROS))])
        os.fsync(file.fileno())
    path.unlink()
