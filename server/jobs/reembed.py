"""Handler of ``reembed`` jobs: embed a gallery again with another model, from its thumbnails.

New vectors are stored beside the old ones, row by row: an item that is deleted or replaced in the meantime takes its
new vector with it, and an item that is added has none yet. Once every item has a new vector, the gallery switches to
the other model in one transaction and the old vectors are removed.

A thumbnail has at most 256 pixels a side and is a lossy JPEG, so its embedding differs from that of the original file.
"""

from __future__ import annotations

from datetime import datetime

from server.domain.errors import ThumbnailsMissing
from server.domain.fields import Wire
from server.domain.types import Reembedding, Vectors
from server.embedding.batcher import Priority
from server.embedding.engine import Embedding, Engine
from server.embedding.registry import Models
from server.gallery.galleries import Galleries
from server.jobs.imports.import_target import ImportTarget
from server.jobs.runner import Context
from server.storage.protocol import PendingReembedding, Store

__all__ = ["GROUP", "REEMBED", "Reembed", "ReembedParameters"]

REEMBED = "reembed"
"""The ``kind`` of these jobs."""

GROUP = 128
"""Number of items that are embedded, stored and recorded together."""


class ReembedParameters(Wire):
    """Parameters of the job; ``created_at`` is that of the gallery."""

    model: str
    created_at: datetime


class Reembed:
    """Rebinds galleries of ``store`` to other models."""

    def __init__(self, galleries: Galleries, store: Store, models: Models) -> None:
        self._galleries, self._store, self._models = galleries, store, models

    def run(self, context: Context) -> None:
        """See :class:`JobHandler`. A cursor is a row number of the store.

        Raises:
            ThumbnailsMissing: some items have no thumbnail; nothing was changed.
            ModelNotFound: the model is no longer loaded.
        """
        parameters = ReembedParameters.model_validate(context.job.parameters)
        name = context.job.gallery or ""
        gallery = ImportTarget(self._galleries, name, parameters.created_at).gallery()
        engine = self._models.get(parameters.model)
        card = engine.card
        if gallery.fingerprint != card.fingerprint:  # otherwise this job was interrupted after the switch
            self._galleries.query.require_thumbnails(name)
            reembedding = Reembedding(context.job.id, card.name, card.fingerprint, card.dimension)
            self._store.begin_reembedding(name, reembedding)
            context.set_total(gallery.items)
            self._embed_missing(context, name, engine, after=context.job.cursor or 0)
            self._galleries.catalog.switch_model(name, lambda: self._embed_missing(context, name, engine, after=0))
        self._store.end_reembedding(name)

    def _embed_missing(self, context: Context, name: str, engine: Engine, after: int) -> None:
        """Embed the items without a new vector in rows above ``after``."""
        while group := self._store.pending_reembedding(name, limit=GROUP, after=after):
            vectors = _embed(name, engine, group)
            self._store.store_reembedded(name, vectors)
            after = group[-1].row
            context.advance(after, done=len(group))


def _embed(name: str, engine: Engine, group: list[PendingReembedding]) -> dict[int, Vectors]:
    """Return the new vector of each row."""
    images = [one.thumbnail for one in group if one.thumbnail is not None]
    if len(images) < len(group):  # added since the job started
        raise ThumbnailsMissing(name, len(group) - len(images))
    outcome = engine.submit(images, [one.item.modality for one in group], Priority.IMPORT).result()
    vectors = {}
    for one, result in zip(group, outcome.results, strict=True):
        if not isinstance(result, Embedding):
            raise result
        vectors[one.row] = result.vector
    return vectors
