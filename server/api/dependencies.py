"""Path parameters, the gallery that a path names, and the loaded model that a gallery is bound to."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path

from server.api.app_state import AppState, StateDep
from server.domain.errors import ModelMismatch, ModelNotFound
from server.domain.types import Gallery
from server.embedding.engine import Engine
from vireid.schemas.fields import Id

__all__ = ["AliasName", "GalleryName", "ItemId", "JobId", "ReceiptId", "ResolvedGallery", "engine_of"]

AliasName = Annotated[Id, Path(description="Name of the alias.")]
GalleryName = Annotated[Id, Path(description="Name of the gallery, or an alias of it.")]
ItemId = Annotated[Id, Path(description="Id of the item.")]
JobId = Annotated[str, Path(description="Id of the job.", max_length=64)]
ReceiptId = Annotated[str, Path(description="Id of the receipt.", max_length=64)]


async def _resolve(gallery: GalleryName, state: StateDep) -> str:
    return state.galleries.catalog.resolve(gallery)


ResolvedGallery = Annotated[str, Depends(_resolve)]
"""Name of the gallery of the path; an alias is replaced by the gallery's own name."""


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
