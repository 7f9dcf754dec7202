"""A model of the zoo, loaded into the engine that runs it and checked against its card before it serves anybody."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import ValidationError

from models.card import CARD_KEY, KEEPS_FLOAT, Card, Modality, Precision
from server.cuda import page_locked
from server.embedding.bfloat import Bfloat16Session
from server.embedding.cores import usable_cores
from server.embedding.processor import bfloat_is_fast
from server.embedding.providers import (
    TENSORRT,
    Device,
    Gpu,
    Options,
    batch_sizes,
    choose_precision,
    one_device,
    provider_options,
)
from server.embedding.resize import Pixels

__all__ = ["Embedder", "Modalities", "ModelRefused", "OnnxEmbedder", "Vectors", "check_provider", "fitting"]

Modalities = NDArray[np.int64]
Vectors = NDArray[np.float32]

_CPU_LARGEST_BATCH = 8
_NORM_TOLERANCE = 1e-3

# How long a thread that has done its share of a layer waits awake for the next one. To be woken takes longer than a
# small layer; a thread that stays awake for long takes the cores from decoding and searching.
_SPIN_US = 200


class ModelRefused(RuntimeError):
    """A model's files, its graph or its execution provider are not what they must be; the server does not start."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"model {model}: {reason}")
        self.model, self.reason = model, reason


class Embedder(Protocol):
    """Crops in, unit vectors out.

    ``embed`` takes N ``images``, uint8 RGB ``[H, W, 3]`` of the card's size, and ``modalities`` int64 ``[N]`` (0
    visible, 1 infrared), and returns float32 ``[N, D]`` rows of unit length, for N from 1 to ``largest_batch``. On a
    GPU by one thread at a time, on the CPU by any number of them at once.
    """

    @property
    def card(self) -> Card:
        """What the model is."""

    @property
    def provider(self) -> str:
        """The execution provider that really runs it."""

    @property
    def precision(self) -> Precision:
        """What it computes in."""

    @property
    def largest_batch(self) -> int:
        """Rows of the largest batch that it was warmed up with."""

    def embed(self, images: Sequence[Pixels], modalities: Modalities) -> Vectors:
        """Embed one batch."""


class OnnxEmbedder:
    """A graph of one directory, as its ``card.json`` describes it, on one device.

    ``precision`` is a file that the card names, ``bf16``, for which OpenVINO runs the fp32 file in place of ONNX
    Runtime, or ``auto``: :func:`choose_precision`. ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``,
    ``tensorrt`` or ``tensorrt:N``; ``auto`` takes what starts. On a GPU a batch is padded to one of a few sizes, in
    buffers of its own there, so that memory is taken once, at the warm-up; on the CPU it runs as it comes, for any
    number of threads at once. In bf16 as many as ``callers`` do not wait for one another.

    Raises:
        ModelRefused: a file is missing or altered, graph and card disagree, the provider asked for is not the one that
            runs, or the probe run gives anything but unit vectors.
    """

    def __init__(
        self,
        directory: Path,
        precision: Precision | Literal["auto"] = "auto",
        device: str = "auto",
        threads: int | None = None,
        gpu: Gpu | None = None,
        callers: int = 1,
    ) -> None:
        self.card, gpu = _read_card(directory), gpu or Gpu()
        place = one_device(device, onnxruntime.get_available_providers())
        try:
            self.precision, self._session = self._load(directory, precision, place, threads, gpu, callers)
        except ModelRefused:
            if device != "auto" or place.kind == "cpu":
                raise
            place = Device("cpu")
            self.precision, self._session = self._load(directory, precision, place, threads, gpu, callers)
        self.provider: str = self._session.get_providers()[0]
        sizes = (1, _CPU_LARGEST_BATCH) if place.kind == "cpu" else batch_sizes(place, gpu)
        try:
            self._buffers = None if place.kind == "cpu" else _Buffers(self._session, self.card, place, sizes)
        except RuntimeError as error:
            raise ModelRefused(self.card.name, f"{place} has no room for its batches: {error}") from error
        self.largest_batch = sizes[-1]
        self._warm_up(sizes, callers if self.precision is Precision.BF16 else 1)

    def embed(self, images: Sequence[Pixels], modalities: Modalities) -> Vectors:
        """Embed one batch; see :class:`Embedder`.

        Raises:
            ValueError: type or shape of an argument is not what the card says.
        """
        self._check_batch(images, modalities)
        if self._buffers is not None:
            return self._buffers.run(images, modalities)
        (vectors,) = self._session.run(["embedding"], {"image": np.stack(images), "modality": modalities})
        return np.asarray(vectors, np.float32)

    def _load(
        self,
        directory: Path,
        asked: Precision | Literal["auto"],
        place: Device,
        threads: int | None,
        gpu: Gpu,
        callers: int,
    ) -> tuple[Precision, onnxruntime.InferenceSession | Bfloat16Session]:
        precision = choose_precision(self.card, place) if asked == "auto" else asked
        if precision is Precision.BF16 and place.kind != "cpu":
            raise ModelRefused(self.card.name, f"bf16 runs on the CPU, not on {place}")
        if precision is Precision.BF16 and not bfloat_is_fast():
            raise ModelRefused(self.card.name, "bf16 needs OpenVINO and a processor with tiles (amx_bf16)")
        graph, threads = _read_graph(directory, self.card, precision), threads or usable_cores()
        providers = provider_options(place, self.card, precision, gpu)
        session = _open(self.card.name, graph, place, providers, threads)
        check_provider(self.card.name, place, session.get_providers()[0])
        _check_graph(session, self.card)
        if precision is not Precision.BF16:
            return precision, session
        del session  # OpenVINO needs its memory
        try:
            return precision, Bfloat16Session(graph, threads, callers)
        except (ImportError, RuntimeError) as error:
            raise ModelRefused(self.card.name, f"OpenVINO cannot be loaded or cannot run the graph: {error}") from error

    def _check_batch(self, images: Sequence[Pixels], modalities: Modalities) -> None:
        shape = (self.card.input.height, self.card.input.width, 3)
        for image in images:
            if image.dtype != np.uint8 or image.shape != shape:
                raise ValueError(f"expected images of uint8 {shape}, found {image.dtype} {image.shape}")
        if not 1 <= len(images) <= self.largest_batch:
            raise ValueError(f"expected 1 to {self.largest_batch} images, found {len(images)}")
        if modalities.dtype != np.int64 or modalities.shape != (len(images),):
            raise ValueError(f"expected int64 [{len(images)}], found {modalities.dtype} {modalities.shape}")

    def _warm_up(self, sizes: Sequence[int], copies: int) -> None:
        """Run every batch size, the largest first, in every copy, and require unit vectors of both modalities."""
        height, width = self.card.input.height, self.card.input.width
        ramp = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)
        for size in reversed(sizes):
            images = [np.roll(ramp, row, axis=0) for row in range(size)]
            for modality in [*Modality] * copies:
                vectors = self.embed(images, np.full(size, modality.index, np.int64))
                lengths = np.linalg.norm(vectors, axis=1)
                if not np.all(np.abs(lengths - 1) <= _NORM_TOLERANCE):  # a NaN fails, too
                    found = f"lengths from {lengths.min():.4g} to {lengths.max():.4g}"
                    raise ModelRefused(self.card.name, f"probe run in {modality}: expected unit vectors, found {found}")


