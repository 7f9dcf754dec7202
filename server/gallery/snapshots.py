"""Snapshots of galleries in memory, so that a start need not read the whole store: derived, verified, dispensable."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from server.gallery.columns import DTYPES, View, empty, pack
from server.gallery.index import Mask, Rows, VectorIndex
from server.gallery.live import LiveGallery
from server.gallery.moments import to_micros
from server.gallery.types import Gallery, StoredVectors

__all__ = ["Snapshot", "Snapshots"]

_log = logging.getLogger(__name__)

_FORMAT = 1
_MANIFEST = "manifest.json"
_BLANK = "blank"
"""Name among the facts of the mask of rows whose vectors are zeros in their file: not every dead one is."""
_ROWS = 65536
"""Rows of a file of vectors; the last one has fewer."""
_CHUNK = 4096
_ZEROS = bytes(1 << 22)


class _Unusable(Exception):
    """Why a snapshot is not used."""


@dataclass(slots=True)
class _Part:
    """A file of vectors. ``sha256`` is None where rows were blanked since it was last known."""

    path: Path
    rows: int
    sha256: str | None


class Snapshot:
    """The snapshot of one gallery: a folder with the vectors, the facts, and a manifest that makes them one.

    The vectors lie in files of ``_ROWS`` rows each, raw as the index holds them. Rows never change, so a new snapshot
    writes only what has come since. A manifest says which files belong to it, of what gallery, and their SHA-256; it is
    put in its place last and by one rename, so there is a whole snapshot or none.

    What was deleted must not stay on the disk: ``erase`` takes the manifest away, overwrites the facts, and blanks the
    rows in the files of vectors. The next ``write`` needs only new facts and new checksums.

    Threads: any method may be called from any thread.
    """

    def __init__(self, folder: Path, gallery: Gallery) -> None:
        self._folder, self._gallery = folder, gallery
        self._lock = Lock()
        self.sequence: int | None = None
        """That of the gallery in the snapshot; None while there is none."""
        self._index: VectorIndex | None = None  # whose rows the files hold
        self._parts: list[_Part] = []
        self._blank: Mask = np.empty(0, np.bool_)
        self._facts: Path | None = None
        self._outdated: set[Path] = set()  # files that the manifest in place names and the next one will not
        self._clean = False  # whether nothing but known files is in the folder

    def read(self, build: Callable[[], VectorIndex], advance: Callable[[int], None]) -> LiveGallery | None:
        """The gallery as it was, or None (and a line in the log) where anything is wrong. ``advance`` is told rows."""
        if not self._folder.exists():
            return None
        with self._lock:
            try:
                return self._read(build(), advance)
            except (_Unusable, OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("gallery %s: its snapshot is not used: %s", self._gallery.name, error)
                return None

    def write(self, now: Callable[[], View]) -> None:
        """Bring the snapshot up to the gallery, which ``now`` gives. Others may write and erase meanwhile.

        Raises:
            OSError: it could not be written; the one before is still there, or there is none.
        """
        view = now()
        with self._lock:
            if self.sequence == view.sequence and self._index is view.index:
                return
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._index is not view.index:
                self._forget()
                self._index = view.index
            self._sweep()
        for number in range(_parts(view)):  # most of the work, in pieces between which items can be erased
            with self._lock:
                self._write_part(now(), number)
        with self._lock:
            view = now()
            for number in range(_parts(view)):
                self._write_part(view, number)
            if view.index is self._index:
                self._finish(view)

    def behind(self, view: View) -> float:
        """Share of a gallery's changes that the snapshot lacks, about: all of them where there is none."""
        if self.sequence is None or self._index is not view.index:
            return 1.0
        appended, changes = len(view.alive) - len(self._blank), view.sequence - self.sequence
        return max(appended, changes) / max(1, len(view.alive))

    def erase(self, view: View | None) -> None:
        """Leave nothing on the disk of what is dead in ``view``; of anything, without one."""
        with self._lock:
            if view is None or view.index is not self._index:
                self._forget()
            self._sweep()
            if view is None or not self._parts:
                return
            held = min(len(view.alive), len(self._blank))
            rows = np.flatnonzero(~view.alive[:held] & ~self._blank[:held])
            if len(rows) or self._outdated:
                self._invalidate()
                self._blank_rows(rows)

    def left(self, view: View) -> int:
        """How many rows that are dead in ``view`` the disk still holds, read from it."""
        size = self._gallery.dimension * self._gallery.vector_type.dtype.itemsize
        found = 0
        with self._lock:
            for number, part in enumerate(self._parts):
                dead = np.flatnonzero(~view.alive[number * _ROWS :][: part.rows])
                with part.path.open("rb", buffering=0) as file:
                    found += sum(any(os.pread(file.fileno(), size, row * size)) for row in dead.tolist())
        return found

    def destroy(self) -> None:
        """Leave nothing on the disk."""
        self.erase(None)
        if self._folder.exists():
            self._folder.rmdir()

    def _read(self, index: VectorIndex, advance: Callable[[int], None]) -> LiveGallery:
        manifest = _read_manifest(self._folder / _MANIFEST)
        for name, value in self._identity().items():
            if manifest[name] != value:
                raise _Unusable(f"its {name} is {manifest[name]}, that of the gallery {value}")
        parts = [_Part(self._folder / name, rows, sha256) for name, rows, sha256 in manifest["vectors"]]
        name, sha256 = manifest["facts"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and hashing leave the interpreter to others
            vectors = [pool.submit(self._read_part, part) for part in parts]
            with np.load(io.BytesIO(_verified(self._folder / name, sha256)), allow_pickle=False) as file:
                arrays = dict(file)
            blank = arrays.pop(_BLANK)
            rows = sum(part.rows for part in parts)
            whole = arrays.keys() == empty().keys() and all(len(arrays[name]) == rows for name in DTYPES)
            if not whole or int(arrays["alive"].sum()) != manifest["count"]:
                raise _Unusable("its facts and its vectors do not belong together")
            live = LiveGallery(index, arrays, manifest["sequence"])
            for part, found in zip(parts, vectors, strict=True):
                index.add(found.result())
                advance(part.rows)
        self._index, self._parts, self._blank = index, parts, blank
        self._facts, self.sequence = self._folder / name, manifest["sequence"]
        return live

    def _read_part(self, part: _Part) -> StoredVectors:
        vectors = np.empty((part.rows, self._gallery.dimension), self._gallery.vector_type.dtype)
        if part.path.stat().st_size != vectors.nbytes:
            raise _Unusable(f"{part.path.name} has {part.path.stat().st_size} bytes, expected {vectors.nbytes}")
        with part.path.open("rb", buffering=0) as file:
            left = vectors.data.cast("B")
            while len(left):
                left = left[file.readinto(left) :]
        if hashlib.sha256(vectors.data).hexdigest() != part.sha256:
            raise _Unusable(f"{part.path.name} is not what was written")
        return vectors

    def _write_part(self, view: View, number: int) -> None:
        """Have the file of rows ``number * _ROWS`` on, as many as there are, and its checksum."""
        if view.index is not self._index:  # compacted, or given up, meanwhile
            return
        first, last = number * _ROWS, min((number + 1) * _ROWS, len(view.alive))
        old = self._parts[number] if number < len(self._parts) else None
        if old is None or old.rows < last - first:
            blank = ~view.alive[first:last]
            path = self._folder / f"vectors-{number:05d}-{last - first}"
            self._parts[number:] = [_Part(path, last - first, _write(path, self._blocks(view.index, first, blank)))]
            self._blank = np.concatenate([self._blank[:first], blank])
            self._outdated |= set() if old is None else {old.path}
        elif old.sha256 is None:
            checksum = hashlib.sha256()
            for block in self._blocks(view.index, first, self._blank[first:last]):
                checksum.update(block)
            old.sha256 = checksum.hexdigest()

    def _blocks(self, index: VectorIndex, first: int, blank: Mask) -> Iterator[memoryview]:
        """The bytes of rows from ``first`` on, those that are ``blank`` as zeros."""
        for start in range(0, len(blank), _CHUNK):
            part = blank[start : start + _CHUNK]
            vectors = index.vectors(np.arange(first + start, first + start + len(part)))
            vectors[part] = 0
            yield vectors.astype(self._gallery.vector_type.dtype).data.cast("B")

    def _finish(self, view: View) -> None:
        facts = io.BytesIO()
        np.savez(facts, allow_pickle=False, **pack(view, np.arange(len(view.alive))), **{_BLANK: self._blank})
        path = self._folder / f"facts-{view.sequence}"
        manifest = self._identity() | {
            "sequence": view.sequence,
            "count": int(view.alive.sum()),
            "vectors": [(part.path.name, part.rows, part.sha256) for part in self._parts],
            "facts": (path.name, _write(path, [facts.getbuffer()])),
        }
        text = json.dumps(manifest)
        unfinished = self._folder / f"{_MANIFEST}.new"
        _write(unfinished, [_sealed(text).encode()])
        unfinished.rename(self._folder / _MANIFEST)
        _sync(self._folder)
        self._facts, self.sequence = path, view.sequence
        self._outdated, self._clean = set(), False
        self._sweep()

    def _identity(self) -> dict[str, Any]:
        gallery = self._gallery
        return {
            "format": _FORMAT,
            "gallery": gallery.name,
            "created_at": to_micros(gallery.created_at),
            "fingerprint": gallery.fingerprint,
            "dimension": gallery.dimension,
            "vector_type": gallery.vector_type.value,
        }

    def _forget(self) -> None:
        """Know no file any more: ``_sweep`` takes all away."""
        self._index, self._parts, self._blank = None, [], np.empty(0, np.bool_)
        self._facts, self.sequence = None, None
        self._outdated, self._clean = set(), False

    def _invalidate(self) -> None:
        self._facts, self.sequence = None, None
        self._outdated, self._clean = set(), False
        self._sweep()

    def _sweep(self) -> None:
        """Overwrite and take away every file that is not known; the manifest first, which speaks of them."""
        if self._clean or not self._folder.exists():
            return
        if self.sequence is None:
            (self._folder / _MANIFEST).unlink(missing_ok=True)
            _sync(self._folder)
        known = {part.path for part in self._parts} | self._outdated | {self._facts, self._folder / _MANIFEST}
        for path in set(self._folder.iterdir()) - known:
            _wipe(path)
        self._clean = True

    def _blank_rows(self, rows: Rows) -> None:
        size = self._gallery.dimension * self._gallery.vector_type.dtype.itemsize
        for number in np.unique(rows // _ROWS).tolist():
            part = self._parts[number]
            part.sha256 = None
            with part.path.open("r+b", buffering=0) as file:
                for row in (rows[rows // _ROWS == number] % _ROWS).tolist():
                    os.pwrite(file.fileno(), bytes(size), row * size)
                os.fsync(file.fileno())
        self._blank[rows] = True


class Snapshots:
    """The snapshots of all galleries, a folder each in ``directory``; only of galleries with ``least`` rows or more."""

    def __init__(self, directory: Path, least: int = 10_000) -> None:
        self._directory = directory
        self.least = least

    def of(self, gallery: Gallery) -> Snapshot:
        """That of one gallery, which need not be there yet."""
        return Snapshot(self._directory / _folder_name(gallery), gallery)

    def sweep(self, galleries: Collection[Gallery]) -> None:
        """Overwrite and take away what belongs to none of these."""
        if not self._directory.exists():
            return
        known = {_folder_name(gallery) for gallery in galleries}
        for found in self._directory.iterdir():
            if not found.is_dir():
                _wipe(found)
            elif found.name not in known:
                for path in found.iterdir():
                    _wipe(path)
                found.rmdir()


def _folder_name(gallery: Gallery) -> str:
    """Not the gallery's name, which may be ``..``; another one when it is made again, or bound to another model."""
    key = f"{gallery.name} {to_micros(gallery.created_at)} {gallery.fingerprint}"
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _parts(view: View) -> int:
    return -(-len(view.alive) // _ROWS)


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise _Unusable("it was not finished, or items were erased since")
    text, checksum = path.read_text().splitlines()
    if hashlib.sha256(text.encode()).hexdigest() != checksum:
        raise _Unusable("its manifest is not what was written")
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def _sealed(text: str) -> str:
    """A manifest of one line with its checksum."""
    return f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n"


def _verified(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _Unusable(f"{path.name} is not what was written")
    return content


def _write(path: Path, blocks: Any) -> str:
    """Write a file to the disk, whole or not at all; returns its SHA-256."""
    checksum = hashlib.sha256()
    try:
        with open(path, "wb", opener=partial(os.open, mode=0o600)) as file:
            for block in blocks:
                file.write(block)
                checksum.update(block)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return checksum.hexdigest()


def _wipe(path: Path) -> None:
    """Overwrite a file and take it away: to unlink it would leave its bytes on the disk."""
    left = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        while left > 0:
            left -= file.write(_ZEROS[: min(left, len(_ZEROS))])
        os.fsync(file.fileno())
    path.unlink()


def _sync(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
