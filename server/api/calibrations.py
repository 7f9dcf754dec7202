"""Calibration of galleries on their own items."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server.api.app_state import StateDep
from server.api.auth import Searcher, Writer
from server.api.dependencies import ResolvedGallery
from server.api.errors import problems
from server.api.job_submission import submit
from server.api.jobs import to_job_status
from server.jobs.calibrate import CALIBRATE, CalibrateParameters
from server.storage.calibrations import GalleryCalibration
from vireid.schemas.calibrations import CalibrationDetails, CalibrationRequest, CalibrationsList, RatePoint
from vireid.schemas.jobs import JobStatus

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/calibrations", tags=["galleries"])


@router.post("", status_code=202, summary="Calibrate a gallery", responses=problems(404, 503, 507))
def calibrate_gallery(
    gallery: ResolvedGallery, body: CalibrationRequest, state: StateDep, caller: Writer, response: Response
) -> JobStatus:
    """Start a job that measures how high pairs of different people of this gallery score.

    Pairs are of items with different identities or, without labels, of disjoint cameras or of one camera at the same
    time. The result is a new version; searches use the newest that fits their modalities and the gallery's model.
    """
    found = state.galleries.catalog.get(gallery)
    parameters = CalibrateParameters(
        created_at=found.created_at,
        disjoint_cameras=tuple(map(tuple, body.disjoint_cameras)),
        simultaneous=body.simultaneous,
    )
    with state.jobs.pending() as pending:
        job = submit(state, caller, pending, CALIBRATE, found.name, parameters.model_dump(mode="json"))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return to_job_status(state, job)


@router.get("", summary="List the calibrations of a gallery", responses=problems(404))
def list_calibrations(gallery: ResolvedGallery, state: StateDep, _caller: Searcher) -> CalibrationsList:
    """Return the calibrations measured on this gallery, the newest version first."""
    found = state.galleries.catalog.get(gallery)
    seen: set[object] = set()
    details = []
    for one in state.calibrations.list(found.name):
        pair = (one.calibration.query, one.calibration.gallery)
        used = one.fingerprint == found.fingerprint and pair not in seen
        if used:
            seen.add(pair)
        details.append(_to_details(one, used=used))
    return CalibrationsList(calibrations=details)


def _to_details(one: GalleryCalibration, *, used: bool) -> CalibrationDetails:
    calibration = one.calibration
    intervals = calibration.intervals or [None] * len(calibration.rates)
    points = zip(calibration.scores, calibration.rates, intervals, strict=True)
    return CalibrationDetails(
        version=one.version,
        created_at=one.created_at,
        fingerprint=one.fingerprint,
        method=one.method,
        used=used,
        query=calibration.query,
        gallery=calibration.gallery,
        impostor_pairs=calibration.impostor_pairs,
        identities=calibration.identities,
        smallest_rate=calibration.smallest_rate,
        thresholds=calibration.thresholds,
        points=[RatePoint(score=score, rate=rate, interval=interval) for score, rate, interval in points],
    )
