"""A model of the zoo, loaded into ONNX Runtime and checked against its card before it serves anybody."""

from __future__ import annotations

import hashlib
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import ValidationError

from models.card import CARD_KEY, Card, Modality, Precision
from server.embedding.cores import usable_cores

__all__ = [
    "CPU",
    "CUDA",
    "Device",
    "Embedder",
    "Modalities",
    "ModelRefused",
    "OnnxEmbedder",
    "Vectors",
    "check_provider",
]

Pixels = NDArray[np.uint8]
Modalities = NDArray[np.int64]
Vectors = NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda"]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_CPU_LARGEST_BATCH = 8
_CUDA_BATCHES = (1, 4, 16, 64)
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
_NORM_TOLERANCE = 1e-3


class ModelRefused(RuntimeError):
    """A model's files, its graph or its execution provider are not what they must be; the server does not start."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"model {model}: {reason}")
        self.model, self.reason = model, reason


class Embedder(Protocol):
    """Crops in, unit vectors out.

    ``embed`` takes ``images`` uint8 RGB ``[N, H, W, 3]`` of the card's size and ``modalities`` int64 ``[N]``
    (0 visible, 1 infrared) and returns float32 ``[N, D]`` rows of unit length, for N from 1 to ``largest_batch``.
    One thread at a time.
    """

    @property
    def card(self) -> Card:
        """What the model is."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs it."""

    @property
    def largest_batch(self) -> int:
        """Rows of the largest batch that it was warmed up with."""

    def embed(self, images: Pixels, modalities: Modalities) -> Vectors:
        """Embed one batch."""


class OnnxEmbedder:
    """The ``model.onnx`` of one directory, as its ``card.json`` describes it.

    On CUDA a batch is padded to one of a few sizes, so that memory is taken once, at the warm-up; on the CPU it runs as
    it comes.

    Raises:
        ModelRefused: a file is missing or altered, graph and card disagree, the provider asked for is not the one that
            runs, or the probe run gives anything but unit vectors.
    """

    def __init__(
        self,
        directory: Path,
        precision: Precision = Precision.FP32,
        device: Device = "auto",
        threads: int | None = None,
    ) -> None:
        self.card = _read_card(directory)
        self.precision = precision
        graph = _read_graph(directory, self.card, precision)
        self._session = _open(self.card.name, graph, device, threads or usable_cores())
        self.provider: str = self._session.get_providers()[0]
        check_provider(self.card.name, device, self.provider)
        _check_graph(self._session, self.card)
        self._batches = _CUDA_BATCHES if self.provider == CUDA else None
        self.largest_batch = self._batches[-1] if self._batches else _CPU_LARGEST_BATCH
        self._warm_up()

    def embed(self, images: Pixels, modalities: Modalities) -> Vectors:
        """Embed one batch; see :class:`Embedder`.

        Raises:
            ValueError: type or shape of an argument is not what the card says.
        """
        self._check_batch(images, modalities)
        count = len(images)
        padding = self._padding(count)
        if padding:
            images = np.concatenate([images, np.zeros((padding, *images.shape[1:]), np.uint8)])
            modalities = np.concatenate([modalities, np.zeros(padding, np.int64)])
        (vectors,) = self._session.run(["embedding"], {"image": images, "modality": modalities})
        return np.asarray(vectors[:count], np.float32)

    def _padding(self, count: int) -> int:
        sizes = self._batches or (count,)
        return next(size for size in sizes if size >= count) - count

    def _check_batch(self, images: Pixels, modalities: Modalities) -> None:
        shape = (self.card.input.height, self.card.input.width, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise ValueError(f"expected uint8 [N, {shape[0]}, {shape[1]}, 3], found {images.dtype} {images.shape}")
        if not 1 <= len(images) <= self.largest_batch:
            raise ValueError(f"expected 1 to {self.largest_batch} images, found {len(images)}")
        if modalities.dtype != np.int64 or modalities.shape != (len(images),):
            raise ValueError(f"expected int64 [{len(images)}], found {modalities.dtype} {modalities.shape}")

    def _warm_up(self) -> None:
        """Run every batch size, the largest first, and require unit vectors of both modalities."""
        height, width = self.card.input.height, self.card.input.width
        ramp = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)
        for size in sorted(self._batches or (1, self.largest_batch), reverse=True):
            images = np.stack([np.roll(ramp, row, axis=0) for row in range(size)])
            for modality in Modality:
                vectors = self.embed(images, np.full(size, modality.index, np.int64))
                lengths = np.linalg.norm(vectors, axis=1)
                if not np.all(np.abs(lengths - 1) <= _NORM_TOLERANCE):  # a NaN fails, too
                    found = f"lengths from {lengths.min():.4g} to {lengths.max():.4g}"
                    raise ModelRefused(self.card.name, f"probe run in {modality}: expected unit vectors, found {found}")


