"""The translator's network: a small U-Net from visible to infrared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["UNet", "load_network"]


class UNet(nn.Module):
    """Visible in, infrared out, pixel by pixel: uint8 RGB ``[N, H, W, 3]`` → grey in [0, 1] ``[N, 1, H, W]``.

    Any size from 16 × 16 on. Ronneberger et al., MICCAI 2015, with two changes: group norm, so that a picture's
    translation does not depend on the others of its batch, and half resolution inside, where nearly all the time goes;
    the last layer sees the picture itself beside it.

    Args:
        widths: channels at half, quarter, eighth … resolution.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise((3, *widths)))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in reversed([*pairwise(widths)]))
        self.last = nn.Conv2d(widths[0] + 3, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        kept = [image.permute(0, 3, 1, 2).float() / 127.5 - 1]
        for block in self.down:
            kept.append(block(kept[-1]))
        feature = kept.pop()
        for block in (*self.up, self.last):
            skip = kept.pop()
            feature = F.interpolate(feature, size=skip.shape[2:], mode="bilinear", align_corners=False)
            feature = block(torch.cat([skip, feature], 1))
        return torch.sigmoid(feature)


def load_network(path: Path) -> tuple[UNet, dict[str, Any]]:
    """A learnt translator in evaluation mode on the CPU, and the fields of the ``LearningConfig`` that made it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is another kind of file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        state = None
    if not isinstance(state, dict) or "translator" not in state:
        raise ValueError(f"{path}: not a translator; expected the file of `vireid translator train`")
    network = UNet()
    network.load_state_dict(state["network"])
    return network.eval(), state["translator"]


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )
