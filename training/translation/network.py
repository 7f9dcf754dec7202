"""Network of the translator: it predicts the infrared level and the gain of the visible detail at each pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.translation.channel import LUMA
from training.translation.smoothing import NOISE, detail, smooth

__all__ = ["FORMAT", "Parts", "TranslationNetwork", "load_network"]

FORMAT = 2
"""Version of a translator's file; version 1 was a plain U-Net."""


class Parts(NamedTuple):
    """A translation is ``level + detail``; both ``[N, 1, H, W]``."""

    level: Tensor
    """Smooth, in [0, 1]."""
    detail: Tensor
    """High frequencies, with a local mean of about 0."""


class TranslationNetwork(nn.Module):
    """Translates visible to infrared images: uint8 RGB ``[N, H, W, 3]`` → grey in [0, 1] ``[N, 1, H, W]``.

    The minimum size is 16 × 16. A network that predicts the whole image produces a blur, since the temperature of
    clothes is not visible. This one predicts a smooth level, a mixture of the colours, and a gain for the detail of the
    mixture, which is normalised to a local standard deviation of about 1: ``t = level + gain · detail``. The gain is
    not negative, because the sign of a contrast is not visible either and an inverted contrast would change the
    person's appearance. All maps come from a small U-Net (Ronneberger et al., MICCAI 2015) whose output has a quarter
    of the resolution, so that it cannot add outlines; group norm makes translations independent of the batch.

    Args:
        widths: channels at half, quarter and eighth resolution.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise((3, *widths)))
        self.up = _block(widths[-2] + widths[-1], widths[-2])
        self.last = nn.Conv2d(widths[-2], 5, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # the initial output is a constant level with the detail of luma
        self.last.bias = nn.Parameter(torch.tensor([0.0, -2.0, *map(math.log, LUMA)]))

    def forward(self, image: Tensor) -> Tensor:
        parts = self.parts(image)
        return (parts.level + parts.detail).clamp(0, 1)

    def parts(self, image: Tensor) -> Parts:
        """Compute the level and detail of a translation."""
        colours = image.permute(0, 3, 1, 2).float() / 255
        features = [2 * colours - 1]
        for block in self.down:
            features.append(block(features[-1]))
        coarse = F.interpolate(features[-1], size=features[-2].shape[2:], mode="bilinear", align_corners=False)
        maps = self.last(self.up(torch.cat([features[-2], coarse], 1)))
        maps = F.interpolate(maps, size=colours.shape[2:], mode="bilinear", align_corners=False)
        level, gain, shares = maps.split((1, 1, 3), 1)
        high, deviation = detail((shares.softmax(1) * colours).sum(1, keepdim=True))
        return Parts(smooth(level.sigmoid()), F.softplus(gain) * high / (deviation + NOISE))


def load_network(path: Path) -> tuple[TranslationNetwork, dict[str, Any]]:
    """Load a translator in evaluation mode on the CPU, and the fields of its ``TranslatorConfig``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a translator, or one of an earlier version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        state = None
    if not isinstance(state, dict) or "translator" not in state:
        raise ValueError(f"{path}: not a translator; expected the file of `vireid translator train`")
    if state.get("format") != FORMAT:
        raise ValueError(f"{path}: a translator of an earlier version; train it again with `vireid translator train`")
    network = TranslationNetwork()
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
