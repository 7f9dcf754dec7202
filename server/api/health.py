"""Alive, ready, measured."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from server.api.auth import Reader
from server.api.errors import problem_response, problems
from server.api.schemas import GalleryReadiness, LoadProgress, ModelReadiness, Readiness
from server.api.service import ServiceDep
from server.errors import NotReady

__all__ = ["router"]

router = APIRouter(tags=["service"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Alive: the event loop answers."""
    return {"status": "alive"}


@router.get("/readyz", response_model=Readiness, responses=problems(503))
def readyz(request: Request, service: ServiceDep) -> Response:
    """Ready, with the facts; otherwise a problem with reasons, and the same facts as its member `facts`."""
    reasons = service.problems()
    names_are_public = not service.settings.auth_required
    recalls = service.galleries.recalls()
    facts = Readiness(
        ready=not reasons,
        reasons=reasons,
        models=[
            ModelReadiness(
                name=engine.card.name,
                fingerprint=engine.card.fingerprint,
                provider=engine.provider,
                precision=engine.precision,
            )
            for engine in service.models
        ],
        galleries={
            name: _gallery(stored, indexed, recalls.get(name))
            for name, (stored, indexed) in service.galleries.progress().items()
        }
        if names_are_public
        else None,
        load={
            name: LoadProgress(done=done, total=total) for name, (done, total) in service.galleries.unloaded().items()
        }
        if names_are_public
        else None,
        recall=min((recall for recall in recalls.values() if recall is not None), default=None),
        queue_depth=service.models.batcher.depth,
        version=version("vireid"),
    ).model_dump(mode="json")
    return problem_response(request, NotReady(reasons), facts=facts) if reasons else JSONResponse(facts)


def _gallery(stored: int, indexed: int, recall: float | None) -> GalleryReadiness:
    kind = "exact" if recall is None else "ivf"
    return GalleryReadiness(store_sequence=stored, index_sequence=indexed, index=kind, recall=recall)


@router.get("/metrics", response_class=Response, responses=problems() | {200: {"content": {"text/plain": {}}}})
def metrics(service: ServiceDep, _caller: Reader) -> Response:
    """Metrics for Prometheus; any key may read them."""
    return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)
