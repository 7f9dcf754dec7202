"""Exact search as an ONNX Runtime graph (product, mask, top k): an alternative to FAISS on a GPU."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from server.domain.types import Vectors
from server.index.gpu import DeviceSegment
from server.index.protocol import Mask, Rows, Scores

__all__ = ["ProductDevice"]

_OPSET = 17


class ProductDevice:
    """A ``GpuDevice`` of ``server.index.gpu``, so that whole indexes can be compared.

    In float16, scores are rounded once more than by FAISS, to 11 bits; the ranking is that of the rounded scores.
    """

    def __init__(self, provider: str, place: str = "cuda", number_type: type[np.floating] = np.float16) -> None:
        self._place, self._type = place, number_type
        if place != "cpu":
            onnxruntime.preload_dlls()
        self._session = onnxruntime.InferenceSession(_graph(number_type), providers=[provider], enable_fallback=0)
        if self._session.get_providers()[0] != provider:
            raise RuntimeError(f"{provider} cannot be used here")

    def free(self) -> int:
        """Return a large number: free memory is unknown, so benchmarks must choose galleries that fit."""
        return 2**62

    def load(self, shape: tuple[int, int], parts: Iterable[Vectors]) -> DeviceSegment:
        """Copy ``[n, D]``, given in parts, to the device."""
        vectors, filled = np.empty(shape, self._type), 0
        for part in parts:
            vectors[filled : filled + len(part)] = part
            filled += len(part)
        return _Segment(self._session, vectors, self._place)


class _Segment:
    def __init__(self, session: onnxruntime.InferenceSession, vectors: NDArray[np.floating], place: str) -> None:
        self._session, self._binding = session, session.io_binding()
        self._vectors = onnxruntime.OrtValue.ortvalue_from_numpy(vectors, place, 0)
        self._binding.bind_ortvalue_input("vectors", self._vectors)

    def search(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Scores, Rows]:
        """See ``DeviceSegment``."""
        allowed = np.ones(self._vectors.shape()[0], np.bool_) if allowed is None else allowed
        self._binding.bind_cpu_input("queries", queries)
        self._binding.bind_cpu_input("k", np.array([k], np.int64))
        self._binding.bind_cpu_input("allowed", np.ascontiguousarray(allowed))
        for name in ("scores", "rows"):
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding)
        scores, rows = self._binding.copy_outputs_to_cpu()
        return scores, rows


def _graph(number_type: type[np.floating]) -> bytes:
    """Return the graph that maps ``queries`` [q, D], ``vectors`` [n, D], ``allowed`` [n] and ``k`` [1] to ``scores``
    and ``rows`` [q, k]."""
    from onnx import TensorProto, helper, numpy_helper

    number = helper.np_dtype_to_tensor_dtype(np.dtype(number_type))
    nodes = [
        helper.make_node("Cast", ["queries"], ["rounded"], to=number),
        helper.make_node("Gemm", ["rounded", "vectors"], ["products"], transB=1),
        helper.make_node("Where", ["allowed", "products", "never"], ["masked"]),
        helper.make_node("TopK", ["masked", "k"], ["largest", "rows"]),
        helper.make_node("Cast", ["largest"], ["scores"], to=TensorProto.FLOAT),
    ]
    inputs = [
        helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["q", "D"]),
        helper.make_tensor_value_info("vectors", number, ["n", "D"]),
        helper.make_tensor_value_info("allowed", TensorProto.BOOL, ["n"]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["q", "best"]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, ["q", "best"]),
    ]
    never = numpy_helper.from_array(np.array(-np.inf, number_type), "never")
    model = helper.make_model(
        helper.make_graph(nodes, "search", inputs, outputs, [never]),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=8,
    )
    return bytes(model.SerializeToString())
