"""A graph in bfloat16 by OpenVINO: processors with tiles (AMX) multiply it many times as fast as float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bfloat import openvino_core
from server.embedding.cores import usable_cores
from server.embedding.providers import OPENVINO

__all__ = ["Bfloat16Session"]


class Bfloat16Session:
    """Runs an exported float32 graph in bfloat16, but for what it keeps itself, with ``threads`` for each batch.

    What is asked of it is named as in ``onnxruntime.InferenceSession``, whose place it takes.

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

    def get_providers(self) -> list[str]:
        """What runs it."""
        return [OPENVINO]

    def run(self, _outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The one output, vectors ``[N, D]``, of ``image`` uint8 ``[N, H, W, 3]`` and ``modality`` int64 ``[N]``."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._copy()
        try:
            request.infer(inputs, share_inputs=True)
            return [np.array(request.get_output_tensor(0).data, np.float32)]
        finally:
            self._idle.put(request)

    def _copy(self) -> Any:
        return openvino_core().compile_model(self._model, "CPU", self._wishes).create_infer_request()
