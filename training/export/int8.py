"""Quantisation of an exported fp32 graph to int8 with the same inputs and output: static ranges, QDQ format.

Weights are symmetric int8 per channel, activations uint8 per tensor: the combination that VNNI multiplies without
saturation. If convolutions read the normalised image, they read the uint8 image instead, with the normalisation in
their weights; if another layer reads it (an instance norm of the input), it is normalised in float. Operations on
vectors stay in float: gates from channel means, pooling, neck, unit length. So does the input of an instance norm,
because the division by the standard deviation within an image amplifies the rounding error of low-contrast images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from training.evaluation.embedder import graph_embedder

__all__ = ["Crops", "Quantiser", "drop_unread", "readers_of", "widen_weights"]

_QUANTISED = ("Conv", "Add", "MaxPool", "Where", "Relu", "Clip")
_BATCH = 4
_EVERY = 3  # odd, since visible and infrared crops alternate
_PIXELS, _PLANES = "pixels", "planes"
_NORMALISATION = ["Cast", "Transpose", "Div", "Sub", "Div"]


@dataclass(frozen=True, slots=True)
class Crops:
    """Images of both modalities: uint8 RGB ``[N, H, W, 3]`` and int64 ``[N]``."""

    images: NDArray[np.uint8]
    modalities: NDArray[np.int64]

    def batches(self) -> Iterator[dict[str, NDArray[np.generic]]]:
        """Yield the inputs of the graph, ``_BATCH`` crops at a time."""
        for start in range(0, len(self.images), _BATCH):
            rows = slice(start, start + _BATCH)
            yield {"image": self.images[rows], "modality": self.modalities[rows]}


class Quantiser:
    """Quantises an exported fp32 graph to int8; the ranges of its activations are measured once, on ``crops``.

    Raises:
        ValueError: the graph does not begin like an exported one.
    """

    def __init__(self, graph: bytes, crops: Crops, scratch: Path) -> None:
        self._crops, self._ranges = crops, scratch / "ranges.json"
        self._source = scratch / "pixels.onnx"
        self._exact = graph
        model = onnx.load_from_string(graph)
        widen_weights(model)
        self._grey = _read_pixels(model)
        onnx.save(model, self._source)
        roundable = _roundable(model)
        self._in_float = [node.name for node in model.graph.node if node.name not in roundable]
        self.layers = [node.name for node in model.graph.node if node.op_type == "Conv" and node.name in roundable]
        """Names of the convolutions that can be in int8, from input to output."""
        self._weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}

    def layers_of(self, part: str) -> list[str]:
        """The layers whose weights belong to that part of the network, such as ``trunk.stages.0``.

        Raises:
            ValueError: there is none.
        """
        found = [layer for layer in self.layers if f".{part}." in f".{self._weights[layer]}"]
        if not found:
            raise ValueError(f"expected a part of the network such as trunk.stages.0, found {part!r}: it has no layer")
        return found

    def quantise(self, *, in_float: Sequence[str] = (), only: Sequence[str] = ()) -> bytes:
        """The graph in int8, but for the layers ``in_float``; with ``only``, nothing but those layers."""
        out = self._source.with_name("int8.onnx")
        with _without_advice():
            quantize_static(
                self._source,
                out,
                _Reader(self._crops),
                op_types_to_quantize=list(_QUANTISED),
                nodes_to_quantize=list(only),
                nodes_to_exclude=[*self._in_float, *in_float],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibration_cache_path=self._ranges,
                extra_options={
                    "ActivationSymmetric": False,
                    "WeightSymmetric": True,
                    "TensorQuantOverrides": {} if self._grey is None else _exact_pixels(self._grey),
                },
            )
        model = onnx.load(out)
        if self._grey is not None:
            _feed_uint8_images(model)
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content

    def most_sensitive(self) -> list[str]:
        """Return the layers, first those whose quantisation changes the embeddings of some calibration crops most."""
        some = Crops(self._crops.images[::_EVERY], self._crops.modalities[::_EVERY])
        exact = _embed(self._exact, some)
        error = {}
        for layer in self.layers:
            rounded = _embed(self.quantise(only=[layer]), some)
            error[layer] = 1 - float((exact * rounded).sum(1).mean())
        return sorted(self.layers, key=error.__getitem__, reverse=True)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, crops: Crops) -> None:
        self._batches = crops.batches()

    def get_next(self) -> Mapping[str, NDArray[np.generic]] | None:
        return next(self._batches, None)


def _embed(graph: bytes, crops: Crops) -> NDArray[np.float32]:
    embed = graph_embedder(graph)
    return np.concatenate([embed(batch["image"], batch["modality"]) for batch in crops.batches()])  # type: ignore[arg-type]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Suppress the recommendation of a preparation that the exporter has already done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def widen_weights(model: onnx.ModelProto) -> None:
    """Convert weights that are stored as float16 to float32 initialisers without a Cast."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Cast" and node.input[0] in stored:
            half = stored[node.input[0]]
            half.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(half).astype(np.float32), node.output[0]))
            graph.node.remove(node)


