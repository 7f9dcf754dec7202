"""Opaque cursors of the pages of a search, and the query vectors of the searches by images that have pages.

A cursor holds the position after which a page starts, and a digest of its search and that position: it is not accepted
for another search, and a changed one is not accepted at all. It holds no vector. Images embedded again in another batch
may differ in the last bits, so the vectors of recent searches are kept in memory; where they are not there any more,
the images are embedded again.
"""

from __future__ import annotations

import base64
import re
import struct
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock

from models.card import Modality
from server.domain.types import Gallery, RankingPosition, Vectors
from server.domain.validation import InvalidRequest, invalid
from vireid.schemas.search import SearchQuery

__all__ = ["QueryVectors", "RecentQueries", "digest_of", "read_cursor", "write_cursor"]

_FIELD = "query.cursor"
_LONGEST = 200  # characters
_HEAD = struct.Struct(">8sdI")  # digest, score, rank; the id follows
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MAX_QUERIES = 256


@dataclass(frozen=True, slots=True)
class QueryVectors:
    """The fused unit vectors ``[q, D]`` of a search by images, and the modality of each image."""

    vectors: Vectors
    modalities: tuple[Modality, ...]


class RecentQueries:
    """The vectors of recent searches by images, by the digest of the search. Threads may share it.

    At most 256 are kept, in memory only: 0.5 MB for single images and 512 dimensions.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, QueryVectors] = OrderedDict()
        self._lock = Lock()

    def get(self, search: bytes) -> QueryVectors | None:
        """Return the vectors of a search; None: they are not kept any more."""
        with self._lock:
            if search in self._found:
                self._found.move_to_end(search)
            return self._found.get(search)

    def put(self, search: bytes, query: QueryVectors) -> None:
        """Keep the vectors of a search, instead of those not used for the longest time."""
        with self._lock:
            self._found[search] = query
            self._found.move_to_end(search)
            if len(self._found) > _MAX_QUERIES:
                self._found.popitem(last=False)


def write_cursor(search: bytes, end: RankingPosition) -> str:
    """Return the cursor of the page of the search with the digest ``search`` that starts after ``end``."""
    content = _HEAD.pack(_sign(search, end), end.score, end.rank) + end.id.encode("ascii")
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def read_cursor(text: str | None, search: bytes) -> RankingPosition | None:
    """Return the position after which a page of the search with the digest ``search`` starts; None: the first page.

    Raises:
        InvalidRequest: the text is not a cursor, or is that of another search.
    """
    if text is None:
        return None
    if len(text) > _LONGEST:
        raise _invalid_cursor()
    try:
        content = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        digest, score, rank = _HEAD.unpack_from(content)
        id = content[_HEAD.size :].decode("ascii")
    except (ValueError, struct.error):
        raise _invalid_cursor() from None
    position = RankingPosition(score, id, rank)
    if not _ID.fullmatch(id) or not rank or digest != _sign(search, position):
        raise _invalid_cursor()
    return position


def digest_of(gallery: Gallery, query: SearchQuery, person: bytes) -> bytes:
    """Return a digest that is equal for all pages of a search; ``person`` identifies the person searched for."""
    options = query.model_dump_json(exclude={"k", "cursor", "paginate"})
    parts = (gallery.name.encode(), gallery.fingerprint.encode(), options.encode(), person)
    return sha256(b"".join(sha256(part).digest() for part in parts)).digest()


def _sign(search: bytes, end: RankingPosition) -> bytes:
    return sha256(search + struct.pack(">dI", end.score, end.rank) + end.id.encode("ascii")).digest()[:8]


def _invalid_cursor() -> InvalidRequest:
    return invalid(_FIELD, "is not the next_cursor of this search: only k may change from page to page")
