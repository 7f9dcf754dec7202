"""Inference in bfloat16 with OpenVINO. On processors with AMX tiles it is several times as fast as float32."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.embedding.providers import OPENVINO

__all__ = ["Bfloat16Session", "openvino_core"]

_creation = Lock()


class Bfloat16Session:
    """Runs an exported float32 graph in bfloat16, with ``threads`` threads per batch.

    It has the methods of ``onnxruntime.InferenceSession`` that the server uses. Up to ``copies`` callers run at once,
    each on a copy of its own; further callers wait. Copies are used in turn, so ``copies`` runs warm up all of them.
    With one thread, inference runs in the calling thread and at its priority. Without tiles it computes in float32.

    Raises:
        RuntimeError: OpenVINO cannot run the graph.
    """

    def __init__(self, graph: bytes, threads: int, copies: int) -> None:
        model = openvino_core().read_model(BytesIO(graph))
        config = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # pinning would put every copy on the same core
        }
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(copies):  # at start, because compiling one takes up to seconds
            self._idle.put(openvino_core().compile_model(model, "CPU", config).create_infer_request())

    def get_providers(self) -> list[str]:
        """Return the name of the runtime, as ONNX Runtime names its execution providers."""
        return [OPENVINO]

    def run(self, _outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the embeddings ``[N, D]`` of ``image`` uint8 ``[N, H, W, 3]`` and ``modality`` int64 ``[N]``."""
        request = self._idle.get()
        try:
            request.infer(inputs, share_inputs=True)
            return [np.array(request.get_output_tensor(0).data, np.float32)]
        finally:
            self._idle.put(request)


def openvino_core() -> Any:
    """Return the one ``openvino.Core`` of this process, which any thread may use and which is never destroyed.

    Its CPU plugin installs an alternative signal stack in the thread that creates it. If another thread destroyed the
    plugin, the memory would be freed while the thread still points at it, and the next signal would kill the process.
    """
    with _creation:  # ``cache`` alone would allow two threads to create a core each and to destroy one of them
        return _create_core()


@cache
def _create_core() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # prevents usage reporting
    import openvino

    # The first conversion between NumPy and OpenVINO initialises static tables of the binding. Two threads that do so
    # at once deadlock: one waits for the GIL in the initialiser, the other holds it and waits for the initialiser.
    openvino.Tensor(np.zeros(1, np.uint8)).data  # noqa: B018
    return openvino.Core()
