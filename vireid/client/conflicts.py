"""What becomes of crops whose id is taken: the rule of imports, applied before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path

from models.crop_files import apart_id
from vireid.schemas.imports import ConflictChoice
from vireid.schemas.items import ItemFields

__all__ = ["Sifted", "sift"]

Files = Sequence[tuple[Path, ItemFields]]


@dataclass(slots=True)
class Sifted:
    """Crops to send, those that the gallery has already, and those that would overwrite another crop."""

    new: list[tuple[Path, ItemFields]] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    conflicts: list[tuple[Path, str]] = field(default_factory=list)


def sift(files: Files, stored: Mapping[str, str | None], on_conflict: ConflictChoice) -> Sifted:
    """Compare crops with the items of a gallery, ``stored``: the SHA-256 of their content by id, None if unknown.

    Only files whose id is stored, or is that of another file too, are read. A file that cannot be read is sent on,
    where that is reported. With ``fail`` the conflicts are returned and not sent.
    """
    shared = {id for id, count in Counter(fields.id for _, fields in files).items() if count > 1}
    taken: dict[str, str | None] = dict(stored)
    sifted = Sifted()
    for path, fields in files:
        id = fields.id or ""
        content = _content(path) if id in taken or id in shared else None
        if content is None:
            sifted.new.append((path, fields))
            continue
        if id in taken and taken[id] not in (None, content):
            if on_conflict is ConflictChoice.FAIL:
                sifted.conflicts.append((path, id))
                continue
            if on_conflict is ConflictChoice.KEEP:
                id = apart_id(id, content)
        if id in taken and taken[id] in (None, content):
            sifted.there.append(path)
        else:
            sifted.new.append((path, fields.model_copy(update={"id": id})))
        taken[id] = content
    return sifted


def _content(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
