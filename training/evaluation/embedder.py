"""Embedding of crops for validation, evaluation and figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from models.baseline import Baseline
from models.card import KEEPS_FLOAT, Precision
from training.data.dataset import PlainCrops
from training.evaluation.embeddings import Vectors

__all__ = ["Embed", "embed_crops", "graph_embedder", "network_embedder"]

Embed = Callable[[NDArray[np.uint8], NDArray[np.int64]], Vectors]
"""Images uint8 ``[n, H, W, 3]`` and modalities int64 ``[n]`` → unit vectors float32 ``[n, D]``."""

_BATCH = 64


def network_embedder(network: Baseline) -> Embed:
    """Return a function that embeds with a network on its device; the network must be in evaluation mode."""
    device = next(network.parameters()).device

    @torch.inference_mode()
    def embed(images: NDArray[np.uint8], modalities: NDArray[np.int64]) -> Vectors:
        batch = torch.from_numpy(images).to(device), torch.from_numpy(modalities).to(device)
        vectors: Vectors = network.embed(*batch).float().cpu().numpy()
        return vectors

    return embed


def graph_embedder(graph: bytes, precision: Precision = Precision.FP32) -> Embed:
    """Return a function that embeds with the graph of an exported model on the CPU.

    Raises:
        ValueError: the precision is bf16 and this processor does not support it.
    """
    if precision is Precision.BF16:
        return _in_bfloat16(graph)
    session = onnxruntime.InferenceSession(
        graph, providers=["CPUExecutionProvider"], disabled_optimizers=list(KEEPS_FLOAT)
    )

    def embed(images: NDArray[np.uint8], modalities: NDArray[np.int64]) -> Vectors:
        vectors: Vectors = session.run(["embedding"], {"image": images, "modality": modalities})[0]
        return vectors

    return embed


def _in_bfloat16(graph: bytes) -> Embed:
    """Return a function that embeds in bf16 with OpenVINO, like the server."""
    core = _openvino_core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError("this processor has no instructions for bf16")
    model = core.compile_model(core.read_model(BytesIO(graph)), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    request = model.create_infer_request()

    def embed(images: NDArray[np.uint8], modalities: NDArray[np.int64]) -> Vectors:
        request.infer({"image": images, "modality": modalities})
        return np.array(request.get_output_tensor(0).data, np.float32)

    return embed


@cache
def _openvino_core() -> Any:
    """Return one core for the process: destroying one leaves a freed signal stack behind."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # prevents usage reporting
    import openvino

    return openvino.Core()


def embed_crops(embed: Embed, crops: PlainCrops, *, mirrored: bool = False) -> Vectors:
    """Embed all crops or their mirror images in their own modality: unit vectors float32 ``[N, D]``."""
    parts = []
    for start in range(0, len(crops), _BATCH):
        images, modalities = zip(*(crops[i] for i in range(start, min(start + _BATCH, len(crops)))), strict=True)
        batch = np.stack(images)
        parts.append(embed(batch[:, :, ::-1].copy() if mirrored else batch, np.array(modalities)))
    return np.concatenate(parts)
