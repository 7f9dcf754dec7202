"""What a GPU does: a ResNet-50 in half precision, bare, under an import, and exact search by FAISS and by a graph.

Bare means copies included, with each layer launched by itself, as the server does it, and with all as a CUDA graph.

Needs the environment of ``make EXTRA=gpu serve``, the package onnx in it, and the model that ``python -m
benchmarks.harness.models .cache/benchmarks/models/resnet50`` makes where PyTorch is. Without a GPU it says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import onnxruntime

from benchmarks.harness.crops import drawn, tar
from benchmarks.harness.effort import Effort, Found, Row
from benchmarks.harness.models import resnet50
from benchmarks.harness.product import ProductDevice
from benchmarks.harness.searcher import vectors_of
from benchmarks.harness.server import serving
from benchmarks.harness.statistics import alternate, level, sample
from benchmarks.imports import run
from models.card import Modality, Precision
from server.embedding import providers
from server.embedding.providers import CUDA, TENSORRT
from server.embedding.resize import Pixels
from server.embedding.session import Modalities, ModelRefused, OnnxEmbedder, Vectors
from server.gallery.gpu import Device, FaissDevice, Gpu, GpuFlat
from server.gallery.types import VectorType
from vireid.client import Client

__all__ = ["compare_search", "measure", "measure_model"]

SESSION, IMPORT = 15_000, 8_000
"""Crops a second: the bare session, and a bulk import with 16 cores."""
ONE_QUERY_MS = 1.3
"""One exact query over 1,000,000 × 2048: the bytes over 4.3 TB/s take 0.95 ms."""
LARGE = (1_000_000, 2048)
K = 10
SERVED = "layer by layer"
LAUNCHES = {SERVED: providers.Gpu(), "CUDA graph": providers.Gpu(graphs=True)}
SAME = 0.999
"""Cosine of what a crop gives either way, at least: half precision changes the fifth digit."""
SHARES = {"0 %": 1.0, "90 %": 0.1, "99 %": 0.01}
DRAWN = 2000


def measure(effort: Effort) -> Found:
    """Everything, where there is a GPU and what it needs."""
    found = Found()
    if CUDA not in onnxruntime.get_available_providers() or not hasattr(faiss, "StandardGpuResources"):
        found.missing.append("the whole of it: this environment has onnxruntime and faiss for the CPU")
        return found
    if not faiss.get_num_gpus():
        found.missing.append("the whole of it: there is no GPU")
        return found
    folder = resnet50()
    for device in ("cuda", *(["tensorrt"] if TENSORRT in onnxruntime.get_available_providers() else [])):
        measure_model(effort, found, folder, device, Precision.FP16)
    found.figures.append(level("ResNet-50, fp16: bulk import, crops/s", _imports(effort, folder), "at least", IMPORT))
    devices = {"FAISS": partial(FaissDevice, 0), "product and top k": partial(ProductDevice, CUDA)}
    compare_search(effort, found, devices, *LARGE)
    return found


def measure_model(effort: Effort, found: Found, folder: Path, device: str, precision: Precision) -> None:
    """Crops a second of a model on a device, without anything around it, alone and in its largest batches."""
    title = f"{folder.name}, {precision}, {device}"
    embedders = _launched(found, title, partial(OnnxEmbedder, folder, precision, device))
    asked = {
        (launch, batch): partial(_rate, embedder, batch, effort.seconds)
        for launch, embedder in embedders.items()
        for batch in (1, embedder.largest_batch)
    }
    rows: list[Row] = []
    for (launch, batch), rates in alternate(asked, effort.rounds).items():
        rows.append({"launched": launch, "batch": batch, "crops/s": round(statistics.median(rates), 1)})
        if launch == SERVED and batch > 1:
            found.figures.append(level(f"{title}: bare session, crops/s", rates, "at least", SESSION))
    if rows:
        found.tables[title] = rows


def _launched(found: Found, title: str, load: Callable[..., OnnxEmbedder]) -> dict[str, OnnxEmbedder]:
    """The model, each way that it can be launched and computes the same."""
    embedders: dict[str, OnnxEmbedder] = {}
    vectors: dict[str, Vectors] = {}
    for launch, gpu in LAUNCHES.items():
        try:
            embedders[launch] = load(gpu=gpu)
        except ModelRefused as error:
            found.missing.append(f"{title}, {launch}: {error}")
            continue
        vectors[launch] = embedders[launch].embed(*_crops(embedders[launch], embedders[launch].largest_batch))
        if (vectors[launch] * vectors.get(SERVED, vectors[launch])).sum(axis=1).min() < SAME:
            found.missing.append(f"{title}, {launch}: its vectors are others")
            del embedders[launch]
    return embedders


def _rate(embedder: OnnxEmbedder, batch: int, seconds: float) -> float:
    images, modalities = _crops(embedder, batch)
    took = sample(lambda: embedder.embed(images, modalities), seconds)
    return batch * len(took) / sum(took)


def _crops(embedder: OnnxEmbedder, count: int) -> tuple[list[Pixels], Modalities]:
    """Noise, each a piece of memory of its own, as the server decodes them."""
    shape = (embedder.card.input.height, embedder.card.input.width, 3)
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, shape, np.uint8) for _ in range(count)]
    return images, np.full(count, Modality.INFRARED.index, np.int64)


def _imports(effort: Effort, folder: Path) -> list[float]:
    """Crops a second of bulk imports by tar, each into a gallery of its own."""
    files = drawn(DRAWN, size=(288, 144))
    archive = tar([files[number % DRAWN] for number in range((5 if effort.quick else 20) * DRAWN)])
    rates = []
    with serving(folder, VIREID_DEVICE="cuda", VIREID_PRECISION=Precision.FP16) as server, Client(server.url) as client:
        for number in range(effort.rounds):
            client.create_gallery(f"g{number}", model=folder.name)
            told = run(client, server.process, f"g{number}", [archive], "tar", modality="visible")
            rates.append(told["items_per_s"])
    return rates


def compare_search(
    effort: Effort, found: Found, devices: Mapping[str, Callable[[], Device]], count: int, dimension: int
) -> None:
    """The same index over each of the devices, in turns: filtered and not, one query and more."""
    size = f"{count:,} × {dimension}"
    data = vectors_of(count, dimension)
    vectors, queries_of_all = np.load(data.vectors), np.load(data.queries)
    indexes = {name: GpuFlat([Gpu(device)], dimension, VectorType.FLOAT16) for name, device in devices.items()}
    for name, index in indexes.items():
        index.add(vectors)
        if not index.on_gpu:
            found.missing.append(f"{name} at {size}: it does not fit")
    indexes = {name: index for name, index in indexes.items() if index.on_gpu}
    draw = np.random.default_rng(2).random(count)
    rows: list[Row] = []
    for filtered, share in SHARES.items():
        for queries in (1, 16, 64):
            asked = {
                name: partial(_milliseconds, index, queries_of_all[:queries], draw < share, effort.seconds / 5)
                for name, index in indexes.items()
            }
            taken = alternate(asked, effort.rounds)
            for name, ms in taken.items():
                middle = round(statistics.median(ms), 3)
                rows.append({"by": name, "queries": queries, "filtered out": filtered, "ms": middle})
                if (queries, share) == (1, 1.0) and (count, dimension) == LARGE:
                    found.figures.append(level(f"{size}, one query by {name}, ms", ms, "at most", ONE_QUERY_MS))
    found.tables[f"search, {size}"] = rows


def _milliseconds(index: GpuFlat, queries: np.ndarray, allowed: np.ndarray, seconds: float) -> float:
    return 1e3 * statistics.median(sample(lambda: index.search(queries, K, allowed), seconds))
