"""Uploads in, vectors out: decoding in a bounded pool, image by image, then one batched model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import sha256

from models.card import Card, Modality
from server.embedding.batcher import Batcher, Priority
from server.embedding.decode import Pixels, open_upright, resize, thumbnail
from server.embedding.modality import modality_of
from server.embedding.quality import warnings_of
from server.embedding.session import Embedder, Vectors
from server.errors import EmbeddingFailed, ImageRejected, ImageTooLarge
from server.gallery.types import CropWarning

__all__ = ["Embedding", "Engine", "ImageLimits", "Outcome"]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one upload may be."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit vector float32 ``[D]``, the modality stated or decided, and a WebP thumbnail if one was wanted.

    ``warnings`` say what may be wrong with the crop, ``content`` is the SHA-256 of its file, in hex.
    """

    vector: Vectors
    modality: Modality
    thumbnail: bytes | None
    warnings: frozenset[CropWarning]
    content: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One result an upload, in their order, and the seconds that went by.

    ``decode_s``: until the last image was decoded; ``queue_s`` and ``embed_s``: the longest of any image.
    """

    results: tuple[Embedding | ImageRejected | EmbeddingFailed, ...]
    decode_s: float
    queue_s: float
    embed_s: float


@dataclass(frozen=True, slots=True)
class _Crop:
    pixels: Pixels
    modality: Modality
    thumbnail: bytes | None
    warnings: frozenset[CropWarning]
    content: str


@dataclass(slots=True)
class _Times:
    decode_s: float = 0.0
    queue_s: float = 0.0
    embed_s: float = 0.0


class Engine:
    """One model with its batcher, behind ``decoders``, pools that several engines may share.

    Each priority has a pool of its own: a query's image waits behind no import's.
    """

    def __init__(
        self, embedder: Embedder, batcher: Batcher, decoders: Mapping[Priority, Executor], limits: ImageLimits
    ) -> None:
        self._embedder, self._decoders, self._limits = embedder, decoders, limits
        self.batcher = batcher

    @property
    def card(self) -> Card:
        """What the model is."""
        return self._embedder.card

    @property
    def provider(self) -> str:
        """The execution provider that really runs it."""
        return self._embedder.provider

    async def embed(
        self,
        uploads: Sequence[bytes],
        modalities: Sequence[Modality | None],
        priority: Priority,
        *,
        thumbnails: bool = False,
    ) -> Outcome:
        """Embed image files; ``None`` as modality decides from the pixels. A bad image fails alone, in its place.

        Cancelling the call takes back what has not reached the model yet.

        Raises:
            NotReady: the model's thread has ended.
        """
        started, times = time.monotonic(), _Times()

        async def one(data: bytes, modality: Modality | None) -> Embedding | ImageRejected | EmbeddingFailed:
            try:
                crop = await loop.run_in_executor(self._decoders[priority], self._crop, data, modality, thumbnails)
                times.decode_s = max(times.decode_s, time.monotonic() - started)
                done = await asyncio.wrap_future(self.batcher.submit(crop.pixels, crop.modality, priority))
            except (ImageRejected, EmbeddingFailed) as error:
                return error
            times.queue_s, times.embed_s = max(times.queue_s, done.queue_s), max(times.embed_s, done.embed_s)
            return Embedding(done.vector, crop.modality, crop.thumbnail, crop.warnings, crop.content)

        loop = asyncio.get_running_loop()
        results = await asyncio.gather(*map(one, uploads, modalities))
        return Outcome(tuple(results), times.decode_s, times.queue_s, times.embed_s)

    def _crop(self, data: bytes, modality: Modality | None, thumbnails: bool) -> _Crop:
        if len(data) > self._limits.max_bytes:
            raise ImageTooLarge(f"{len(data):,} bytes; at most {self._limits.max_bytes:,} bytes are taken")
        image = open_upright(data, max_pixels=self._limits.max_pixels)
        pixels = resize(image, self.card.input)
        modality = modality or modality_of(pixels)
        if modality is Modality.INFRARED:  # tinted or not, as in training
            pixels = resize(image.convert("L").convert("RGB"), self.card.input)
        return _Crop(
            pixels,
            modality,
            thumbnail(image) if thumbnails else None,
            warnings_of(image, self.card.input),
            sha256(data).hexdigest(),
        )
