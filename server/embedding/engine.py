"""Embedding of uploaded image files: each is decoded in a bounded pool, then batched for the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from hashlib import sha256
from typing import Any

from models.card import Card, Modality, Precision
from server.domain.errors import EmbeddingFailed, ImageRejected, ImageTooLarge, NotReady
from server.domain.types import CropWarning
from server.embedding.batcher import SHUTTING_DOWN, Batcher, InferenceResult, Priority
from server.embedding.decode import decode_file, thumbnail
from server.embedding.image_file import inspect
from server.embedding.isolation import IsolatedDecoders
from server.embedding.modality import detect_modality
from server.embedding.quality import crop_warnings
from server.embedding.resize import Pixels, resize, to_grey
from server.embedding.session import Embedder, Vectors

__all__ = ["Detail", "Embedding", "Engine", "ImageLimits", "Outcome"]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on one image file."""

    max_bytes: int
    max_pixels: int


class Detail(Enum):
    """Optional parts of a result. Each costs time and is computed only on request."""

    THUMBNAIL = auto()
    WARNINGS = auto()
    CONTENT = auto()


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit vector float32 ``[D]``, the stated or detected modality, and the requested details.

    ``content`` is the SHA-256 of the file, in hexadecimal.
    """

    vector: Vectors
    modality: Modality
    thumbnail: bytes | None = None
    warnings: frozenset[CropWarning] = frozenset()
    content: str | None = None


Result = Embedding | ImageRejected | EmbeddingFailed


@dataclass(frozen=True, slots=True)
class Outcome:
    """One result per file, in order, and timings in seconds.

    ``decode_s`` is the time until the last image was decoded; ``queue_s`` and ``embed_s`` are maxima over the images.
    """

    results: tuple[Result, ...]
    decode_s: float
    queue_s: float
    embed_s: float


class Engine:
    """One model, with a batcher and decoders that all engines share.

    Each priority has decoding threads of its own, so that queries do not wait for imports. Images that may take long
    are decoded by ``isolated``.
    """

    def __init__(
        self,
        embedder: Embedder,
        batcher: Batcher,
        decoders: Mapping[Priority, Executor],
        isolated: IsolatedDecoders,
        limits: ImageLimits,
    ) -> None:
        self._embedder, self._batcher, self._limits = embedder, batcher, limits
        self._decoders, self._isolated = decoders, isolated
        depth = embedder.card.input.depth
        self._percentiles = depth.low, depth.high

    @property
    def card(self) -> Card:
        """The model card."""
        return self._embedder.card

    @property
    def provider(self) -> str:
        """The execution provider in use."""
        return self._embedder.provider

    @property
    def precision(self) -> Precision:
        """The number format of the computation."""
        return self._embedder.precision

    def submit(
        self,
        uploads: Sequence[bytes],
        modalities: Sequence[Modality | None],
        priority: Priority,
        details: Collection[Detail] = (),
    ) -> Future[Outcome]:
        """Start embedding image files; a modality of ``None`` is detected from the pixels.

        An invalid image yields an error as its own result. Images pass from thread to thread without returning to the
        caller's, so that a call costs one wake-up however many images it has. Cancelling the future drops the images
        that have not reached the model.

        The future fails with ``NotReady`` if the inference threads have ended.
        """
        call = _PendingCall(len(uploads))
        for index, (data, modality) in enumerate(zip(uploads, modalities, strict=True)):
            image = _Upload(call, index, data, modality, priority, details)
            work = self._decoders[priority].submit(self._begin, image)
            work.add_done_callback(partial(call.on_decoded, index))
        return call.outcome

    def _begin(self, upload: _Upload) -> None:
        """Decode a simple image, or hand it over to the isolated decoders."""
        if upload.call.outcome.cancelled():
            return
        limits = self._limits
        try:
            if len(upload.data) > limits.max_bytes:
                raise ImageTooLarge(f"{len(upload.data):,} bytes; at most {limits.max_bytes:,} bytes are accepted")
            file = inspect(upload.data, limits.max_pixels)
            if not file.simple:
                decoded = self._isolated.submit(
                    upload.data, upload.priority, max_pixels=limits.max_pixels, percentiles=self._percentiles
                )
                upload.call.add_pending(decoded)
                decoded.add_done_callback(partial(self._on_isolated, upload))
                return
            image = decode_file(file, limits.max_pixels, self._percentiles)
        except Exception as error:
            upload.call.set_result(upload.index, error)
        else:
            self._enqueue(upload, image)

    def _on_isolated(self, upload: _Upload, decoded: Future[Pixels]) -> None:
        if decoded.cancelled():
            upload.call.set_result(upload.index, NotReady([SHUTTING_DOWN]))
        elif (error := decoded.exception()) is not None:
            upload.call.set_result(upload.index, error)
        else:
            self._enqueue(upload, decoded.result())

    def _enqueue(self, upload: _Upload, image: Pixels) -> None:
        """Queue a decoded image for the model, then compute its details while it waits."""
        call, index, details = upload.call, upload.index, upload.details
        try:
            pixels, modality = self._model_input(image, upload.modality)
            embedded = self._batcher.submit(self.card.name, pixels, modality, upload.priority)
            call.add_pending(embedded)
            build_result = partial(
                Embedding,
                modality=modality,
                thumbnail=thumbnail(image) if Detail.THUMBNAIL in details else None,
                warnings=crop_warnings(image, self.card.input) if Detail.WARNINGS in details else frozenset(),
                content=sha256(upload.data).hexdigest() if Detail.CONTENT in details else None,
            )
        except Exception as error:
            call.set_result(index, error)
        else:
            embedded.add_done_callback(partial(call.on_embedded, index, build_result))

    def _model_input(self, image: Pixels, modality: Modality | None) -> tuple[Pixels, Modality]:
        """Return the model's input and the modality. Infrared crops become grey even if tinted, as in training."""
        if modality is not Modality.INFRARED:
            pixels = resize(image, self.card.input)
            modality = modality or detect_modality(pixels)
        if modality is Modality.INFRARED:
            pixels = resize(to_grey(image), self.card.input)
        return pixels, modality


