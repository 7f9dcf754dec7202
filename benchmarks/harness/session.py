"""The bare ONNX Runtime session: what everything around a model is measured against."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.harness.models import file_of
from benchmarks.harness.pixels import LARGEST, pixels
from benchmarks.harness.statistics import sample
from models.card import KEEPS_FLOAT, Card, Precision
from server.embedding.bfloat import Bfloat16Session
from server.embedding.cores import usable_cores

__all__ = ["BATCHES", "RawSession", "either_way"]

BATCHES = (1, 2, 4, 8, LARGEST)


class RawSession:
    """A model's graph in ONNX Runtime, or for bf16 in OpenVINO, with a thread a core unless told otherwise, fed from
    memory; its options are the default ones, but that layers which the file leaves in float stay so."""

    def __init__(self, folder: Path, precision: Precision, threads: int | None = None) -> None:
        card = Card.read(folder / "card.json")
        graph, threads = file_of(folder, precision).read_bytes(), threads or usable_cores()
        if precision is Precision.BF16:
            self._session = Bfloat16Session(graph, threads, copies=usable_cores() if threads == 1 else 1)
        else:
            self._session = _in_onnxruntime(graph, threads)
        self._images, self._modalities = pixels(card.input.height, card.input.width)
        self.run(LARGEST)

    def run(self, batch: int) -> NDArray[np.float32]:
        """Embed once: the vectors ``[batch, D]``."""
        return self.embed(self._images[:batch])

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed visible crops of the right size."""
        inputs = {"image": images, "modality": self._modalities[: len(images)]}
        return np.asarray(self._session.run(["embedding"], inputs)[0], np.float32)

    def rate(self, batch: int, seconds: float) -> float:
        """Crops a second."""
        took = sample(lambda: self.run(batch), seconds)
        return batch * len(took) / sum(took)

    def rate_of(self, callers: int, batch: int, seconds: float) -> float:
        """Crops a second of several callers at once."""
        with ThreadPoolExecutor(callers) as pool:
            return sum(pool.map(lambda _: self.rate(batch, seconds), range(callers)))

    def latency_ms(self, batch: int, seconds: float) -> float:
        """Median milliseconds of a batch."""
        return 1e3 * statistics.median(sample(lambda: self.run(batch), seconds))


def _in_onnxruntime(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(KEEPS_FLOAT)
    )


def either_way(folder: Path, precision: Precision) -> dict[int, RawSession]:
    """By callers: a session with every core for one, and one of a single thread for as many callers as cores."""
    return {1: RawSession(folder, precision), usable_cores(): RawSession(folder, precision, threads=1)}
