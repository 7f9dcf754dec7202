"""Weights in an exported graph, by the names that they have in the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

__all__ = ["name_weights", "read_weights"]

_PREFIX = "network."
"""Of the name of a weight in a graph; behind it stands its name in the network."""


def name_weights(graph: onnx.GraphProto, network: nn.Module) -> None:
    """Call each weight what the network calls it: the exporter renames those that it reshapes."""
    unnamed = {tensor.name: tensor for tensor in graph.initializer if not tensor.name.startswith(_PREFIX)}
    named = {tensor.name for tensor in graph.initializer} - unnamed.keys()
    names: dict[str, str] = {}
    for name, weight in network.named_parameters():
        if _PREFIX + name in named:
            continue
        values = weight.detach().cpu().numpy().tobytes()
        same = [found for found, tensor in unnamed.items() if _float_bytes(tensor) == values and found not in names]
        if len(same) == 1:
            names[same[0]] = _PREFIX + name
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights of an exported graph by their names in the network, float32.

    Raises:
        OSError: the file cannot be read.
    """
    found = {}
    for tensor in onnx.load(str(file)).graph.initializer:
        if tensor.name.startswith(_PREFIX):
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            found[tensor.name.removeprefix(_PREFIX).removesuffix(".float16")] = torch.from_numpy(array)
    return found


def _float_bytes(tensor: onnx.TensorProto) -> bytes | None:
    is_float = tensor.data_type == onnx.TensorProto.FLOAT
    return onnx.numpy_helper.to_array(tensor).tobytes() if is_float else None