def _roundable(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes whose output is a map larger than 1 × 1 that no instance norm reads."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in graph.value_info}
    normed = {node.input[0] for node in graph.node if node.op_type == "InstanceNormalization"}
    found = [(node, shapes.get(node.output[0], [])) for node in graph.node]
    return {
        node.name for node, shape in found if len(shape) == 4 and shape[2:] != [1, 1] and normed.isdisjoint(node.output)
    }


def _exact_pixels(grey: int) -> dict[str, list[dict[str, NDArray[np.generic]]]]:
    """Return the quantisation override that represents pixels exactly."""
    return {_PIXELS: [{"scale": np.array(1, np.float32), "zero_point": np.array(grey, np.uint8)}]}


def _read_pixels(model: onnx.ModelProto) -> int | None:
    """Move the normalisation into the first convolutions, which then read ``pixel - grey``; return grey, 0 to 255.

    Returns None and does not change the graph if another layer than a convolution reads the normalised pixels.

    Grey is the mean pixel. Zero padding corresponds to the mean colour before the change and to grey after it, so
    results at the border differ by the differences between the channel means.
    """
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = readers_of(graph)
    chains = [_chain(node, readers)[: len(_NORMALISATION)] for node in readers["image"] if node.op_type == "Cast"]
    if not chains or any([node.op_type for node in chain] != _NORMALISATION for chain in chains):
        raise ValueError("the graph does not begin with the normalisation that `vireid export` writes: export it again")
    if any(reader.op_type != "Conv" for chain in chains for reader in readers[chain[-1].output[0]]):
        return None
    grey = round(float(np.mean([weights[c[3].input[1]] * weights[c[2].input[1]] for c in chains])))
    for chain in chains:
        full, mean, std = (weights[node.input[1]].astype(np.float64).reshape(-1) for node in chain[2:])
        for layer in readers[chain[-1].output[0]]:
            kernel = weights[layer.input[1]] / (full * std)[:, None, None]
            shift = (kernel * (grey - full * mean)[:, None, None]).sum((1, 2, 3))
            bias = weights[layer.input[2]] if len(layer.input) > 2 else 0
            names = [f"{layer.name}.{part}" for part in ("kernel", "bias")]
            for name, value in zip(names, (kernel, bias + shift), strict=True):
                graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
            layer.input[:] = [_PIXELS, *names]
        for node in chain:
            graph.node.remove(node)
    graph.initializer.append(numpy_helper.from_array(np.array(grey, np.float32), "grey"))
    entrance = (
        helper.make_node("Transpose", ["image"], [_PLANES], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [_PLANES], ["levels"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", ["levels", "grey"], [_PIXELS]),
    )
    for place, node in enumerate(entrance):
        graph.node.insert(place, node)
    drop_unread(graph)
    return grey


def _feed_uint8_images(model: onnx.ModelProto) -> None:
    """Feed the uint8 planes directly to the first layers, without a conversion to float and back."""
    graph = model.graph
    rounding = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == _PIXELS]
    for quantise in rounding:
        for node in readers_of(graph)[quantise.output[0]]:
            node.input[0] = _PLANES
        graph.node.remove(quantise)
    readers = readers_of(graph)
    for node in reversed(list(graph.node)):
        if node.output[0] in (_PIXELS, "levels") and not any(r in graph.node for r in readers.get(node.output[0], [])):
            graph.node.remove(node)
            readers = readers_of(graph)
    drop_unread(graph)


def _chain(node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    """Return the node and its successors up to the first convolution or branch."""
    chain = [node]
    while len(following := readers[chain[-1].output[0]]) == 1 and following[0].op_type != "Conv":
        chain.append(following[0])
    return chain


def readers_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes that read each tensor."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove weights that no node reads, and the descriptions of intermediate tensors."""
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    del graph.value_info[:]
