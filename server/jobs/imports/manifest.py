"""``manifest.csv`` or ``manifest.jsonl``: metadata of each file of an upload, by its path.

The reader process reads it. Rows are kept in a file, so that they take no memory; the importer validates their values.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from posixpath import join
from typing import IO, Any

from models.crop_files import InvalidPath, display_name, relative_path
from server.domain.errors import ArchiveRejected, EntryRejected, StorageFull
from server.jobs.imports.progress import report_progress

__all__ = ["COLUMNS", "MAX_UNUSED", "Manifest", "ManifestRow", "used_columns"]

COLUMNS = ("path", "id", "identity", "camera", "captured_at", "attributes", "modality")
"""Columns of a manifest; others are ignored."""

MAX_UNUSED = 1000
"""Rows without a file beyond which the manifest is taken for that of another upload."""

_LONGEST_LINE = 2**16
_DELIMITERS = (",", ";", "\t", "|")
_INDEX_COLUMNS = frozenset({"", "index", "level_0"})
_SIMILAR = 0.8


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A row: ``place`` names it in messages, ``fields`` is JSON."""

    place: str
    fields: str


class Manifest:
    """Rows by path, in a file of their own. Empty until ``read``."""

    def __init__(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        os.environ.setdefault("SQLITE_TMPDIR", str(file.parent))  # the system's folder may be read-only
        self._rows = sqlite3.connect(file, isolation_level=None)
        self._rows.execute("PRAGMA journal_mode=OFF")
        self._rows.execute("PRAGMA synchronous=OFF")
        self._rows.execute(
            "CREATE TABLE rows (line INTEGER PRIMARY KEY, path TEXT, folded TEXT, fields TEXT, used INTEGER)"
        )
        self._rows.execute("CREATE TABLE files (path TEXT, folded TEXT)")
        self.name: str | None = None
        self.unknown_columns: list[str] = []

    def close(self) -> None:
        """Close the file."""
        self._rows.close()

    def read(self, path: str, file: IO[bytes]) -> None:
        """Take the rows of the manifest that lies at ``path``.

        Raises:
            ArchiveRejected: there is a second one, or this one cannot be read as a whole.
        """
        if self.name is not None:
            raise ArchiveRejected(f"there are two manifests, {self.name} and {path}")
        self.name = path
        folder, _, name = path.rpartition("/")
        rows = self._csv(file) if name.casefold() == "manifest.csv" else _jsonl(file)
        self._rows.execute("BEGIN")
        try:
            self._rows.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, 0)", _keyed(folder, rows))
        except (UnicodeError, csv.Error) as error:
            raise ArchiveRejected(f"{path} is not what its name says, in UTF-8") from error
        except sqlite3.OperationalError as error:
            raise StorageFull from error
        self._rows.execute("CREATE INDEX paths ON rows (path)")
        self._rows.execute("CREATE INDEX folded_paths ON rows (folded)")
        self._rows.execute("COMMIT")

    def use(self, path: str) -> None:
        """Note that there is a file of that path."""
        found = self._rows.execute("UPDATE rows SET used = 1 WHERE path = ?", (path,))
        if not found.rowcount:
            self._rows.execute("INSERT INTO files VALUES (?, ?)", (path, path.casefold()))

    def match_case(self) -> None:
        """Give rows whose path has no file, and one file that differs only by letter case, the path of that file."""
        self._rows.execute(
            "CREATE TABLE pairs AS SELECT rows.line AS line, min(files.path) AS path "
            "FROM rows JOIN files USING (folded) WHERE rows.used = 0 "
            "GROUP BY folded HAVING count(DISTINCT rows.line) = 1 AND count(DISTINCT files.path) = 1"
        )
        self._rows.execute("UPDATE rows SET used = 1, path = pairs.path FROM pairs WHERE rows.line = pairs.line")

    def unused(self) -> list[ManifestRow]:
        """Return the rows that name no file.

        Raises:
            ArchiveRejected: there are more than :data:`MAX_UNUSED`.
        """
        found = self._rows.execute(
            "SELECT line, fields FROM rows WHERE used = 0 ORDER BY line LIMIT ?", (MAX_UNUSED + 1,)
        ).fetchall()
        if len(found) > MAX_UNUSED:
            raise ArchiveRejected(f"more than {MAX_UNUSED:,} rows of {self.name} name files that are not there")
        return [ManifestRow(f"{self.name}[{line}]", fields) for line, fields in found]

    def row(self, path: str) -> ManifestRow | None:
        """Return what the manifest says of a file; None if it does not name it.

        Raises:
            EntryRejected: two rows name the file.
        """
        if self.name is None:
            return None
        found = self._rows.execute("SELECT line, fields FROM rows WHERE path = ? ORDER BY line LIMIT 2", (path,))
        match found.fetchall():
            case []:
                return None
            case [(line, fields)]:
                return ManifestRow(f"{self.name}[{line}]", fields)
            case [(first, _), (second, _)]:
                raise EntryRejected(f"lines {first} and {second} of {self.name} both name it")
        raise AssertionError  # LIMIT 2

    def _csv(self, file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        lines = _lines(file)
        header = next(lines, "")
        if header.casefold().startswith("sep="):  # Excel tells itself so
            header = next(lines, "")
        if not header.strip():
            raise ArchiveRejected("manifest.csv is empty; its first line must name columns, path among them")
        delimiter = _delimiter(header)
        columns, self.unknown_columns = used_columns(next(csv.reader([header], delimiter=delimiter)), "manifest.csv")
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = reader.line_num + 1
            if len(cells) < len(columns) or any(cell.strip() for cell in cells[len(columns) :]):
                raise ArchiveRejected(f"line {line} of manifest.csv has not as many cells as the first")
            yield line, _fields(columns, cells)


def used_columns(
    names: Sequence[str], where: str, known: Sequence[str] = COLUMNS
) -> tuple[list[str | None], list[str]]:
    """Return the known column that each name stands for, None for another; and the names of those that are ignored.

    Case and spaces do not matter; columns of a spreadsheet's or data frame's index are ignored without a word.

    Raises:
        ArchiveRejected: a name stands twice, or is likely a known one misspelt.
    """
    plain = [name.strip().casefold().replace(" ", "_").replace("-", "_") for name in names]
    for name in known:
        if plain.count(name) > 1:
            raise ArchiveRejected(f"{where} has two columns {name}")
    missing = [name for name in known if name not in plain]
    unknown = []
    for name, given in zip(plain, names, strict=True):
        if name in known or name in _INDEX_COLUMNS or name.startswith(("unnamed:", "__index_level_")):
            continue
        if near := difflib.get_close_matches(name, missing, n=1, cutoff=_SIMILAR):
            raise ArchiveRejected(f"{where} has the column {display_name(given)}; {near[0]} may be meant")
        unknown.append(display_name(given))
    return [name if name in known else None for name in plain], unknown


def _fields(columns: Sequence[str | None], cells: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name and cell.strip()
    }
    if "attributes" in fields:
        fields["attributes"] = _decoded(fields["attributes"])
    return fields


def _delimiter(header: str) -> str:
    """Return the delimiter with which the header has the most known columns."""

    def known(delimiter: str) -> int:
        names = next(csv.reader([header], delimiter=delimiter), [])
        return sum(name.strip().casefold().replace(" ", "_") in COLUMNS for name in names)

    return max(_DELIMITERS, key=known)


def _jsonl(file: IO[bytes]) -> Iterator[tuple[int, Any]]:
    return ((number, _decoded(line)) for number, line in enumerate(_lines(file), 1) if line.strip())


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the lines, in the encoding that a byte order mark tells, else in UTF-8."""
    start = file.peek(4)  # type: ignore[attr-defined]  # of buffered files, as all sources open
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = io.TextIOWrapper(file, encoding)
    try:
        while line := text.readline(_LONGEST_LINE + 1):
            report_progress()
            if len(line) > _LONGEST_LINE:
                raise ArchiveRejected(f"the manifest has a line of more than {_LONGEST_LINE:,} bytes")
            yield line
    finally:
        with suppress(ValueError):  # closed already, where the reading ended with an error
            text.detach()


def _decoded(text: str) -> Any:
    """Return the JSON value; text that is none stays as it is, and will not fit where an object is expected."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _keyed(folder: str, rows: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, str | None, str | None, str]]:
    for line, fields in rows:
        path = _path(folder, fields)
        yield line, path, None if path is None else path.casefold(), json.dumps(fields)


def _path(folder: str, fields: Any) -> str | None:
    """Return the path that a row names, spelt as those of entries are; None where it names none."""
    path = fields.get("path") if isinstance(fields, dict) else None
    try:
        return relative_path(join(folder, path.replace("\\", "/"))) if isinstance(path, str) else None
    except InvalidPath:
        return None
