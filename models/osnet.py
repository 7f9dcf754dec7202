"""OSNet with instance norm and linear context gates, as the Open Model Zoo's person re-identification networks use it.

Omni-scale residual blocks: Zhou et al., ICCV 2019 (OSNet); instance norm of the input and of the first convolution's
map, as in Zhou et al., TPAMI 2021 (OSNet-AIN); gates from a group norm of the channel means: Ruan et al., AAAI 2020
(linear context transform). The batch norms are folded into the convolutions, so there are no batch statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "OSNETS", "LearnedPooling", "OsNet", "Widths", "load_osnet"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DIMENSION = 256
"""Length of an embedding."""
_GROUPS = 16
_REDUCTION = 16


class Widths(NamedTuple):
    """Channels of the stem and of the three pairs of blocks."""

    stem: int
    first: int
    second: int
    third: int


OSNETS = {
    "osnet_x1_0": Widths(64, 256, 384, 512),
    "osnet_x0_75": Widths(48, 192, 288, 384),
    "osnet_x0_5": Widths(32, 128, 192, 256),
}
"""Backbones by name. Their names in the Open Model Zoo: person-reidentification-retail-0277, -0286 and -0287."""


class OsNet(nn.Module):
    """The parts of a network for one modality: ``stem``, four ``stages``, ``post``, ``pool`` and ``neck``.

    The stages are the first pair of blocks, the second pair, and each block of the third pair; the last two have the
    same resolution, a sixteenth of the input's.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.InstanceNorm2d(3, affine=True),
            nn.Conv2d(3, widths.stem, 7, 2, 3, bias=False),
            nn.InstanceNorm2d(widths.stem, affine=True),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        halve = nn.AvgPool2d(2, 2)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*_pair(widths.stem, widths.first), _Pointwise(widths.first, widths.first)),
                nn.Sequential(halve, *_pair(widths.first, widths.second), _Pointwise(widths.second, widths.second)),
                nn.Sequential(halve, _Block(widths.second, widths.third, _SqueezeGate)),
                _Block(widths.third, widths.third, _ContextGate),
            ]
        )
        self.post = _Pointwise(widths.third, widths.third)
        self.pool = LearnedPooling(widths.third, DIMENSION)
        self.neck = _Neck(DIMENSION)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed normalised RGB ``[N, 3, H, W]``: ``[N, 256]``, not of unit length."""
        x = self.stem(pixels)
        for stage in self.stages:
            x = stage(x)
        embedding: Tensor = self.neck(self.pool(self.post(x)))
        return embedding

    def in_order(self) -> Iterator[nn.Parameter]:
        """Yield the parameters in order of use; those of a gate once for each of its four uses."""
        yield from self.stem.parameters()
        for module in (*self.stages, self.post, self.pool):
            for part in module.modules():
                if isinstance(part, _Block | _Pointwise | LearnedPooling) and not isinstance(part, _InBlock):
                    yield from part.in_order()
        yield from self.neck.parameters()


class _Pointwise(nn.Sequential):
    """1×1 convolution and ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(nn.Conv2d(channels, out, 1), nn.ReLU(inplace=True))

    def in_order(self) -> Iterator[nn.Parameter]:
        yield from self.parameters()


class _InBlock(_Pointwise):
    """The first layer of a block; its parameters are yielded by the block."""


