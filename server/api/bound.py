"""Which loaded model a gallery is bound to."""

from __future__ import annotations

from server.api.service import Service
from server.embedding.engine import Engine
from server.errors import ModelMismatch, ModelNotFound
from server.gallery.types import Gallery

__all__ = ["engine_of"]


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
