"""Which gallery a path names, and which loaded model it is bound to."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from server.api.schemas import GalleryName
from server.api.service import Service, ServiceDep
from server.embedding.engine import Engine
from server.errors import ModelMismatch, ModelNotFound
from server.gallery.types import Gallery

__all__ = ["NamedGallery", "engine_of"]


async def _resolved(gallery: GalleryName, service: ServiceDep) -> str:
    return service.galleries.resolve(gallery)


NamedGallery = Annotated[str, Depends(_resolved)]
"""The gallery of the path, by its own name where an alias was given."""


def engine_of(service: Service, gallery: Gallery) -> Engine:
    """The loaded model with the gallery's fingerprint.

    Raises:
        ModelMismatch: no loaded model has it; it names the one of the gallery's model name, or the default one.
    """
    engine = service.models.of_fingerprint(gallery.fingerprint)
    if engine is None:
        try:
            found = service.models.get(gallery.model)
        except ModelNotFound:
            found = service.models.get()
        raise ModelMismatch(gallery.name, gallery.fingerprint, found.card.fingerprint)
    return engine