@dataclass(frozen=True, slots=True)
class _Upload:
    """One image of a call."""

    call: _PendingCall
    index: int
    data: bytes
    modality: Modality | None
    priority: Priority
    details: Collection[Detail]


class _PendingCall:
    """The images of one call. Each gets its result from the thread that finishes it; the last completes the outcome."""

    def __init__(self, images: int) -> None:
        self.outcome: Future[Outcome] = Future()
        self._results: list[Result | None] = [None] * images
        self._unfinished = images
        self._failure: BaseException | None = None
        self._pending: list[Future[Any]] = []
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._decode_s = self._queue_s = self._embed_s = 0.0
        self.outcome.add_done_callback(self._cancel_pending)
        if not images:
            self._finish()

    def add_pending(self, work: Future[Any]) -> None:
        """Register an image that waits for a decoding process, or is decoded and waits for the model."""
        with self._lock:
            self._decode_s = time.monotonic() - self._started
            self._pending.append(work)
        if self.outcome.cancelled():
            work.cancel()

    def on_embedded(self, index: int, build_result: Callable[..., Embedding], done: Future[InferenceResult]) -> None:
        """Set the result of an image that the model has finished; ``build_result`` lacks only the vector."""
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self.set_result(index, error)
            return
        result = done.result()
        with self._lock:
            self._queue_s, self._embed_s = max(self._queue_s, result.queue_s), max(self._embed_s, result.embed_s)
        self.set_result(index, build_result(vector=result.vector))

    def on_decoded(self, index: int, work: Future[None]) -> None:
        """Fail an image whose decoding was cancelled because the server is shutting down."""
        if work.cancelled():
            self.set_result(index, NotReady([SHUTTING_DOWN]))

    def set_result(self, index: int, result: Embedding | BaseException) -> None:
        """Set the result of an image. An error that is not specific to the image fails the whole call."""
        with self._lock:
            if isinstance(result, Embedding | ImageRejected | EmbeddingFailed):
                self._results[index] = result
            else:
                self._failure = result
            self._unfinished -= 1
            last = not self._unfinished
        if last:
            self._finish()

    def _finish(self) -> None:
        if not self.outcome.set_running_or_notify_cancel():
            return
        if self._failure is not None:
            self.outcome.set_exception(self._failure)
            return
        results = tuple(result for result in self._results if result is not None)
        self.outcome.set_result(Outcome(results, self._decode_s, self._queue_s, self._embed_s))

    def _cancel_pending(self, outcome: Future[Outcome]) -> None:
        if outcome.cancelled():
            with self._lock:
                pending = list(self._pending)
            for work in pending:
                work.cancel()
