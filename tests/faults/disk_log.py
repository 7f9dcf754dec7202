"""A record of everything that a store writes, and the disk as a crash at any point would leave it.

``recorded`` logs each write, size change, fsync and change of a directory entry below a folder: of SQLite by a VFS of
apsw, of this program by wrappers of ``open`` and ``os``. ``replay`` applies the first events of the log. After a crash
of the process all of them are on the disk; after a loss of power only what was fsynced, or that and any part of the
rest.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any, Literal
from unittest.mock import patch

from tests.faults.recording_sqlite import recording_sqlite

__all__ = ["Crash", "DiskLog", "Event", "recorded", "replay"]

Kind = Literal["create", "write", "truncate", "sync", "rename", "unlink", "sync entries", "acknowledge"]


@dataclass(frozen=True)
class Event:
    """A change of the file ``path``. ``number``: an offset, a size or the number of an acknowledged write."""

    kind: Kind
    path: str
    number: int = 0
    data: bytes = b""
    to: str = ""


class Crash(Enum):
    """What a crash leaves of data that was written and not fsynced."""

    PROCESS = auto()
    """All of it."""
    POWER = auto()
    """Nothing of it."""
    POWER_PARTLY = auto()
    """A random part of it."""


class DiskLog:
    """Events below ``folder``, in order. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self._lock = Lock()

    def add(self, kind: Kind, path: str | Path, number: int = 0, data: bytes = b"", to: str | Path = "") -> None:
        name, target = (self._name(one) for one in (path, to))
        if name is not None:
            with self._lock:
                self.events.append(Event(kind, name, number, data, target or ""))

    def acknowledge(self, number: int) -> None:
        """Note that the store has returned from write ``number``."""
        self.add("acknowledge", self.folder, number)

    def _name(self, path: str | Path) -> str | None:
        try:
            return str(Path(path).relative_to(self.folder))
        except ValueError:
            return None


@contextmanager
def recorded(folder: Path) -> Iterator[DiskLog]:
    """Log what SQLAlchemy's SQLite connections and this program's Python code write below a folder."""
    log = DiskLog(folder)
    with ExitStack() as stack:
        stack.enter_context(recording_sqlite(log.add))
        for target, wrapper in _wrappers(log).items():
            stack.enter_context(patch(target, wrapper))
        yield log


def _wrappers(log: DiskLog) -> dict[str, Callable[..., Any]]:
    plain = {name: getattr(os, name) for name in ("open", "fsync", "pwrite", "rename", "unlink")}

    def open_file(
        file: Any, mode: str = "r", buffering: int = -1, *args: Any, opener: Any = None, **options: Any
    ) -> Any:
        if not set(mode) & set("wxa+") or "b" not in mode or isinstance(file, int):
            return _OPEN(file, mode, buffering, *args, opener=opener, **options)
        _note_creation(log, file, truncated="w" in mode)
        raw = _RecordedFile(file, mode.replace("b", ""), opener=opener)
        raw.log = log
        return raw if not buffering else io.BufferedWriter(raw)

    def open_descriptor(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            _note_creation(log, path, truncated=False)
        descriptor: int = plain["open"](path, flags, *args, **options)
        return descriptor

    def fsync(descriptor: int) -> None:
        plain["fsync"](descriptor)
        path = _path_of(descriptor)
        log.add("sync entries" if path.is_dir() else "sync", path)

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        count: int = plain["pwrite"](descriptor, data, offset)
        log.add("write", _path_of(descriptor), offset, bytes(data[:count]))
        return count

    def rename(source: Any, target: Any, **options: Any) -> None:
        plain["rename"](source, target, **options)
        log.add("rename", source, to=target)

    def unlink(path: Any, **options: Any) -> None:
        plain["unlink"](path, **options)
        log.add("unlink", path)

    return {
        "builtins.open": open_file,
        "io.open": open_file,
        "os.open": open_descriptor,
        "os.fsync": fsync,
        "os.pwrite": pwrite,
        "os.rename": rename,
        "os.unlink": unlink,
    }


_OPEN = open


class _RecordedFile(io.FileIO):
    """A binary file that logs its writes."""

    log: DiskLog

    def write(self, data: Any) -> int:
        offset = self.tell()
        count = super().write(data)
        self.log.add("write", _path_of(self.fileno()), offset, bytes(memoryview(data).cast("B")[:count]))
        return count


def _note_creation(log: DiskLog, path: Any, *, truncated: bool) -> None:
    if not os.path.exists(path):  # noqa: PTH110 - of any type that ``open`` takes
        log.add("create", path)
    elif truncated:
        log.add("truncate", path, 0)


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@dataclass
class _File:
    """Content on the disk, and the changes since the last fsync."""

    content: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        if event.kind == "truncate":
            del self.content[event.number :]
            self.content.extend(bytes(event.number - len(self.content)))
        else:
            self.content.extend(bytes(max(0, event.number - len(self.content))))
            self.content[event.number : event.number + len(event.data)] = event.data

    def sync(self) -> None:
        for event in self.pending:
            self.apply(event)
        self.pending = []


class _Disk:
    """Files by path, as programs see them (``entries``) and as the disk holds them (``stored``)."""

    def __init__(self) -> None:
        self.entries: dict[str, _File] = {}
        self.stored: dict[str, _File] = {}

    def apply(self, event: Event) -> None:
        if event.kind == "create":
            self.entries[event.path] = _File()
        elif event.kind in ("write", "truncate"):
            self.entries[event.path].pending.append(event)
        elif event.kind == "sync":
            file = self.entries[event.path]
            file.sync()
            if not any(file is other for other in self.stored.values()):  # journaling file systems store a new entry
                self.stored[event.path] = file
        elif event.kind == "rename":
            self.entries[event.to] = self.entries.pop(event.path)
        elif event.kind == "unlink":
            self.entries.pop(event.path)
        elif event.kind == "sync entries":
            self._sync_entries(event.path)

    def _sync_entries(self, folder: str) -> None:
        def inside(path: str) -> bool:
            return str(Path(path).parent) == folder

        kept = {path: file for path, file in self.stored.items() if not inside(path)}
        self.stored = kept | {path: file for path, file in self.entries.items() if inside(path)}


def replay(events: Sequence[Event], crash: Crash, seed: int = 0) -> dict[str, bytes]:
    """Return the files that a crash after these events leaves, by path."""
    disk, draw = _Disk(), Random(seed)
    for event in events:
        disk.apply(event)
    entries = disk.entries if crash is Crash.PROCESS else disk.stored
    for file in dict.fromkeys(map(id, entries.values())) and entries.values():
        for event in file.pending:
            if crash is Crash.PROCESS or (crash is Crash.POWER_PARTLY and draw.random() < 0.5):
                file.apply(event)
        file.pending = []
    return {path: bytes(file.content) for path, file in entries.items()}
