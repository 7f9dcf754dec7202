"""GPU benchmarks: a ResNet-50 in half precision, bare and during an import; exact search with FAISS and with a graph.

The bare figures include copies. Each layer is launched separately, as in the server, or all layers as a CUDA graph.

Requires the environment of ``make EXTRA=gpu serve`` with the package onnx, and the model that ``python -m
benchmarks.harness.models .cache/benchmarks/models/resnet50`` creates (which needs PyTorch). Without a GPU, the result
names what is missing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import onnxruntime

from benchmarks.harness.crops import draw_crops, tar
from benchmarks.harness.effort import BenchmarkResult, Effort, Row
from benchmarks.harness.models import resnet50
from benchmarks.harness.product import ProductDevice
from benchmarks.harness.searcher import random_vectors
from benchmarks.harness.server import serving
from benchmarks.harness.statistics import alternate, level, sample
from benchmarks.imports import run
from models.card import Modality, Precision
from server.domain.types import VectorType
from server.embedding import providers
from server.embedding.providers import CUDA, TENSORRT
from server.embedding.resize import Pixels
from server.embedding.session import Modalities, ModelRefused, OnnxEmbedder, Vectors
from server.index.gpu import FaissDevice, GpuDevice, GpuIndex, GpuWorker
from vireid.client import Client

__all__ = ["compare_search", "measure", "measure_model"]

SESSION, IMPORT = 15_000, 8_000
"""Crops per second of the bare session, and of a bulk import with 16 cores."""
ONE_QUERY_MS = 1.3
"""One exact query over 1,000,000 × 2048: the bytes over 4.3 TB/s take 0.95 ms."""
LARGE = (1_000_000, 2048)
K = 10
SERVED = "layer by layer"
LAUNCHES = {SERVED: providers.Gpu(), "CUDA graph": providers.Gpu(graphs=True)}
SAME = 0.999
"""Minimum cosine between the vectors of both launch modes: half precision changes the fifth digit."""
SHARES = {"0 %": 1.0, "90 %": 0.1, "99 %": 0.01}
DRAWN = 2000


def measure(effort: Effort) -> BenchmarkResult:
    """Run all GPU benchmarks if there is a GPU and the required libraries."""
    result = BenchmarkResult()
    if CUDA not in onnxruntime.get_available_providers() or not hasattr(faiss, "StandardGpuResources"):
        result.missing.append("the whole of it: this environment has onnxruntime and faiss for the CPU")
        return result
    if not faiss.get_num_gpus():
        result.missing.append("the whole of it: there is no GPU")
        return result
    folder = resnet50()
    for device in ("cuda", *(["tensorrt"] if TENSORRT in onnxruntime.get_available_providers() else [])):
        measure_model(effort, result, folder, device, Precision.FP16)
    result.figures.append(level("ResNet-50, fp16: bulk import, crops/s", _imports(effort, folder), "at least", IMPORT))
    devices = {"FAISS": partial(FaissDevice, 0), "product and top k": partial(ProductDevice, CUDA)}
    compare_search(effort, result, devices, *LARGE)
    return result


def measure_model(effort: Effort, result: BenchmarkResult, folder: Path, device: str, precision: Precision) -> None:
    """Measure crops per second of the bare model on a device, for single crops and the largest batches."""
    title = f"{folder.name}, {precision}, {device}"
    embedders = _launched(result, title, partial(OnnxEmbedder, folder, precision, device))
    calls = {
        (launch, batch): partial(_rate, embedder, batch, effort.seconds)
        for launch, embedder in embedders.items()
        for batch in (1, embedder.largest_batch)
    }
    rows: list[Row] = []
    for (launch, batch), rates in alternate(calls, effort.rounds).items():
        rows.append({"launched": launch, "batch": batch, "crops/s": round(statistics.median(rates), 1)})
        if launch == SERVED and batch > 1:
            result.figures.append(level(f"{title}: bare session, crops/s", rates, "at least", SESSION))
    if rows:
        result.tables[title] = rows


def _launched(result: BenchmarkResult, title: str, load: Callable[..., OnnxEmbedder]) -> dict[str, OnnxEmbedder]:
    """Return the model in each launch mode that works and computes the same vectors."""
    embedders: dict[str, OnnxEmbedder] = {}
    vectors: dict[str, Vectors] = {}
    for launch, gpu in LAUNCHES.items():
        try:
            embedders[launch] = load(gpu=gpu)
        except ModelRefused as error:
            result.missing.append(f"{title}, {launch}: {error}")
            continue
        vectors[launch] = embedders[launch].embed(*_crops(embedders[launch], embedders[launch].largest_batch))
        if (vectors[launch] * vectors.get(SERVED, vectors[launch])).sum(axis=1).min() < SAME:
            result.missing.append(f"{title}, {launch}: its vectors are others")
            del embedders[launch]
    return embedders


def _rate(embedder: OnnxEmbedder, batch: int, seconds: float) -> float:
    images, modalities = _crops(embedder, batch)
    took = sample(lambda: embedder.embed(images, modalities), seconds)
    return batch * len(took) / sum(took)


def _crops(embedder: OnnxEmbedder, count: int) -> tuple[list[Pixels], Modalities]:
    """Return noise images in separate arrays, as the server decodes them."""
    shape = (embedder.card.input.height, embedder.card.input.width, 3)
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, shape, np.uint8) for _ in range(count)]
    return images, np.full(count, Modality.INFRARED.index, np.int64)


def _imports(effort: Effort, folder: Path) -> list[float]:
    """Return crops per second of bulk imports by tar, each into its own gallery."""
    files = draw_crops(DRAWN, size=(288, 144))
    archive = tar([files[number % DRAWN] for number in range((5 if effort.quick else 20) * DRAWN)])
    rates = []
    with serving(folder, VIREID_DEVICE="cuda", VIREID_PRECISION=Precision.FP16) as server, Client(server.url) as client:
        for number in range(effort.rounds):
            client.create_gallery(f"g{number}", model=folder.name)
            metrics = run(client, server.process, f"g{number}", [archive], "tar", modality="visible")
            rates.append(metrics["items_per_s"])
    return rates


def compare_search(
    effort: Effort, result: BenchmarkResult, devices: Mapping[str, Callable[[], GpuDevice]], count: int, dimension: int
) -> None:
    """Compare the same index on each device, alternately, with and without filters, for one query and several."""
    size = f"{count:,} × {dimension}"
    data = random_vectors(count, dimension)
    vectors, queries_of_all = np.load(data.vectors), np.load(data.queries)
    indexes = {name: GpuIndex([GpuWorker(device)], dimension, VectorType.FLOAT16) for name, device in devices.items()}
    for name, index in indexes.items():
        index.add(vectors)
        if not index.on_gpu:
            result.missing.append(f"{name} at {size}: it does not fit")
    indexes = {name: index for name, index in indexes.items() if index.on_gpu}
    draw = np.random.default_rng(2).random(count)
    rows: list[Row] = []
    for filtered, share in SHARES.items():
        for queries in (1, 16, 64):
            calls = {
                name: partial(_milliseconds, index, queries_of_all[:queries], draw < share, effort.seconds / 5)
                for name, index in indexes.items()
            }
            taken = alternate(calls, effort.rounds)
            for name, ms in taken.items():
                middle = round(statistics.median(ms), 3)
                rows.append({"by": name, "queries": queries, "filtered out": filtered, "ms": middle})
                if (queries, share) == (1, 1.0) and (count, dimension) == LARGE:
                    result.figures.append(level(f"{size}, one query by {name}, ms", ms, "at most", ONE_QUERY_MS))
    result.tables[f"search, {size}"] = rows


def _milliseconds(index: GpuIndex, queries: np.ndarray, allowed: np.ndarray, seconds: float) -> float:
    return 1e3 * statistics.median(sample(lambda: index.search(queries, K, allowed), seconds))
