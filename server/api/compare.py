"""Two crops: the same person?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from server.api.auth import Searcher
from server.api.bodies import FORM, documented, form
from server.api.errors import problems
from server.api.schemas import CompareForm, Comparison
from server.api.service import ServiceDep
from server.api.uploads import embed_all

__all__ = ["router"]

router = APIRouter(prefix="/v1/compare", tags=["embeddings"])


@router.post("", responses=problems(404, 413, 415, 429, 503), openapi_extra=documented({FORM: CompareForm}))
async def compare(
    request: Request,
    service: ServiceDep,
    _caller: Searcher,
    body: Annotated[CompareForm, Depends(form(CompareForm))],
) -> Comparison:
    """Cosine of two crops, and what it means: how often different people score as high."""
    engine = service.models.get(body.model)
    with service.admission.admit(len(body.images)):
        first, second = await embed_all(request, engine, body.images, body.modality)
    score = max(-1.0, min(1.0, float(first.vector @ second.vector)))
    calibration = engine.card.calibration(first.modality, second.modality)
    return Comparison(
        model=engine.card.name,
        fingerprint=engine.card.fingerprint,
        modality=[first.modality, second.modality],
        score=score,
        false_match_rate=calibration and calibration.false_match_rate(score),
        same_at=calibration
        and {rate: None if least is None else score >= least for rate, least in calibration.thresholds.items()},
    )