class _Lite(nn.Sequential):
    """1×1 convolution, depthwise 3×3 convolution, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.ReLU(inplace=True),
        )


class _SqueezeGate(nn.Module):
    """Channel weights in (0, 1), computed from the channel means by a bottleneck layer (OSNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // _REDUCTION, 1)
        self.expand = nn.Conv2d(channels // _REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(means))))


class _ContextGate(nn.Module):
    """Channel weights in (0, 1), computed from the channel means normalised in 8 or 16 groups (linear context)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(gcd(_GROUPS, channels), channels)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        return x * torch.sigmoid(self.norm(means))[..., None, None]


class _Block(nn.Module):
    """Four streams of one to four small convolutions, summed after a shared gate, with a residual connection."""

    def __init__(self, channels: int, out: int, gate: type[_SqueezeGate] | type[_ContextGate]) -> None:
        super().__init__()
        width = out // 4
        self.reduce = _InBlock(channels, width)
        self.streams = nn.ModuleList(nn.Sequential(*(_Lite(width) for _ in range(depth))) for depth in range(1, 5))
        self.gate = gate(width)
        self.expand = nn.Conv2d(width, out, 1)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        streams = [self.gate(stream(reduced)) for stream in self.streams]
        mixed = self.expand(streams[0] + streams[1] + streams[2] + streams[3])
        return F.relu(mixed + (x if self.shortcut is None else self.shortcut(x)))

    def in_order(self) -> Iterator[nn.Parameter]:
        yield from self.reduce.parameters()
        for stream in self.streams:
            yield from stream.parameters()
            yield from self.gate.parameters()
        yield from self.expand.parameters()
        if self.shortcut is not None:
            yield from self.shortcut.parameters()


def _pair(channels: int, out: int) -> tuple[_Block, _Block]:
    return _Block(channels, out, _SqueezeGate), _Block(out, out, _ContextGate)


class LearnedPooling(nn.Module):
    """Pool with a learned weight for each position and channel, then mix the channels: ``[N, C, h, w]`` → ``[N, D]``.

    The weights are learned on a map of size ``grid`` (16 × 8 for crops of 256 × 128). For a map of another size they
    are resampled by area, which preserves the sum over every region.
    """

    def __init__(self, channels: int, out: int, grid: tuple[int, int] = (16, 8)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, *grid), 1 / (grid[0] * grid[1])))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.mix = nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        pooled = (x.float() * self._resampled(height, width)).sum((2, 3)) + self.bias
        mixed: Tensor = self.mix(pooled)
        return mixed

    def in_order(self) -> Iterator[nn.Parameter]:
        yield from (self.weight, self.bias, *self.mix.parameters())

    def _resampled(self, height: int, width: int) -> Tensor:
        rows, columns = self.weight.shape[1:]
        if (rows, columns) == (height, width):
            return self.weight
        down, across = (_overlaps(new, old).to(self.weight) for new, old in ((height, rows), (width, columns)))
        return down @ self.weight @ across.T


def _overlaps(new: int, old: int) -> Tensor:
    """Return the share of each of ``old`` equal cells that overlaps each of ``new`` equal cells: ``[new, old]``."""
    edges, others = np.linspace(0, old, new + 1), np.arange(old)
    upper = np.minimum(edges[1:, None], others + 1)
    lower = np.maximum(edges[:-1, None], others)
    return torch.from_numpy(np.maximum(upper - lower, 0))


class _Neck(nn.Module):
    """Scale and offset of each channel (a folded batch norm), then PReLU with one slope: ``[N, D]`` → ``[N, D]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x * self.weight + self.bias, self.slope)


def load_osnet(name: str, file: Path | None) -> OsNet:
    """Build the backbone ``name`` of :data:`OSNETS`, with the weights of ``file`` or random ones.

    ``file``: the ``.xml`` of the Open Model Zoo's network (its ``.bin`` beside it) or its ``.onnx``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not that network.
    """
    network = OsNet(OSNETS[name])
    if file is not None:
        _fill(network, _constants(file), file, name)
    return network


@torch.no_grad()
def _fill(network: OsNet, constants: list[NDArray[np.float32]], file: Path, name: str) -> None:
    parameters = list(network.in_order())
    constants = constants[-len(parameters) :]  # an IR begins with the input's mean and scale, which the norm cancels
    found = [constant.size for constant in constants]
    if found != [parameter.numel() for parameter in parameters]:
        known = ", ".join(OSNETS)
        raise ValueError(f"{file}: not the weights of {name} (its tensors have other sizes); known networks: {known}")
    filled: set[int] = set()
    for parameter, constant in zip(parameters, constants, strict=True):
        value = torch.from_numpy(constant).reshape(parameter.shape)
        if id(parameter) in filled and not torch.equal(parameter, value):
            raise ValueError(f"{file}: not the weights of {name} (a gate differs between the streams of a block)")
        parameter.copy_(value)
        filled.add(id(parameter))


def _constants(file: Path) -> list[NDArray[np.float32]]:
    """Return the trained tensors of a graph in the order in which its layers use them."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; `vireid weights` shows where to get it")
    import openvino

    # conversion folds the batch norms of an ONNX file; in an IR they are folded already
    model = openvino.Core().read_model(file) if file.suffix == ".xml" else openvino.convert_model(file)
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() in _WEIGHTED]
    return [value for op in layers for source in op.inputs() if (value := _constant(source)) is not None]


_WEIGHTED = frozenset({"Subtract", "Multiply", "Add", "Convolution", "GroupConvolution", "MatMul", "PRelu"})


def _constant(source: object) -> NDArray[np.float32] | None:
    """Return the constant input of a layer as float32; None for any other input."""
    node = source.get_source_output().get_node()  # type: ignore[attr-defined]
    if node.get_type_name() == "Convert":  # weights stored as float16
        node = node.input_value(0).get_node()
    return np.array(node.data, np.float32) if node.get_type_name() == "Constant" else None
