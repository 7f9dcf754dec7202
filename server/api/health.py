"""Liveness, readiness and metrics."""

from __future__ import annotations

from importlib.metadata import version

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from server.api.app_state import AppState, StateDep
from server.api.auth import Reader
from server.api.errors import problem_response, problems
from server.domain.errors import NotReady
from vireid.schemas.health import GalleryReadiness, LoadProgress, ModelReadiness, Readiness

__all__ = ["router"]

router = APIRouter(tags=["service"])


@router.get("/healthz", summary="Check liveness")
async def healthz() -> dict[str, str]:
    """Return 200 while the event loop responds."""
    return {"status": "alive"}


@router.get("/readyz", summary="Check readiness", response_model=Readiness, responses=problems(503))
async def readyz(request: Request, state: StateDep) -> Response:
    """Return 200 with the state of the server when it is ready, otherwise a problem with the reasons.

    The problem holds the same state in its member `facts`.
    """
    readiness = await anyio.to_thread.run_sync(_readiness, state, limiter=state.pools.readiness)
    content = readiness.model_dump(mode="json")
    if not readiness.ready:
        return problem_response(request, NotReady(readiness.reasons), facts=content)
    return JSONResponse(content)


def _readiness(state: AppState) -> Readiness:
    reasons, recalls = state.problems(), state.galleries.maintenance.recalls()
    names_are_public = not state.settings.auth_required
    return Readiness(
        ready=not reasons,
        reasons=reasons,
        models=[
            ModelReadiness(
                name=engine.card.name,
                fingerprint=engine.card.fingerprint,
                provider=engine.provider,
                precision=engine.precision,
            )
            for engine in state.models
        ],
        galleries={
            name: GalleryReadiness(
                store_sequence=stored,
                index_sequence=indexed,
                index="exact" if recalls.get(name) is None else "ivf",
                recall=recalls.get(name),
            )
            for name, (stored, indexed) in state.galleries.loader.progress().items()
        }
        if names_are_public
        else None,
        load={
            name: LoadProgress(done=done, total=total)
            for name, (done, total) in state.galleries.loader.unloaded().items()
        }
        if names_are_public
        else None,
        recall=min((recall for recall in recalls.values() if recall is not None), default=None),
        queue_depth=state.models.batcher.depth,
        version=version("vireid"),
    )


@router.get(
    "/metrics",
    summary="Get the metrics",
    response_class=Response,
    responses=problems() | {200: {"content": {"text/plain": {}}}},
)
def metrics(state: StateDep, _caller: Reader) -> Response:
    """Return the metrics in the text format of Prometheus. Any API key may read them."""
    return Response(state.metrics.page(), media_type=CONTENT_TYPE_LATEST)
