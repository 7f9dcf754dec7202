"""The job kind ``import``: what was uploaded, or a folder, into a gallery."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path

from server.embedding.registry import Models
from server.errors import ArchiveRejected, ModelMismatch
from server.fields import ModalityChoice, Wire
from server.gallery.service import Galleries
from server.jobs.imports.directory import DirectorySource, below_a_root
from server.jobs.imports.entries import Source
from server.jobs.imports.gallery import Target
from server.jobs.imports.images import import_images
from server.jobs.imports.pattern import PathPattern
from server.jobs.imports.tar import TarSource
from server.jobs.imports.vectors import NdjsonVectors, ParquetVectors, import_vectors
from server.jobs.imports.zip import ZipSource
from server.jobs.runner import Context

__all__ = ["BODY", "IMPORT", "Format", "Import", "ImportParameters"]

IMPORT = "import"
"""Name of the kind."""

BODY = "body"
"""Name of the uploaded file in the folder of its job."""


class Format(StrEnum):
    """What an import reads."""

    TAR = "tar"
    """Plain or gzipped."""
    ZIP = "zip"
    DIRECTORY = "directory"
    NDJSON = "ndjson"
    PARQUET = "parquet"

    @property
    def of_images(self) -> bool:
        """Whether it brings crops to embed, not vectors."""
        return self in (Format.TAR, Format.ZIP, Format.DIRECTORY)


class ImportParameters(Wire):
    """What the job must know; ``created_at`` and ``fingerprint`` are the gallery's."""

    format: Format
    created_at: datetime
    fingerprint: str
    modality: ModalityChoice = ModalityChoice.AUTO
    pattern: str | None = None
    directory: Path | None = None


class Import:
    """Runs imports into ``galleries`` by ``models``; folders must lie below ``roots``."""

    def __init__(self, galleries: Galleries, models: Models, roots: tuple[Path, ...], max_image_bytes: int) -> None:
        self._galleries, self._models, self._roots, self._max_bytes = galleries, models, roots, max_image_bytes

    def run(self, context: Context) -> None:
        """See :class:`Kind`."""
        wanted = ImportParameters.model_validate(context.job.parameters)
        target = Target(self._galleries, context.job.gallery or "", wanted.created_at)
        gallery = target.gallery()
        body = context.folder / BODY
        if wanted.format is not Format.DIRECTORY and not body.exists():
            raise ArchiveRejected("the upload is gone; send it again")
        if not wanted.format.of_images and gallery.fingerprint != wanted.fingerprint:
            raise ModelMismatch(gallery.name, gallery.fingerprint, wanted.fingerprint)  # bound to another one meanwhile
        if wanted.format is Format.NDJSON:
            import_vectors(context, NdjsonVectors(body), target)
        elif wanted.format is Format.PARQUET:
            import_vectors(context, ParquetVectors(body), target)
        else:
            engine = self._models.of_fingerprint(gallery.fingerprint)
            if engine is None:
                raise ModelMismatch(gallery.name, gallery.fingerprint, "another model after a restart")
            import_images(
                context,
                self._source(wanted, body),
                target,
                engine,
                modality=wanted.modality,
                pattern=None if wanted.pattern is None else PathPattern(wanted.pattern),
                max_bytes=self._max_bytes,
            )

    def _source(self, wanted: ImportParameters, body: Path) -> Source:
        if wanted.format is Format.TAR:
            return TarSource(body)
        if wanted.format is Format.ZIP:
            return ZipSource(body)
        return DirectorySource(below_a_root(wanted.directory or Path(), self._roots))
