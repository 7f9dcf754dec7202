"""Loading of an exported model into its runtime, with checks against the model card before the first request."""

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
from models.cores import usable_cores
from server.domain.fields import UNIT_NORM_TOLERANCE
from server.embedding.openvino_session import Bfloat16Session
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
from server.hardware.cpu_features import bfloat_is_fast
from server.hardware.cuda import page_locked

__all__ = ["Embedder", "Modalities", "ModelRefused", "OnnxEmbedder", "Vectors", "check_provider", "smallest_fitting"]

Modalities = NDArray[np.int64]
Vectors = NDArray[np.float32]

_CPU_LARGEST_BATCH = 8

# How long an inference thread spins between layers before it sleeps. Waking up takes longer than a small layer, but
# spinning for long takes the cores from decoding and searching.
_SPIN_US = 200


class ModelRefused(RuntimeError):
    """A model's files, graph or execution provider are invalid. The server does not start."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"model {model}: {reason}")
        self.model, self.reason = model, reason


class Embedder(Protocol):
    """Maps crops to embeddings.

    ``embed`` maps N ``images``, uint8 RGB ``[H, W, 3]`` of the card's size, and ``modalities`` int64 ``[N]`` (0
    visible, 1 infrared) to float32 rows ``[N, D]`` of unit length, for N from 1 to ``largest_batch``. Thread-safe on
    the CPU; on a GPU only one thread may call it at a time.
    """

    @property
    def card(self) -> Card:
        """The model card."""

    @property
    def provider(self) -> str:
        """The execution provider in use."""

    @property
    def precision(self) -> Precision:
        """The number format of the computation."""

    @property
    def largest_batch(self) -> int:
        """Size of the largest batch that was warmed up."""

    def embed(self, images: Sequence[Pixels], modalities: Modalities) -> Vectors:
        """Embed one batch."""


class OnnxEmbedder:
    """The model of one directory, described by its ``card.json``, on one device.

    ``precision`` is one that the card lists a file for, ``bf16`` (OpenVINO runs the fp32 file in place of ONNX
    Runtime), or ``auto`` (:func:`choose_precision`). ``device`` is ``auto``, ``cpu``, ``cuda``, ``cuda:N``,
    ``tensorrt`` or ``tensorrt:N``; ``auto`` falls back to the CPU. On a GPU, batches are padded to a few fixed sizes
    with preallocated buffers; on the CPU they run at their own size, from any number of threads. With bf16, up to
    ``callers`` threads run concurrently.

    Raises:
        ModelRefused: a file is missing or altered, graph and card disagree, the session does not run on the requested
            provider, or the warm-up does not return unit vectors.
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
        target = one_device(device, onnxruntime.get_available_providers())
        try:
            self.precision, self._session = self._load(directory, precision, target, threads, gpu, callers)
        except ModelRefused:
            if device != "auto" or target.kind == "cpu":
                raise
            target = Device("cpu")
            self.precision, self._session = self._load(directory, precision, target, threads, gpu, callers)
        self.provider: str = self._session.get_providers()[0]
        sizes = (1, _CPU_LARGEST_BATCH) if target.kind == "cpu" else batch_sizes(target, gpu)
        try:
            self._buffers = None if target.kind == "cpu" else _GpuBuffers(self._session, self.card, target, sizes)
        except RuntimeError as error:
            raise ModelRefused(
                self.card.name, f"{target} has too little memory for the batch buffers: {error}"
            ) from error
        self.largest_batch = sizes[-1]
        self._warm_up(sizes, callers if self.precision is Precision.BF16 else 1)

    def embed(self, images: Sequence[Pixels], modalities: Modalities) -> Vectors:
        """Embed one batch; see :class:`Embedder`.

        Raises:
            ValueError: an argument has another type or shape than the card specifies.
        """
        self._check_batch(images, modalities)
        if self._buffers is not None:
            return self._buffers.run(images, modalities)
        (vectors,) = self._session.run(["embedding"], {"image": np.stack(images), "modality": modalities})
        return np.asarray(vectors, np.float32)

    def _load(
        self,
        directory: Path,
        requested: Precision | Literal["auto"],
        target: Device,
        threads: int | None,
        gpu: Gpu,
        callers: int,
    ) -> tuple[Precision, onnxruntime.InferenceSession | Bfloat16Session]:
        precision = choose_precision(self.card, target) if requested == "auto" else requested
        if precision is Precision.BF16 and target.kind != "cpu":
            raise ModelRefused(self.card.name, f"bf16 runs on the CPU, not on {target}")
        if precision is Precision.BF16 and not bfloat_is_fast():
            raise ModelRefused(self.card.name, "bf16 needs OpenVINO and a processor with tiles (amx_bf16)")
        graph, threads = _read_graph(directory, self.card, precision), threads or usable_cores()
        providers = provider_options(target, self.card, precision, gpu)
        session = _create_session(self.card.name, graph, target, providers, threads)
        check_provider(self.card.name, target, session.get_providers()[0])
        _check_graph(session, self.card)
        if precision is not Precision.BF16:
            return precision, session
        del session  # it was only for the checks; free its memory
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
        """Run each batch size, the largest first, on every copy, and require unit vectors for both modalities."""
        height, width = self.card.input.height, self.card.input.width
        ramp = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(height, width, 3)
        for size in reversed(sizes):
            images = [np.roll(ramp, row, axis=0) for row in range(size)]
            for modality in [*Modality] * copies:
                vectors = self.embed(images, np.full(size, modality.index, np.int64))
                lengths = np.linalg.norm(vectors, axis=1)
                if not np.all(np.abs(lengths - 1) <= UNIT_NORM_TOLERANCE):  # also fails on NaN
                    found = f"norms from {lengths.min():.4g} to {lengths.max():.4g}"
                    raise ModelRefused(self.card.name, f"warm-up with {modality}: expected unit vectors, found {found}")


