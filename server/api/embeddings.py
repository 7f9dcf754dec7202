"""Embedding of crops."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from fastapi import APIRouter, Request, Response

from server.api.app_state import StateDep
from server.api.auth import Searcher
from server.api.errors import UploadsFailed, describe, problems
from server.api.request_parsing import FORM, JSON, read_form, request_body
from server.api.uploads import check_count, embed, per_image, successes
from server.embedding.session import Vectors
from vireid.schemas.embeddings import EmbeddingFailure, EmbeddingRow, Embeddings, EmbeddingsForm

__all__ = ["router"]

NPY = "application/x-npy"

router = APIRouter(prefix="/v1/embeddings", tags=["embeddings"])


@router.post(
    "",
    summary="Embed crops",
    response_model=Embeddings,
    responses=problems(404, 413, 415, 429, 503)
    | {
        200: {"content": {NPY: {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}}},
        207: {"model": Embeddings, "description": "Some images failed, the others were embedded"},
    },
    openapi_extra=request_body({FORM: EmbeddingsForm}),
)
async def embed_images(request: Request, state: StateDep, caller: Searcher) -> Response:
    """Embed crops. An invalid image does not affect the others.

    With `Accept: application/x-npy` the response is a float32 array of shape [N, D], and an invalid image is an error
    of the request.
    """
    body = await read_form(request, EmbeddingsForm)
    check_count(body.images, state.settings.max_images)
    engine = state.models.get(body.model)
    modalities = per_image(body.modality, len(body.images))
    with state.admission.admit(body.images, caller.key_id):
        outcome = await embed(request, engine, body.images, modalities)
    embedded, failed = successes(outcome)
    as_array = NPY in request.headers.get("accept", "")
    if failed and (as_array or not embedded):
        raise UploadsFailed({f"images[{index}]": error for index, error in failed.items()})
    if as_array:
        return Response(_npy([row.vector for row in embedded.values()]), media_type=NPY)
    answer = Embeddings(
        model=engine.card.name,
        fingerprint=engine.card.fingerprint,
        dimension=engine.card.dimension,
        embeddings=[
            EmbeddingRow(index=index, modality=row.modality, vector=row.vector.tolist())
            for index, row in embedded.items()
        ],
        errors=[EmbeddingFailure(index=index, error=describe(error)) for index, error in failed.items()],
    )
    return Response(answer.model_dump_json(), 207 if failed else 200, media_type=JSON)


def _npy(vectors: Sequence[Vectors]) -> bytes:
    return _npy_header(len(vectors), len(vectors[0])) + b"".join(vector.tobytes() for vector in vectors)


@cache
def _npy_header(rows: int, columns: int) -> bytes:
    """Return what ``np.save`` writes before the values of a float32 array ``[rows, columns]``."""
    out = io.BytesIO()
    np.save(out, np.empty((rows, columns), np.float32), allow_pickle=False)
    return out.getvalue()[: -4 * rows * columns]