class _Buffers:
    """Inputs and output of each batch size, kept on the GPU and bound to the session once.

    What goes there is gathered in page-locked memory, which the GPU copies by itself.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, card: Card, place: Device, sizes: tuple[int, ...]
    ) -> None:
        self._session, self._sizes = session, sizes
        self._images = page_locked(place.index, (sizes[-1], card.input.height, card.input.width, 3), np.uint8)
        self._modalities = page_locked(place.index, (sizes[-1],), np.int64)
        self._of_size = {size: self._bind(card, place, size) for size in sizes}

    def run(self, images: Sequence[Pixels], modalities: Modalities) -> Vectors:
        """Vectors of a batch, padded to the next size by what earlier batches left: a vector is of its row alone."""
        count = len(images)
        size = fitting(self._sizes, count)
        binding, image, modality, options = self._of_size[size]
        np.stack(images, out=self._images[:count])
        self._modalities[:count] = modalities
        image.update_inplace(self._images[:size])
        modality.update_inplace(self._modalities[:size])
        self._session.run_with_iobinding(binding, options)
        (vectors,) = binding.copy_outputs_to_cpu()
        return np.asarray(vectors[:count], np.float32)

    def _bind(self, card: Card, place: Device, size: int) -> tuple[Any, Any, Any, onnxruntime.RunOptions]:
        on_gpu = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        image = on_gpu((size, card.input.height, card.input.width, 3), np.uint8, "cuda", place.index)
        modality = on_gpu((size,), np.int64, "cuda", place.index)
        vectors = on_gpu((size, card.dimension), np.float32, "cuda", place.index)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("image", image)
        binding.bind_ortvalue_input("modality", modality)
        binding.bind_ortvalue_output("embedding", vectors)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        return binding, image, modality, options


def fitting(sizes: Sequence[int], count: int) -> int:
    """The smallest of the ascending sizes that holds ``count`` rows."""
    return next(size for size in sizes if size >= count)


def check_provider(model: str, place: Device, actual: str) -> None:
    """Require the provider that was asked for.

    Raises:
        ModelRefused: the session runs on another one.
    """
    if actual != place.provider:
        raise ModelRefused(model, f"{place} was asked for ({place.provider}), but the session runs on {actual}")


def _read_card(directory: Path) -> Card:
    try:
        return Card.read(directory / "card.json")
    except (OSError, ValidationError) as error:
        raise ModelRefused(directory.name, f"card.json cannot be read: {error}") from error


def _read_graph(directory: Path, card: Card, precision: Precision) -> bytes:
    needed = Precision.FP32 if precision is Precision.BF16 else precision
    variant = card.precisions.get(needed)
    if variant is None:
        raise ModelRefused(card.name, f"no {needed} file; the card has {', '.join(card.precisions) or 'none'}")
    try:
        graph = (directory / variant.file).read_bytes()
    except OSError as error:
        raise ModelRefused(card.name, f"{variant.file} cannot be read: {error}") from error
    found = hashlib.sha256(graph).hexdigest()
    if found != variant.sha256:
        raise ModelRefused(card.name, f"{variant.file} was altered: sha256 is {found}, the card says {variant.sha256}")
    return graph


def _open(
    model: str, graph: bytes, place: Device, providers: list[tuple[str, Options]], threads: int
) -> onnxruntime.InferenceSession:
    if place.provider not in onnxruntime.get_available_providers():
        raise ModelRefused(model, f"{place} was asked for, but this ONNX Runtime was built without {place.provider}")
    options = onnxruntime.SessionOptions()
    if place.kind == "cpu":
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    else:
        onnxruntime.preload_dlls()
    if engines := dict(providers).get(TENSORRT, {}).get("trt_engine_cache_path"):
        Path(engines).mkdir(parents=True, exist_ok=True)
    try:
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=providers,
            disabled_optimizers=list(KEEPS_FLOAT),
            enable_fallback=0,  # which would hide why a GPU cannot be used
        )
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
