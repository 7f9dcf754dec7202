"""``manifest.csv`` or ``manifest.jsonl``: what is known of each file of an upload, by its path."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from posixpath import join
from typing import IO, Any

from pydantic import ValidationError

from server.errors import ArchiveRejected, EntryRejected, ServiceError, StorageFull
from server.faults import InvalidRequest, field_errors
from server.fields import ModalityChoice, NewFields
from server.jobs.imports.naming import checked_path, shown

__all__ = ["MANIFESTS", "MAX_UNUSED", "Manifest", "ManifestRow"]

MANIFESTS = ("manifest.csv", "manifest.jsonl")
"""Names of the file, in any folder; paths in it count from there."""

MAX_UNUSED = 1000
"""Rows that name no file, beyond which the manifest is taken for that of another upload."""

_LONGEST_LINE = 2**16


class ManifestRow(NewFields):
    """A row: the path of a file, and what is known of it."""

    path: str
    modality: ModalityChoice | None = None


class Manifest:
    """Rows by path, in a file of their own, so that they take no memory. Empty until ``read``."""

    def __init__(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        self._rows = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=OFF")
        self._rows.execute("PRAGMA synchronous=OFF")
        self._rows.execute("CREATE TABLE rows (line INTEGER PRIMARY KEY, path TEXT, fields TEXT, used INTEGER)")
        self.name: str | None = None

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()

    def read(self, path: str, file: IO[bytes]) -> None:
        """Take the rows of the manifest that lies at ``path``.

        Raises:
            ArchiveRejected: there is a second one, or this one cannot be read as a whole.
        """
        if self.name is not None:
            raise ArchiveRejected(f"there are two manifests, {self.name} and {path}")
        self.name = path
        folder, _, kind = path.rpartition("/")
        rows = _csv(file) if kind == "manifest.csv" else _jsonl(file)
        self._rows.execute("BEGIN")
        try:
            found = ((line, _key(folder, fields), json.dumps(fields)) for line, fields in rows)
            self._rows.executemany("INSERT INTO rows VALUES (?, ?, ?, 0)", found)
        except (UnicodeError, csv.Error) as error:
            raise ArchiveRejected(f"{path} is not what its name says, in UTF-8") from error
        except sqlite3.OperationalError as error:
            raise StorageFull from error
        self._rows.execute("CREATE INDEX paths ON rows (path)")
        self._rows.execute("COMMIT")

    def use(self, path: str) -> None:
        """Note that there is a file of that path."""
        self._rows.execute("UPDATE rows SET used = 1 WHERE path = ?", (path,))

    def unused(self) -> list[tuple[str, ServiceError]]:
        """The rows that name no file, each with what is wrong.

        Raises:
            ArchiveRejected: there are more than :data:`MAX_UNUSED`.
        """
        found = self._rows.execute(
            "SELECT line, fields FROM rows WHERE used = 0 ORDER BY line LIMIT ?", (MAX_UNUSED + 1,)
        ).fetchall()
        if len(found) > MAX_UNUSED:
            raise ArchiveRejected(f"more than {MAX_UNUSED:,} rows of {self.name} name files that are not there")
        return [(f"{self.name}[{line}]", _unused(json.loads(fields))) for line, fields in found]

    def row(self, path: str) -> ManifestRow | None:
        """What the manifest says of a file; None where it does not name it.

        Raises:
            InvalidRequest: the row does not hold what it may.
            EntryRejected: two rows name the file.
        """
        if self.name is None:
            return None
        found = self._rows.execute("SELECT line, fields FROM rows WHERE path = ? ORDER BY line LIMIT 2", (path,))
        match found.fetchall():
            case []:
                return None
            case [(line, fields)]:
                return _validated(fields, f"{self.name}[{line}]")
            case [(first, _), (second, _)]:
                raise EntryRejected(f"lines {first} and {second} of {self.name} both name it")
        raise AssertionError  # LIMIT 2


def _csv(file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(_lines(file), strict=True)
    known = ManifestRow.model_fields
    if unknown := [name for name in reader.fieldnames or ["nothing"] if name not in known]:
        raise ArchiveRejected(f"manifest.csv has the column {shown(unknown[0])}; known are {', '.join(known)}")
    for cells in reader:
        if None in cells or None in cells.values():
            raise ArchiveRejected(f"line {reader.line_num} of manifest.csv has not as many cells as the first")
        fields: dict[str, Any] = {name: cell for name, cell in cells.items() if cell}
        if "attributes" in fields:
            fields["attributes"] = _decoded(fields["attributes"])
        yield reader.line_num, fields


def _jsonl(file: IO[bytes]) -> Iterator[tuple[int, Any]]:
    return ((number, _decoded(line)) for number, line in enumerate(_lines(file), 1) if line.strip())


def _lines(file: IO[bytes]) -> Iterator[str]:
    encoding = "utf-8-sig"
    while line := file.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise ArchiveRejected(f"the manifest has a line of more than {_LONGEST_LINE:,} bytes")
        yield line.decode(encoding)
        encoding = "utf-8"


def _decoded(text: str) -> Any:
    """The JSON value; text that is none stays as it is, and will not fit where an object is expected."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _key(folder: str, fields: Any) -> str | None:
    """The path that a row names, as entries are named; None where it names none."""
    path = fields.get("path") if isinstance(fields, dict) else None
    try:
        return checked_path(join(folder, path)) if isinstance(path, str) and not path.startswith("/") else None
    except EntryRejected:
        return None


def _validated(fields: str, line: str) -> ManifestRow:
    try:
        return ManifestRow.model_validate_json(fields)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors(), within=line)) from None


def _unused(fields: Any) -> ServiceError:
    try:
        row = ManifestRow.model_validate(fields)
    except ValidationError as error:
        return InvalidRequest(field_errors(error.errors()))
    return EntryRejected(f"there is no file {shown(row.path)}")
