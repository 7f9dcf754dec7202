"""A graph in bfloat16 by OpenVINO: processors with tiles (AMX) multiply it many times as fast as float32."""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bfloat import openvino_core
from server.embedding.cores import usable_cores
from server.embedding.processor import has_bfloat_tiles
from server.embedding.resize import Pixels

__all__ = ["Bfloat16Session", "bfloat_is_fast"]


def bfloat_is_fast() -> bool:
    """Whether OpenVINO is installed, and this processor has tiles for it to compute with."""
    return has_bfloat_tiles() and find_spec("openvino") is not None


class Bfloat16Session:
    """Runs a float32 graph in bfloat16, but for what it keeps itself, with ``threads`` for each batch.

    For any number of callers at once: each runs in a copy that nobody else is in. One of a single thread runs in the
    caller's, with that thread's priority, and begins with a copy a core. Without tiles it computes in float32.

    Raises:
        RuntimeError: OpenVINO cannot run the graph.
    """

    def __init__(self, graph: bytes, threads: int) -> None:
        self._model = openvino_core().read_model(BytesIO(graph))
        self._wishes = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # every copy would take the same core
        }
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(usable_cores() if threads == 1 else 1):  # making one takes up to seconds
            self._idle.put(self._copy())

    def run(self, images: Pixels, modalities: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors ``[N, D]`` of uint8 ``[N, H, W, 3]`` and int64 ``[N]``."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._copy()
        try:
            request.infer({"image": images, "modality": modalities}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)
        finally:
            self._idle.put(request)

    def _copy(self) -> Any:
        return openvino_core().compile_model(self._model, "CPU", self._wishes).create_infer_request()