class _GpuBuffers:
    """Preallocated input and output buffers on the GPU, one set per batch size, bound to the session once.

    Inputs are collected in page-locked host memory, which the GPU copies directly.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, card: Card, target: Device, sizes: tuple[int, ...]
    ) -> None:
        self._session, self._sizes = session, sizes
        self._images = page_locked(target.index, (sizes[-1], card.input.height, card.input.width, 3), np.uint8)
        self._modalities = page_locked(target.index, (sizes[-1],), np.int64)
        self._bindings = {size: self._bind(card, target, size) for size in sizes}

    def run(self, images: Sequence[Pixels], modalities: Modalities) -> Vectors:
        """Embed a batch. Padding rows keep the data of earlier batches; embeddings depend only on their own row."""
        count = len(images)
        size = smallest_fitting(self._sizes, count)
        binding, image, modality, options = self._bindings[size]
        np.stack(images, out=self._images[:count])
        self._modalities[:count] = modalities
        image.update_inplace(self._images[:size])
        modality.update_inplace(self._modalities[:size])
        self._session.run_with_iobinding(binding, options)
        (vectors,) = binding.copy_outputs_to_cpu()
        return np.asarray(vectors[:count], np.float32)

    def _bind(self, card: Card, target: Device, size: int) -> tuple[Any, Any, Any, onnxruntime.RunOptions]:
        on_gpu = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        image = on_gpu((size, card.input.height, card.input.width, 3), np.uint8, "cuda", target.index)
        modality = on_gpu((size,), np.int64, "cuda", target.index)
        vectors = on_gpu((size, card.dimension), np.float32, "cuda", target.index)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("image", image)
        binding.bind_ortvalue_input("modality", modality)
        binding.bind_ortvalue_output("embedding", vectors)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        return binding, image, modality, options


def smallest_fitting(sizes: Sequence[int], count: int) -> int:
    """Return the smallest of the ascending ``sizes`` that holds ``count`` rows."""
    return next(size for size in sizes if size >= count)


def check_provider(model: str, target: Device, actual: str) -> None:
    """Check that the session runs on the requested provider.

    Raises:
        ModelRefused: it runs on another one.
    """
    if actual != target.provider:
        raise ModelRefused(model, f"{target} was requested ({target.provider}), but the session runs on {actual}")


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


def _create_session(
    model: str, graph: bytes, target: Device, providers: list[tuple[str, Options]], threads: int
) -> onnxruntime.InferenceSession:
    if target.provider not in onnxruntime.get_available_providers():
        raise ModelRefused(model, f"{target} was requested, but this ONNX Runtime was built without {target.provider}")
    options = onnxruntime.SessionOptions()
    if target.kind == "cpu":
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
            enable_fallback=0,  # a fallback would hide why a GPU cannot be used
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise ModelRefused(model, f"the graph cannot be loaded: {error}") from error


def _check_graph(session: onnxruntime.InferenceSession, card: Card) -> None:
    embedded = session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
    if embedded is None:
        raise ModelRefused(card.name, f"the graph's metadata has no {CARD_KEY}")
    try:
        agrees = Card.model_validate_json(embedded) == card.embedded()
    except ValidationError as error:
        raise ModelRefused(card.name, f"{CARD_KEY} in the graph is not a valid card: {error}") from error
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
