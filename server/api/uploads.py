"""From uploaded files to vectors, with what such routes share: counting, timing, giving up with the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from models.card import Modality
from server.api.errors import TooManyImages, UploadsFailed, invalid
from server.api.schemas import ModalityChoice
from server.api.trace import trace_of
from server.embedding.batcher import Priority
from server.embedding.engine import Detail, Embedding, Engine, Outcome
from server.errors import ServiceError

__all__ = ["check_count", "embed", "embed_all", "successes"]

Result = TypeVar("Result")

_PATIENCE_S = 0.25  # after which it is looked for whether a caller has left


def check_count(images: Sequence[bytes], limit: int) -> None:
    """Refuse more images than one request may bring.

    Raises:
        TooManyImages: there are more than ``limit``.
    """
    if len(images) > limit:
        raise TooManyImages(len(images), limit)


def per_image(choices: Sequence[ModalityChoice], images: int) -> list[Modality | None]:
    """The stated modality of each image; None: to be decided.

    Raises:
        InvalidRequest: there is neither one choice for all nor one for each.
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
    """Embed the files of a request and enter the time it took into its trace.

    Raises:
        ClientDisconnect: the caller has left; what had not reached the model was taken back.
        NotReady: the model's thread has ended.
    """
    outcome = await _while_connected(request, engine.submit(images, modalities, priority, details))
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
    """Embed files that are all needed.

    Raises:
        UploadsFailed: one of them is no image that can be used; each such file is named.
    """
    outcome = await embed(request, engine, images, per_image(choices, len(images)), details=details)
    found, failed = successes(outcome)
    if failed:
        raise UploadsFailed({f"images[{index}]": error for index, error in failed.items()})
    return list(found.values())


def successes(outcome: Outcome) -> tuple[dict[int, Embedding], Mapping[int, ServiceError]]:
    """Embeddings and errors by position."""
    found = {i: result for i, result in enumerate(outcome.results) if isinstance(result, Embedding)}
    failed = {i: result for i, result in enumerate(outcome.results) if not isinstance(result, Embedding)}
    return found, failed


async def _while_connected(request: Request, work: Future[Result]) -> Result:
    """The result of ``work``, which is cancelled when the caller leaves; most have theirs before that is looked for."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def settle() -> None:
        if not over.done():
            over.set_result(None)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        settle()

    watching: list[asyncio.Task[None]] = []
    later = loop.call_later(_PATIENCE_S, lambda: watching.append(loop.create_task(watch())))
    work.add_done_callback(lambda _: loop.call_soon_threadsafe(settle))
    try:
        await over
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        later.cancel()
        for task in watching:
            task.cancel()
        work.cancel()
