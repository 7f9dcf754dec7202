"""Another model for a gallery that is in use."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server.api.auth import Writer
from server.api.bound import NamedGallery
from server.api.errors import invalid, problems
from server.api.imports import submit
from server.api.jobs import job_facts
from server.api.schemas import JobFacts, OtherModel
from server.api.service import ServiceDep
from server.jobs.reembed import REEMBED, ReembedParameters

__all__ = ["router"]

router = APIRouter(prefix="/v1/galleries/{gallery}/reembed", tags=["jobs"])


@router.post("", status_code=202, responses=problems(404, 409, 503, 507))
def reembed_gallery(
    gallery: NamedGallery, body: OtherModel, service: ServiceDep, caller: Writer, response: Response
) -> JobFacts:
    """Embed every item anew with another model, from its thumbnail, and bind the gallery to that model.

    Searches see the old embeddings until all new ones are there, then the new ones, at once. Every item needs a
    thumbnail. Embeddings of thumbnails, at most 256 pixels a side, differ from those of the originals.
    Of real crops they are about 0.97 alike (cosine).
    """
    bound, card = service.galleries.get(gallery), service.models.get(body.model).card
    if card.fingerprint == bound.fingerprint:
        raise invalid("model", "is the one that the gallery is bound to")
    service.galleries.require_thumbnails(gallery)
    parameters = ReembedParameters(model=card.name, created_at=bound.created_at)
    with service.jobs.draft() as draft:
        job = submit(service, caller, draft, REEMBED, bound.name, parameters)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job_facts(service, job)
