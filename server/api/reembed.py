"""Re-embedding of a gallery with another model while it is in use."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server.api.app_state import StateDep
from server.api.auth import Writer
from server.api.dependencies import ResolvedGallery
from server.api.errors import problems
from server.api.job_submission import submit
from server.api.jobs import to_job_status
from server.domain.validation import invalid
from server.jobs.reembed import REEMBED, ReembedParameters
from vireid.schemas.imports import ReembedRequest
from vireid.schemas.jobs import JobStatus

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/reembed", tags=["jobs"])


@router.post("", status_code=202, summary="Re-embed a gallery", responses=problems(404, 409, 503, 507))
def reembed_gallery(
    gallery: ResolvedGallery, body: ReembedRequest, state: StateDep, caller: Writer, response: Response
) -> JobStatus:
    """Start a job that embeds every item with another model, from its thumbnail, and binds the gallery to that model.

    Searches use the old embeddings until all new ones are stored, then switch to the new ones at once. Every item
    needs a thumbnail. Thumbnails have at most 256 pixels per side, so their embeddings differ from those of the
    original images: for real crops their cosine is about 0.97.
    """
    found, card = state.galleries.catalog.get(gallery), state.models.get(body.model).card
    if card.fingerprint == found.fingerprint:
        raise invalid("model", "is the one that the gallery is bound to")
    state.galleries.query.require_thumbnails(gallery)
    parameters = ReembedParameters(model=card.name, created_at=found.created_at)
    with state.jobs.pending() as pending:
        job = submit(state, caller, pending, REEMBED, found.name, parameters.model_dump(mode="json"))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return to_job_status(state, job)
