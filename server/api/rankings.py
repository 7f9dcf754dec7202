"""Opaque cursors over the ranking of a search.

A cursor knows its search, so that it is not taken for another one. That of a search by images carries the vectors:
embedded again, beside other images, they may differ in the last bits, and hits would be left out or come twice.
"""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from models.card import Modality
from server.api.errors import InvalidRequest, invalid
from server.api.schemas import SearchQuery
from server.fields import LENGTH_TOLERANCE, Id, Wire
from server.gallery.types import Gallery, Place, Vectors

__all__ = ["Cursor", "digest_of"]

_FIELD = "query.cursor"


class Cursor(Wire):
    """Behind which hit of which search a page begins, with the query vectors ``[q, D]`` of a search by images."""

    search: str
    score: Annotated[float, Field(ge=-2, le=2)]
    id: Id
    rank: Annotated[int, Field(ge=1)]
    modalities: list[Modality] = Field(default=[])
    vectors: str | None = None

    @property
    def place(self) -> Place:
        """Translate."""
        return Place(self.score, self.id, self.rank)

    def queries(self, dimension: int) -> Vectors:
        """The query vectors, float32 ``[q, dimension]``.

        Raises:
            InvalidRequest: there are none, or not of that dimension and unit length.
        """
        try:
            packed = base64.b64decode(self.vectors or "", validate=True)
            vectors: Vectors = np.frombuffer(packed, "<f4").reshape(-1, dimension)
        except ValueError:
            raise _never_given() from None
        if not len(vectors) or not (np.abs(np.linalg.norm(vectors, axis=1) - 1) <= LENGTH_TOLERANCE).all():
            raise _never_given()
        return vectors

    @staticmethod
    def packed(queries: Vectors) -> str:
        """Query vectors as they are kept here."""
        return base64.b64encode(queries.astype("<f4").tobytes()).decode("ascii")

    def write(self) -> str:
        """As text."""
        return base64.urlsafe_b64encode(self.model_dump_json(exclude_defaults=True).encode()).decode("ascii")

    @classmethod
    def read(cls, text: str | None, search: str) -> Self | None:
        """What ``write`` gave for the search of that digest; None: the first page.

        Raises:
            InvalidRequest: it gave no such text, or for another search.
        """
        if text is None:
            return None
        try:
            cursor = cls.model_validate_json(base64.urlsafe_b64decode(text.encode("ascii")))
        except ValueError:
            raise _never_given() from None
        if cursor.search != search:
            raise invalid(_FIELD, "is of another search: only k may change from page to page")
        return cursor


def digest_of(gallery: Gallery, query: SearchQuery, person: bytes) -> str:
    """What is the same for every page of a search; ``person`` says whom it looks for."""
    asked = query.model_dump_json(exclude={"k", "cursor"})
    parts = (gallery.name.encode(), gallery.fingerprint.encode(), asked.encode(), person)
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()[:32]


def _never_given() -> InvalidRequest:
    return invalid(_FIELD, "is not the next_cursor of an answer")
