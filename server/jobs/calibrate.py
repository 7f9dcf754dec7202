"""Handler of ``calibrate`` jobs: measure the false match rates of scores on a gallery's own items."""

from __future__ import annotations

from datetime import datetime

from server.domain.fields import Wire
from server.gallery.calibration import ImpostorRule
from server.gallery.galleries import Galleries
from server.jobs.imports.import_target import ImportTarget
from server.jobs.runner import Context
from server.storage.calibrations import CalibrationTable

__all__ = ["CALIBRATE", "Calibrate", "CalibrateParameters"]

CALIBRATE = "calibrate"
"""The ``kind`` of these jobs."""


class CalibrateParameters(Wire):
    """Parameters of the job; ``created_at`` is that of the gallery."""

    created_at: datetime
    disjoint_cameras: tuple[tuple[str, ...], ...] = ()
    simultaneous: bool = False


class Calibrate:
    """Measures calibrations of galleries and stores them in ``table``."""

    def __init__(self, galleries: Galleries, table: CalibrationTable) -> None:
        self._galleries, self._table = galleries, table

    def run(self, context: Context) -> None:
        """See :class:`JobHandler`.

        Raises:
            InvalidRequest: the gallery has too few items that are known to be of different people.
        """
        parameters = CalibrateParameters.model_validate(context.job.parameters)
        name = context.job.gallery or ""
        gallery = ImportTarget(self._galleries, name, parameters.created_at).gallery()
        rule = ImpostorRule(parameters.disjoint_cameras, parameters.simultaneous)
        found = self._galleries.query.calibrate(name, rule)
        context.check()
        self._table.record(gallery, rule.method, found)
