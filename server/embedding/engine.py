"""Uploads in, vectors out: decoding in a bounded pool, image by image, then one batched model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from hashlib import sha256

from models.card import Card, Modality, Precision
from server.embedding.batcher import Batcher, Embedded, Priority
from server.embedding.decode import open_upright, thumbnail
from server.embedding.modality import modality_of
from server.embedding.quality import warnings_of
from server.embedding.resize import Pixels, grey, resize
from server.embedding.session import Embedder, Vectors
from server.errors import EmbeddingFailed, ImageRejected, ImageTooLarge, NotReady
from server.gallery.types import CropWarning

__all__ = ["Detail", "Embedding", "Engine", "ImageLimits", "Outcome"]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one upload may be."""

    max_bytes: int
    max_pixels: int


class Detail(Enum):
    """What may be told of a crop besides its vector. Each costs time, so each is told on demand."""

    THUMBNAIL = auto()
    WARNINGS = auto()
    CONTENT = auto()


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit vector float32 ``[D]``, the modality stated or decided, and the details that were wanted.

    ``warnings`` say what may be wrong with the crop, ``content`` is the SHA-256 of its file, in hex.
    """

    vector: Vectors
    modality: Modality
    thumbnail: bytes | None = None
    warnings: frozenset[CropWarning] = frozenset()
    content: str | None = None


Result = Embedding | ImageRejected | EmbeddingFailed


@dataclass(frozen=True, slots=True)
class Outcome:
    """One result an upload, in their order, and the seconds that went by.

    ``decode_s``: until the last image was decoded; ``queue_s`` and ``embed_s``: the longest of any image.
    """

    results: tuple[Result, ...]
    decode_s: float
    queue_s: float
    embed_s: float


class Engine:
    """One model behind a ``batcher`` and ``decoders``, pools of threads that engines share.

    Each priority has a pool of its own: a query's image waits behind no import's.
    """

    def __init__(
        self, embedder: Embedder, batcher: Batcher, decoders: Mapping[Priority, Executor], limits: ImageLimits
    ) -> None:
        self._embedder, self._batcher, self._decoders, self._limits = embedder, batcher, decoders, limits

    @property
    def card(self) -> Card:
        """What the model is."""
        return self._embedder.card

    @property
    def provider(self) -> str:
        """The execution provider that really runs it."""
        return self._embedder.provider

    @property
    def precision(self) -> Precision:
        """Which of the model's files is loaded."""
        return self._embedder.precision

    def submit(
        self,
        uploads: Sequence[bytes],
        modalities: Sequence[Modality | None],
        priority: Priority,
        details: Collection[Detail] = (),
    ) -> Future[Outcome]:
        """Begin to embed image files; ``None`` as modality decides from the pixels.

        A bad image fails alone, in its place. An image goes from thread to thread without coming back here, so that
        many images cost one wake-up. Cancelling the future takes back what has not reached the model yet.

        The future raises ``NotReady`` when the model's thread has ended.
        """
        call = _Call(len(uploads))
        for place, (data, modality) in enumerate(zip(uploads, modalities, strict=True)):
            work = self._decoders[priority].submit(self._begin, call, place, data, modality, priority, details)
            work.add_done_callback(partial(call.begun, place))
        return call.outcome

    def _begin(
        self,
        call: _Call,
        place: int,
        data: bytes,
        modality: Modality | None,
        priority: Priority,
        details: Collection[Detail],
    ) -> None:
        """Decode an image and queue it for the model; its details are found out while it waits there."""
        if call.outcome.cancelled():
            return
        try:
            if len(data) > self._limits.max_bytes:
                raise ImageTooLarge(f"{len(data):,} bytes; at most {self._limits.max_bytes:,} bytes are taken")
            image = open_upright(data, max_pixels=self._limits.max_pixels)
            pixels, found = self._input(image, modality)
            embedded = self._batcher.submit(self.card.name, pixels, found, priority)
            call.waits_for(embedded)
            told = partial(
                Embedding,
                modality=found,
                thumbnail=thumbnail(image) if Detail.THUMBNAIL in details else None,
                warnings=warnings_of(image, self.card.input) if Detail.WARNINGS in details else frozenset(),
                content=sha256(data).hexdigest() if Detail.CONTENT in details else None,
            )
        except Exception as error:
            call.settle(place, error)
        else:
            embedded.add_done_callback(partial(call.embedded, place, told))

    def _input(self, image: Pixels, modality: Modality | None) -> tuple[Pixels, Modality]:
        """The pixels that the model gets: of an infrared crop, tinted or not, the grey ones, as in training."""
        if modality is not Modality.INFRARED:
            pixels = resize(image, self.card.input)
            modality = modality or modality_of(pixels)
        if modality is Modality.INFRARED:
            pixels = resize(grey(image), self.card.input)
        return pixels, modality


class _Call:
    """The images of one call, each settled by whatever thread has done with it; the last one settles the outcome."""

    def __init__(self, images: int) -> None:
        self.outcome: Future[Outcome] = Future()
        self._results: list[Result | None] = [None] * images
        self._unsettled = images
        self._failure: BaseException | None = None
        self._waiting: list[Future[Embedded]] = []
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._decode_s = self._queue_s = self._embed_s = 0.0
        self.outcome.add_done_callback(self._withdraw)
        if not images:
            self._finish()

    def waits_for(self, embedded: Future[Embedded]) -> None:
        """An image is decoded and waits for the model."""
        with self._lock:
            self._decode_s = time.monotonic() - self._started
            self._waiting.append(embedded)
        if self.outcome.cancelled():
            embedded.cancel()

    def embedded(self, place: int, told: Callable[..., Embedding], done: Future[Embedded]) -> None:
        """The model is done with an image; ``told`` lacks nothing but the vector."""
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self.settle(place, error)
            return
        result = done.result()
        with self._lock:
            self._queue_s, self._embed_s = max(self._queue_s, result.queue_s), max(self._embed_s, result.embed_s)
        self.settle(place, told(vector=result.vector))

    def begun(self, place: int, work: Future[None]) -> None:
        """The decoding thread is done with an image, or was closed before it came to it."""
        if work.cancelled():
            self.settle(place, NotReady(["the server is shutting down"]))

    def settle(self, place: int, result: Embedding | BaseException) -> None:
        """What became of an image. An error that is not its own fails the whole call."""
        with self._lock:
            if isinstance(result, Embedding | ImageRejected | EmbeddingFailed):
                self._results[place] = result
            else:
                self._failure = result
            self._unsettled -= 1
            last = not self._unsettled
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

    def _withdraw(self, outcome: Future[Outcome]) -> None:
        if outcome.cancelled():
            with self._lock:
                waiting = list(self._waiting)
            for embedded in waiting:
                embedded.cancel()
