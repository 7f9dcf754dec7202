"""A graph in bfloat16 by OpenVINO: processors with tiles (AMX) multiply it many times as fast as float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bfloat import openvino_core
from server.embedding.providers import OPENVINO

__all__ = ["Bfloat16Session"]


class Bfloat16Session:
    """Runs an exported float32 graph in bfloat16, but for what it keeps itself, with ``threads`` for each batch.

    What is asked of it is named as in ``onnxruntime.InferenceSession``, whose place it takes.

    As many callers as ``copies`` run at once, each in one that nobody else is in; more wait for their turn. Copies
    take turns, too, so that as many runs as there are copies warm up all. A single thread is the caller's own, with its
    priority. Without tiles it computes in float32.

    Raises:
        RuntimeError: OpenVINO cannot run the graph.
    """

    def __init__(self, graph: bytes, threads: int, copies: int) -> None:
        model = openvino_core().read_model(BytesIO(graph))
        wishes = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # every copy would take the same core
        }
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(copies):  # here, because making one takes up to seconds
            self._idle.put(openvino_core().compile_model(model, "CPU", wishes).create_infer_request())

    def get_providers(self) -> list[str]:
        """What runs it."""
        return [OPENVINO]

    def run(self, _outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The one output, vectors ``[N, D]``, of ``image`` uint8 ``[N, H, W, 3]`` and ``modality`` int64 ``[N]``."""
        request = self._idle.get()
        try:
            request.infer(inputs, share_inputs=True)
            return [np.array(request.get_output_tensor(0).data, np.float32)]
        finally:
            self._idle.put(request)
