"""The job kind ``import``: what was uploaded, or a folder, into a gallery."""

from __future__ import annotations

from datetime import datetime, tzinfo
from enum import StrEnum
from pathlib import Path

from server.domain.errors import ArchiveRejected, ModelMismatch
from server.domain.fields import ModalityChoice, Wire
from server.domain.types import Gallery
from server.embedding.registry import Models
from server.gallery.galleries import Galleries
from server.jobs.imports.archive_entries import Source
from server.jobs.imports.directory import DirectorySource, below_a_root
from server.jobs.imports.images import Labels, import_images
from server.jobs.imports.import_target import ImportTarget, OnConflict
from server.jobs.imports.labels import zone_of
from server.jobs.imports.pattern import PathPattern
from server.jobs.imports.tar import TarSource
from server.jobs.imports.vectors import import_vectors
from server.jobs.imports.zip import ZipSource
from server.jobs.runner import Context
from server.jobs.upload import Upload
from server.storage.encryption import Encryption, NotDecrypted

__all__ = ["BODY", "IMPORT", "Format", "Import", "ImportParameters", "stored_upload"]

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
    """Parameters of the job; ``created_at`` and ``fingerprint`` are those of the gallery.

    The defaults are what jobs of earlier versions did.
    """

    format: Format
    created_at: datetime
    fingerprint: str
    modality: ModalityChoice = ModalityChoice.AUTO
    pattern: str | None = None
    directory: Path | None = None
    follow_links: bool = False
    timezone: str | None = None
    on_conflict: OnConflict = OnConflict.REPLACE


class Import:
    """Runs imports into ``galleries`` by ``models``; folders must lie below ``roots``."""

    def __init__(
        self,
        galleries: Galleries,
        models: Models,
        roots: tuple[Path, ...],
        max_image_bytes: int,
        encryption: Encryption,
    ) -> None:
        self._galleries, self._models, self._roots, self._max_bytes = galleries, models, roots, max_image_bytes
        self._encryption = encryption

    def run(self, context: Context) -> None:
        """See :class:`JobHandler`."""
        options = ImportParameters.model_validate(context.job.parameters)
        target = ImportTarget(self._galleries, context.job.gallery or "", options.created_at, options.on_conflict)
        gallery = target.gallery()
        if options.format.of_images:
            self._import_images(context, options, target, gallery)
        elif gallery.fingerprint != options.fingerprint:  # bound to another model since the request
            raise ModelMismatch(gallery.name, gallery.fingerprint, options.fingerprint)
        else:
            upload = stored_upload(context.folder, self._encryption)
            import_vectors(context, options.format.value, upload, target, _zone(options))
        _require_success(context)

    def _import_images(
        self, context: Context, options: ImportParameters, target: ImportTarget, gallery: Gallery
    ) -> None:
        engine = self._models.of_fingerprint(gallery.fingerprint)
        if engine is None:
            raise ModelMismatch(gallery.name, gallery.fingerprint, "another model after a restart")
        pattern = None if options.pattern is None else PathPattern(options.pattern)
        labels = Labels(options.modality, pattern, _zone(options))
        import_images(context, self._source(options, context.folder), target, engine, labels, self._max_bytes)

    def _source(self, options: ImportParameters, job_folder: Path) -> Source:
        if options.format is Format.DIRECTORY:
            folder = below_a_root(options.directory or Path(), self._roots)
            return DirectorySource(folder, self._roots if options.follow_links else ())
        upload = stored_upload(job_folder, self._encryption)
        return TarSource(upload) if options.format is Format.TAR else ZipSource(upload)


def stored_upload(job_folder: Path, encryption: Encryption) -> Upload:
    """Return the upload of a job.

    Raises:
        ArchiveRejected: it is gone, or the key that encrypts it is.
    """
    try:
        return Upload.at(job_folder / BODY, encryption)
    except FileNotFoundError:
        raise ArchiveRejected("the upload no longer exists; send it again") from None
    except NotDecrypted:
        raise ArchiveRejected("the key that encrypts the upload is missing; send it again") from None


def _zone(options: ImportParameters) -> tzinfo | None:
    return None if options.timezone is None else zone_of(options.timezone)


def _require_success(context: Context) -> None:
    """Fail the job if there was something to import and none of it is in the gallery now."""
    job = context.stored()
    if job.done or job.skipped:
        return
    reasons = job.failures_by_reason.most_common() or job.ignored.most_common()
    if job.failed:
        raise ArchiveRejected(f"none of {job.failed:,} entries could be imported; most often: {reasons[0].reason}")
    if job.ignored.total:
        count, reason = job.ignored.total, reasons[0].reason
        raise ArchiveRejected(f"it holds nothing to import; {count:,} entries were ignored, most often: {reason}")
