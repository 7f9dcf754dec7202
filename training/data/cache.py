"""Cache of decoded and resized crops in one memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.card import Modality
from models.cores import usable_cores
from training.data.images import Pixels, ResizeFilter, load
from training.data.records import Record

__all__ = ["CropCache"]

_LAYOUT = 1  # version of the cached files; a change invalidates older caches
_IMAGES, _INDEX = "images.npy", "index.json"


@dataclass(frozen=True, slots=True)
class _Source:
    """A file and how it is decoded; a translated record and its visible source share an entry."""

    path: Path
    grey: bool
    levels: tuple[float, float] | None

    @classmethod
    def of(cls, record: Record) -> _Source:
        return cls(record.path, record.modality is Modality.INFRARED and not record.translated, record.levels)


class CropCache:
    """Read-only crops by record: uint8 RGB ``[height, width, 3]`` from one array ``[N, height, width, 3]``.

    The array is mapped on first use in each process, so a cache can be passed to workers.
    """

    def __init__(self, folder: Path, rows: dict[_Source, int]) -> None:
        self.folder = folder
        self._rows = rows
        self._images: Pixels | None = None

    @classmethod
    def open(
        cls,
        records: Iterable[Record],
        directory: Path,
        size: tuple[int, int],
        filter: ResizeFilter = "bilinear",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> CropCache:
        """Open the cache of these records in ``directory``; if it does not exist, decode them.

        Its name is a hash over size, filter and the sorted sources (path relative to their common folder, size in
        bytes, modification time), so a changed file leads to a new cache. It is created atomically. ``size`` is
        (height, width); ``on_progress`` gets (decoded, total) for each image.

        Raises:
            ValueError: there is no record, or a file is not a readable image; the message has its path.
            OSError: a file is missing or the directory cannot be written.
        """
        sources = sorted({_Source.of(r) for r in records}, key=lambda s: (s.path, s.grey, s.levels or ()))
        if not sources:
            raise ValueError("no record to cache")
        index = {"layout": _LAYOUT, "size": size, "filter": filter, "sources": _listing(sources)}
        name = hashlib.sha256(json.dumps(index).encode()).hexdigest()[:32]
        folder = directory / name
        if not folder.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=directory))
            try:
                _decode(sources, unfinished / _IMAGES, size, filter, on_progress)
                (unfinished / _INDEX).write_text(json.dumps(index), "utf-8")
                _publish(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return cls(folder, {source: row for row, source in enumerate(sources)})

    def __getitem__(self, record: Record) -> Pixels:
        if self._images is None:
            self._images = np.load(self.folder / _IMAGES, mmap_mode="r")
        image: Pixels = self._images[self._rows[_Source.of(record)]]
        return image

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_images": None}


def _listing(sources: list[_Source]) -> list[tuple[object, ...]]:
    top = Path(os.path.commonpath([s.path.parent for s in sources]))
    listing: list[tuple[object, ...]] = []
    for source in sources:
        status = source.path.stat()
        relative = source.path.relative_to(top).as_posix()
        listing.append((relative, status.st_size, status.st_mtime_ns, source.grey, *(source.levels or ())))
    return listing


def _decode(
    sources: list[_Source],
    file: Path,
    size: tuple[int, int],
    filter: ResizeFilter,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    shape = (len(sources), *size, 3)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)

    def decode(source: _Source) -> Pixels:
        modality = Modality.INFRARED if source.grey else Modality.VISIBLE
        return load(Record(source.path, "", "", modality, levels=source.levels), size, filter)

    with ThreadPoolExecutor(usable_cores()) as pool:
        for row, image in enumerate(pool.map(decode, sources)):
            images[row] = image
            if on_progress is not None:
                on_progress(row + 1, len(sources))
    images.flush()


def _publish(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process has created the same cache
            raise