def check_provider(model: str, device: Device, actual: str) -> None:
    """Require the provider that was asked for; ``auto`` asks for none.

    Raises:
        ModelRefused: the session runs on another one.
    """
    expected = {"cpu": CPU, "cuda": CUDA}.get(device, actual)
    if actual != expected:
        raise ModelRefused(model, f"{device} was asked for ({expected}), but the session runs on {actual}")


def _read_card(directory: Path) -> Card:
    try:
        return Card.read(directory / "card.json")
    except (OSError, ValidationError) as error:
        raise ModelRefused(directory.name, f"card.json cannot be read: {error}") from error


def _read_graph(directory: Path, card: Card, precision: Precision) -> bytes:
    variant = card.precisions.get(precision)
    if variant is None:
        raise ModelRefused(card.name, f"no {precision} file; the card has {', '.join(card.precisions) or 'none'}")
    try:
        graph = (directory / variant.file).read_bytes()
    except OSError as error:
        raise ModelRefused(card.name, f"{variant.file} cannot be read: {error}") from error
    found = hashlib.sha256(graph).hexdigest()
    if found != variant.sha256:
        raise ModelRefused(card.name, f"{variant.file} was altered: sha256 is {found}, the card says {variant.sha256}")
    return graph


def _open(model: str, graph: bytes, device: Device, threads: int) -> onnxruntime.InferenceSession:
    cuda = device != "cpu" and CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not cuda:
        raise ModelRefused(model, "cuda was asked for, but this ONNX Runtime was built without it")
    options = onnxruntime.SessionOptions()
    if cuda:
        onnxruntime.preload_dlls()
        providers = [(CUDA, _CUDA_OPTIONS), CPU]
    else:
        options.intra_op_num_threads = threads
        # Spinning threads would take the cores from decoding and searching, for twice the CPU time a crop.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [CPU]
    try:
        return onnxruntime.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise ModelRefused(model, f"the graph cannot be loaded: {error}") from error


def _check_graph(session: onnxruntime.InferenceSession, card: Card) -> None:
    inside = session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
    if inside is None:
        raise ModelRefused(card.name, f"the graph has no {CARD_KEY} in its metadata")
    try:
        agrees = Card.model_validate_json(inside) == card.embedded()
    except ValidationError as error:
        raise ModelRefused(card.name, f"{CARD_KEY} in the graph is no card: {error}") from error
    if not agrees:
        raise ModelRefused(card.name, "the card inside the graph and card.json differ")
    expected = {
        "image": ("tensor(uint8)", (card.input.height, card.input.width, 3)),
        "modality": ("tensor(int64)", ()),
        "embedding": ("tensor(float)", (card.dimension,)),
    }
    nodes = list(chain(session.get_inputs(), session.get_outputs()))
    found = {node.name: (node.type, tuple(node.shape[1:])) for node in nodes}
    if found != expected:
        raise ModelRefused(card.name, f"inputs and outputs must be {expected}, found {found}")
    fixed = [node.name for node in nodes if isinstance(node.shape[0], int)]
    if fixed:
        raise ModelRefused(card.name, f"the batch size of {', '.join(fixed)} must be dynamic")
