"""Embedding of uploaded files: limits and timing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fastapi import Request

from models.card import Modality
from server.api.app_state import state_of
from server.api.errors import TooManyImages, UploadsFailed
from server.api.trace import trace_of
from server.api.waiting import while_connected
from server.domain.errors import ServiceError
from server.domain.validation import invalid
from server.embedding.batcher import Priority
from server.embedding.engine import Detail, Embedding, Engine, Outcome
from vireid.schemas.fields import ModalityChoice

__all__ = ["check_count", "embed", "embed_all", "successes"]


def check_count(images: Sequence[bytes], limit: int) -> None:
    """Check the number of images of a request.

    Raises:
        TooManyImages: there are more than ``limit``.
    """
    if len(images) > limit:
        raise TooManyImages(len(images), limit)


def per_image(choices: Sequence[ModalityChoice], images: int) -> list[Modality | None]:
    """Return the stated modality of each image; None: to be detected.

    Raises:
        InvalidRequest: there is neither one value for all images nor one for each.
    """
    if len(choices) not in (1, images):
        raise invalid("modality", f"must be given once, or once for each of the {images} images; found {len(choices)}")
    stated = [choice.stated for choice in choices]
    return stated * images if len(stated) == 1 else stated


async def embed(
    request: Request,
    engine: Engine,
    images: Sequence[bytes],
    modalities: Sequence[Modality | None],
    priority: Priority = Priority.QUERY,
    details: Collection[Detail] = (),
) -> Outcome:
    """Embed the files of a request and record the time in its trace.

    Raises:
        ClientDisconnect: the caller has disconnected; files that had not reached the model were withdrawn.
        DeadlineExceeded: the time of the request is over; those files were withdrawn too.
        NotReady: the model's thread has ended.
    """
    limit_s = state_of(request.scope).pools.limit_s
    outcome = await while_connected(request, engine.submit(images, modalities, priority, details), limit_s)
    seconds = trace_of(request).seconds
    seconds["decode"], seconds["queue"], seconds["embed"] = outcome.decode_s, outcome.queue_s, outcome.embed_s
    return outcome


async def embed_all(
    request: Request,
    engine: Engine,
    images: Sequence[bytes],
    choices: Sequence[ModalityChoice],
    details: Collection[Detail] = (),
) -> list[Embedding]:
    """Embed files, all of which are needed.

    Raises:
        UploadsFailed: some files are not valid images; the error names each of them.
    """
    outcome = await embed(request, engine, images, per_image(choices, len(images)), details=details)
    found, failed = successes(outcome)
    if failed:
        raise UploadsFailed({f"images[{index}]": error for index, error in failed.items()})
    return list(found.values())


def successes(outcome: Outcome) -> tuple[dict[int, Embedding], Mapping[int, ServiceError]]:
    """Return the embeddings and the errors by position."""
    found = {i: result for i, result in enumerate(outcome.results) if isinstance(result, Embedding)}
    failed = {i: result for i, result in enumerate(outcome.results) if not isinstance(result, Embedding)}
    return found, failed
