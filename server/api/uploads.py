"""Embedding of uploaded files: limits, timing, cancellation when the caller disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from models.card import Modality
from server.api.errors import TooManyImages, UploadsFailed
from server.api.trace import trace_of
from server.domain.errors import ServiceError
from server.domain.validation import invalid
from server.embedding.batcher import Priority
from server.embedding.engine import Detail, Embedding, Engine, Outcome
from vireid.schemas.fields import ModalityChoice

__all__ = ["check_count", "embed", "embed_all", "successes"]

Result = TypeVar("Result")

_DISCONNECT_CHECK_S = 0.25  # after which the connection of the caller is watched


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


async def _while_connected(request: Request, work: Future[Result]) -> Result:
    """Return the result of ``work``, or cancel it when the caller disconnects.

    Watching starts after a delay, within which most requests are finished.
    """
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
    later = loop.call_later(_DISCONNECT_CHECK_S, lambda: watching.append(loop.create_task(watch())))
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
