"""Calibrations measured on the items of galleries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from sqlalchemy import Engine, func, insert, select

from models.card import Calibration
from server.domain.errors import GalleryNotFound
from server.domain.types import Gallery
from server.storage import tables
from server.storage.sql_rows import find_gallery
from server.storage.transactions import reading, writing

__all__ = ["CalibrationTable", "GalleryCalibration"]

_columns = tables.calibrations.c


@dataclass(frozen=True, slots=True)
class GalleryCalibration:
    """A calibration of a gallery. Those of one measurement, one for each pair of modalities, have the same version.

    It holds for vectors of the model with ``fingerprint``.
    """

    version: int
    created_at: datetime
    fingerprint: str
    method: str
    calibration: Calibration


class CalibrationTable:
    """The calibrations in the database of an engine (``SqlStore.engine``); deleted with their gallery. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._cache: dict[str, tuple[Gallery, tuple[GalleryCalibration, ...]]] = {}

    def record(self, gallery: Gallery, method: str, calibrations: Sequence[Calibration]) -> int:
        """Store the calibrations of one measurement; return their version, one more than the last.

        Raises:
            GalleryNotFound: the gallery was deleted in the meantime.
        """
        with self._lock:
            with writing(self._engine) as connection:
                row = find_gallery(connection, gallery.name, lock=True)
                if row.created_at != gallery.created_at:
                    raise GalleryNotFound(gallery.name)
                last = select(func.max(_columns.version)).where(_columns.gallery == row.number)
                version = (connection.execute(last).scalar_one() or 0) + 1
                values = {
                    "gallery": row.number,
                    "version": version,
                    "created_at": datetime.now(UTC),
                    "fingerprint": gallery.fingerprint,
                    "method": method,
                }
                contents = [calibration.model_dump(mode="json") for calibration in calibrations]
                connection.execute(insert(tables.calibrations), [{**values, "content": one} for one in contents])
            self._cache.pop(gallery.name, None)
        return version

    def list(self, name: str) -> tuple[GalleryCalibration, ...]:
        """Return the calibrations of a gallery, the newest version first."""
        with reading(self._engine) as connection:
            number = find_gallery(connection, name).number
            query = select(tables.calibrations).where(_columns.gallery == number)
            rows = connection.execute(query.order_by(_columns.version.desc(), _columns.number)).all()
        return tuple(
            GalleryCalibration(
                row.version, row.created_at, row.fingerprint, row.method, Calibration.model_validate(row.content)
            )
            for row in rows
        )

    def fitting(self, gallery: Gallery) -> Sequence[tuple[int, Calibration]]:
        """Return version and calibration of those for the gallery's model, the newest first.

        They are cached as long as ``gallery`` is the same object, as ``GalleryCatalog.cached`` returns it.
        """
        with self._lock:
            known, found = self._cache.get(gallery.name, (None, ()))
            if known is not gallery:
                found = self.list(gallery.name)
                self._cache[gallery.name] = gallery, found
        return [(one.version, one.calibration) for one in found if one.fingerprint == gallery.fingerprint]
