"""Conversion of an exported fp32 graph to fp16 for GPUs, with the same inputs and outputs.

The layers before the first convolution (normalisation) and after the last one (pooling, neck, unit length) stay in
float32, since the precision or range of fp16 is insufficient there.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.export.int8 import drop_unread, readers_of, widen_weights

__all__ = ["to_fp16"]

_SUFFIX = {TensorProto.FLOAT: ".fp32", TensorProto.FLOAT16: ".fp16"}


def to_fp16(graph: bytes) -> bytes:
    """Convert the graph to fp16; its inputs and output keep their types."""
    model = onnx.load_from_string(graph)
    widen_weights(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {info.name: info.type.tensor_type.elem_type for info in (*inferred.value_info, *inferred.output)}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    halved = _between_convolutions(model.graph)
    nodes: list[onnx.NodeProto] = []
    cast: set[str] = set()
    for node in model.graph.node:
        own = TensorProto.FLOAT16 if node.name in halved else TensorProto.FLOAT
        for place, name in enumerate(node.input):
            if kinds.get(name) not in _SUFFIX or kinds[name] == own:
                continue
            node.input[place] = other = name + _SUFFIX[own]
            if other in cast:
                continue
            cast.add(other)
            if name in stored:
                rounded = numpy_helper.to_array(stored[name]).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(rounded, other))
            else:
                nodes.append(helper.make_node("Cast", [name], [other], to=own))
        nodes.append(node)
        kinds |= {name: own for name in node.output if kinds.get(name) in _SUFFIX}
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unread(model.graph)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _between_convolutions(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the convolutions and of the nodes between them."""
    readers = readers_of(graph)
    convolutions = {node.name for node in graph.node if node.op_type == "Conv"}
    behind, before = set(convolutions), set(convolutions)
    for node in graph.node:  # in topological order
        if node.name in behind:
            behind.update(reader.name for name in node.output for reader in readers.get(name, ()))
    for node in reversed(graph.node):
        if any(reader.name in before for name in node.output for reader in readers.get(name, ())):
            before.add(node.name)
    return behind & before
