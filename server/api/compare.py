"""Comparison of two crops."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from server.api.app_state import StateDep
from server.api.auth import Searcher
from server.api.calibration import Calibrations
from server.api.errors import problems
from server.api.request_parsing import FORM, form_body, request_body
from server.api.uploads import embed_all
from vireid.schemas.compare import CompareForm, Comparison

__all__ = ["router"]

router = APIRouter(prefix="/v1/compare", tags=["embeddings"])


@router.post(
    "",
    summary="Compare two crops",
    responses=problems(404, 413, 415, 429, 503),
    openapi_extra=request_body({FORM: CompareForm}),
)
async def compare(
    request: Request,
    state: StateDep,
    caller: Searcher,
    body: Annotated[CompareForm, Depends(form_body(CompareForm))],
) -> Comparison:
    """Return the score of two crops, its false match rate, and which thresholds it passes."""
    engine = state.models.get(body.model)
    with state.admission.admit(body.images, caller.key_id):
        first, second = await embed_all(request, engine, body.images, body.modality)
    score = max(-1.0, min(1.0, float(first.vector @ second.vector)))
    fitting = Calibrations(engine.card).find(first.modality, second.modality)
    estimate = None if fitting is None else fitting.estimate(score)
    thresholds = {} if fitting is None else fitting.calibration.thresholds
    return Comparison(
        model=engine.card.name,
        fingerprint=engine.card.fingerprint,
        modality=[first.modality, second.modality],
        score=score,
        false_match_rate=estimate and estimate.rate,
        false_match_rate_interval=estimate and estimate.interval,
        below=estimate is not None and estimate.below,
        calibration=fitting and fitting.used,
        same_at=fitting and {rate: None if least is None else score >= least for rate, least in thresholds.items()},
    )
