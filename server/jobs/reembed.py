"""The job kind ``reembed``: a gallery's vectors made anew by another model, from its thumbnails.

The new vectors come together beside the old ones, row by row, so an item that is deleted or replaced meanwhile takes
its new vector along, and an item that is added simply lacks one still. When none lacks it the gallery changes over, in
one transaction, and the old vectors are removed.

A thumbnail has at most 256 pixels a side and lost some detail to JPEG, so vectors differ from those of the
original files.
"""

from __future__ import annotations

from datetime import datetime

from server.embedding.batcher import Priority
from server.embedding.engine import Embedding, Engine
from server.embedding.registry import Models
from server.errors import ThumbnailsMissing
from server.fields import Wire
from server.gallery.protocol import Store, Unrenewed
from server.gallery.service import Galleries
from server.gallery.types import Renewal, Vectors
from server.jobs.imports.gallery import Target
from server.jobs.runner import Context

__all__ = ["GROUP", "REEMBED", "Reembed", "ReembedParameters"]

REEMBED = "reembed"
"""Name of the kind."""

GROUP = 128
"""Items that are embedded, stored and noted as one."""


class ReembedParameters(Wire):
    """What the job must know; ``created_at`` is the gallery's."""

    model: str
    created_at: datetime


class Reembed:
    """Binds galleries of ``store`` to others of ``models``."""

    def __init__(self, galleries: Galleries, store: Store, models: Models) -> None:
        self._galleries, self._store, self._models = galleries, store, models

    def run(self, context: Context) -> None:
        """See :class:`Kind`. A position is a row of the store.

        Raises:
            ThumbnailsMissing: there are items without a thumbnail; nothing was changed.
            ModelNotFound: the model is not loaded any more.
        """
        wanted = ReembedParameters.model_validate(context.job.parameters)
        name = context.job.gallery or ""
        gallery = Target(self._galleries, name, wanted.created_at).gallery()
        engine = self._models.get(wanted.model)
        card = engine.card
        if gallery.fingerprint != card.fingerprint:  # else this job was interrupted after the change
            self._galleries.require_thumbnails(name)
            renewal = Renewal(context.job.id, card.name, card.fingerprint, card.dimension)
            self._store.begin_renewal(name, renewal)
            context.set_total(gallery.items)
            self._renew(context, name, engine, after=context.job.cursor or 0)
            self._galleries.switch(name, lambda: self._renew(context, name, engine, after=0))
        self._store.end_renewal(name)

    def _renew(self, context: Context, name: str, engine: Engine, after: int) -> None:
        """Make the vectors that are lacking in rows behind ``after``."""
        while group := self._store.unrenewed(name, limit=GROUP, after=after):
            vectors = _embedded(name, engine, group)
            self._store.renew(name, vectors)
            after = group[-1].row
            context.advance(after, done=len(group))


def _embedded(name: str, engine: Engine, group: list[Unrenewed]) -> dict[int, Vectors]:
    """Vectors by row."""
    images = [one.thumbnail for one in group if one.thumbnail is not None]
    if len(images) < len(group):  # added since the job began
        raise ThumbnailsMissing(name, len(group) - len(images))
    outcome = engine.submit(images, [one.item.modality for one in group], Priority.IMPORT).result()
    vectors = {}
    for one, result in zip(group, outcome.results, strict=True):
        if not isinstance(result, Embedding):
            raise result
        vectors[one.row] = result.vector
    return vectors
