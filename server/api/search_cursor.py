"""Opaque cursors of the pages of a search.

A cursor holds a digest of its search, so that it is not accepted for another one. The cursor of a search by images
also holds the query vectors: images embedded again in another batch may differ in the last bits, and hits would be
missing or repeated.
"""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from models.card import Modality
from server.domain.fields import UNIT_NORM_TOLERANCE
from server.domain.types import Gallery, RankingPosition, Vectors
from server.domain.validation import InvalidRequest, invalid
from vireid.schemas.base import Schema
from vireid.schemas.fields import Id
from vireid.schemas.search import MAX_QUERY_IMAGES, SearchQuery

__all__ = ["SearchCursor", "digest_of"]

_FIELD = "query.cursor"
_LARGEST_RANK = 2**53
_LONGEST = 2**23  # characters; more than 16 vectors of 65,536 numbers need


class SearchCursor(Schema):
    """The search and the hit after which a page starts, with the query vectors ``[q, D]`` of a search by images."""

    search: str
    score: Annotated[float, Field(ge=-2, le=2)]
    id: Id
    rank: Annotated[int, Field(ge=1, le=_LARGEST_RANK)]
    modalities: list[Modality] = Field(default=[], max_length=MAX_QUERY_IMAGES)
    vectors: str | None = None

    @property
    def position(self) -> RankingPosition:
        """The last hit of the previous page."""
        return RankingPosition(self.score, self.id, self.rank)

    def queries(self, images: int, dimension: int) -> Vectors:
        """Return the query vectors of a search by ``images`` images, float32 ``[q, dimension]``.

        Raises:
            InvalidRequest: the cursor holds no vectors of that dimension and unit length, or more than images.
        """
        try:
            data = base64.b64decode(self.vectors or "", validate=True)
            vectors: Vectors = np.frombuffer(data, "<f4").reshape(-1, dimension)
        except ValueError:
            raise _invalid_cursor() from None
        if len(self.modalities) != images or not 1 <= len(vectors) <= images:
            raise _invalid_cursor()
        if not (np.abs(np.linalg.norm(vectors, axis=1) - 1) <= UNIT_NORM_TOLERANCE).all():
            raise _invalid_cursor()
        return vectors

    @staticmethod
    def pack(queries: Vectors) -> str:
        """Encode query vectors for the field ``vectors``."""
        return base64.b64encode(queries.astype("<f4").tobytes()).decode("ascii")

    def encode(self) -> str:
        """Return the cursor as text."""
        return base64.urlsafe_b64encode(self.model_dump_json(exclude_defaults=True).encode()).decode("ascii")

    @classmethod
    def decode(cls, text: str | None, search: str) -> Self | None:
        """Decode the cursor of the search with the digest ``search``; None: the first page.

        Raises:
            InvalidRequest: the text is not a cursor, or is that of another search.
        """
        if text is None:
            return None
        if len(text) > _LONGEST:
            raise _invalid_cursor()
        try:
            cursor = cls.model_validate_json(base64.urlsafe_b64decode(text.encode("ascii")))
        except ValueError:
            raise _invalid_cursor() from None
        if cursor.search != search:
            raise invalid(_FIELD, "is of another search: only k may change from page to page")
        return cursor


def digest_of(gallery: Gallery, query: SearchQuery, person: bytes) -> str:
    """Return a digest that is equal for all pages of a search; ``person`` identifies the person searched for."""
    options = query.model_dump_json(exclude={"k", "cursor"})
    parts = (gallery.name.encode(), gallery.fingerprint.encode(), options.encode(), person)
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()[:32]


def _invalid_cursor() -> InvalidRequest:
    return invalid(_FIELD, "is not the next_cursor of an answer")
