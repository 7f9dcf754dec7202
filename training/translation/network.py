"""The translator's network: it says how bright a place is in infrared, and what of the visible detail shows there."""

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
from training.translation.smoothing import FAINT, detail, smooth

__all__ = ["FORMAT", "Parts", "TranslationNetwork", "load_network"]

FORMAT = 2
"""Of a translator's file; 1 held a plain U-Net."""


class Parts(NamedTuple):
    """A translation is ``level + detail``; both ``[N, 1, H, W]``."""

    level: Tensor
    """Smooth, in [0, 1]."""
    detail: Tensor
    """About 0 on a local average."""


class TranslationNetwork(nn.Module):
    """Visible in, infrared out, pixel by pixel: uint8 RGB ``[N, H, W, 3]`` → grey in [0, 1] ``[N, 1, H, W]``.

    Any size from 16 × 16 on. A network that makes all of the picture makes a blur, the same for everybody, since how
    warm a coat is cannot be seen. Here it makes a smooth level, a mixture of the colours, and a gain for the mixture's
    detail, which is brought to a local deviation of about 1 before: ``t = level + gain · detail``. The gain is never
    negative: which contrasts turn round cannot be seen either, and a picture in which some have is no longer that of
    the same person. All maps come from a small U-Net (Ronneberger et al., MICCAI 2015) that ends at quarter resolution,
    so that no outline can be drawn that the picture does not show; group norm keeps a picture's translation apart from
    the others of its batch.

    Args:
        widths: channels at half, quarter and eighth resolution.
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise((3, *widths)))
        self.up = _block(widths[-2] + widths[-1], widths[-2])
        self.last = nn.Conv2d(widths[-2], 5, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # it starts as a flat level with the detail of luma
        self.last.bias = nn.Parameter(torch.tensor([0.0, -2.0, *map(math.log, LUMA)]))

    def forward(self, image: Tensor) -> Tensor:
        parts = self.parts(image)
        return (parts.level + parts.detail).clamp(0, 1)

    def parts(self, image: Tensor) -> Parts:
        """What a translation is the sum of."""
        colours = image.permute(0, 3, 1, 2).float() / 255
        kept = [2 * colours - 1]
        for block in self.down:
            kept.append(block(kept[-1]))
        coarse = F.interpolate(kept[-1], size=kept[-2].shape[2:], mode="bilinear", align_corners=False)
        maps = self.last(self.up(torch.cat([kept[-2], coarse], 1)))
        maps = F.interpolate(maps, size=colours.shape[2:], mode="bilinear", align_corners=False)
        level, gain, shares = maps.split((1, 1, 3), 1)
        high, deviation = detail((shares.softmax(1) * colours).sum(1, keepdim=True))
        return Parts(smooth(level.sigmoid()), F.softplus(gain) * high / (deviation + FAINT))


def load_network(path: Path) -> tuple[TranslationNetwork, dict[str, Any]]:
    """A learnt translator in evaluation mode on the CPU, and the fields of the ``TranslatorConfig`` that made it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is another kind of file, or one of an earlier version.
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
