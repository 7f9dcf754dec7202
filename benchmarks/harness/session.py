"""The bare inference session, the baseline for the overhead of everything around a model."""

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
from models.cores import usable_cores
from server.embedding.openvino_session import Bfloat16Session

__all__ = ["BATCHES", "RawSession", "sessions_by_callers"]

BATCHES = (1, 2, 4, 8, LARGEST)


class RawSession:
    """A model graph in ONNX Runtime (for bf16 in OpenVINO) that embeds crops from memory.

    It uses one thread per core unless ``threads`` is given.
    The options are the defaults, except that layers that the file leaves in float stay in float.
    """

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
        """Embed one batch; return the vectors ``[batch, D]``."""
        return self.embed(self._images[:batch])

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed visible crops of the model's input size."""
        inputs = {"image": images, "modality": self._modalities[: len(images)]}
        return np.asarray(self._session.run(["embedding"], inputs)[0], np.float32)

    def rate(self, batch: int, seconds: float) -> float:
        """Return crops per second."""
        took = sample(lambda: self.run(batch), seconds)
        return batch * len(took) / sum(took)

    def rate_of(self, callers: int, batch: int, seconds: float) -> float:
        """Return crops per second of several concurrent callers."""
        with ThreadPoolExecutor(callers) as pool:
            return sum(pool.map(lambda _: self.rate(batch, seconds), range(callers)))

    def latency_ms(self, batch: int, seconds: float) -> float:
        """Return the median milliseconds of a batch."""
        return 1e3 * statistics.median(sample(lambda: self.run(batch), seconds))


def _in_onnxruntime(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(KEEPS_FLOAT)
    )


def sessions_by_callers(folder: Path, precision: Precision) -> dict[int, RawSession]:
    """Return sessions by number of callers: one with all cores for 1, one with single threads for as many as cores."""
    return {1: RawSession(folder, precision), usable_cores(): RawSession(folder, precision, threads=1)}
