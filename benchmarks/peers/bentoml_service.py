"""BentoML service of the ONNX file ``BENCHMARK_MODEL``: ``bentoml serve benchmarks.peers.bentoml_service:Crops``.

Adaptive batching is on, up to 8 as in vireid; one worker with ``BENCHMARK_CORES`` threads.
"""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.peers.decoding import Model


@bentoml.service(workers=1, traffic={"timeout": 120, "max_concurrency": 512})
class Crops:
    """Maps a form with files ``images`` to their vectors."""

    def __init__(self) -> None:
        self._model = Model(Path(os.environ["BENCHMARK_MODEL"]), int(os.environ["BENCHMARK_CORES"]))

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=60_000)
    def embed(self, images: list[Image]) -> np.ndarray:
        return self._model.embed(np.stack([self._model.pixels(image) for image in images]))
