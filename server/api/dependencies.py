"""Path parameters, the gallery that a path names, and the loaded model that a gallery is bound to."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Header, Path

from server.api.app_state import AppState, StateDep
from server.api.auth import Reader
from server.domain.errors import ModelMismatch, ModelNotFound
from server.domain.types import Gallery
from server.embedding.engine import Engine
from vireid.schemas.fields import Id

__all__ = ["AliasName", "GalleryName", "ItemId", "JobId", "NewIds", "ReceiptId", "ResolvedGallery", "engine_of"]

AliasName = Annotated[Id, Path(description="Name of the alias.")]
GalleryName = Annotated[Id, Path(description="Name of the gallery, or an alias of it.")]
ItemId = Annotated[Id, Path(description="Id of the item.")]
JobId = Annotated[str, Path(description="Id of the job.", max_length=64)]
ReceiptId = Annotated[str, Path(description="Id of the receipt.", max_length=64)]


async def _resolve(gallery: GalleryName, state: StateDep) -> str:
    return state.galleries.catalog.resolve(gallery)


ResolvedGallery = Annotated[str, Depends(_resolve)]
"""Name of the gallery of the path; an alias is replaced by the gallery's own name."""


class NewIds:
    """Ids for the items of a request that have none.

    With a header ``Idempotency-Key`` they follow from it, from the caller, and from the position and content of the
    item: a request sent again replaces the items of the first one instead of adding them twice.
    """

    def __init__(
        self,
        caller: Reader,
        idempotency_key: Annotated[
            str | None,
            Header(
                min_length=1,
                max_length=255,
                description="Unique text for this request, such as a UUID. Sent again with the same one, the request "
                "adds no item twice.",
            ),
        ] = None,
    ) -> None:
        self._origin = None if idempotency_key is None else f"{caller.key_id}\n{idempotency_key}"

    def of(self, index: int, content: str | None) -> str:
        """Return the id of item ``index`` of the request; ``content`` is the SHA-256 of its image or vector."""
        if self._origin is None:
            return uuid4().hex
        return sha256(f"{self._origin}\n{index}\n{content}".encode()).hexdigest()[:32]


def engine_of(state: AppState, gallery: Gallery) -> Engine:
    """Return the loaded model with the gallery's fingerprint.

    Raises:
        ModelMismatch: no loaded model has it; the error names the model of that name, or else the default model.
    """
    engine = state.models.of_fingerprint(gallery.fingerprint)
    if engine is None:
        try:
            found = state.models.get(gallery.model)
        except ModelNotFound:
            found = state.models.get()
        raise ModelMismatch(gallery.name, gallery.fingerprint, found.card.fingerprint)
    return engine
