"""The network of ICRE: refined shallow maps (MPFR) enhance the deep map (SDCE) before it is pooled.

Identity Clue Refinement and Enhancement (Zhang et al., arXiv 2512.04522): implemented from the published description;
the unpublished details are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.baseline import Baseline, Output
from models.heads import BNNeck, GeM, classifier

__all__ = ["Icre", "IcreOutput", "Mask", "Refinement", "attention_heads", "deep_width", "shallow_width"]

Mask = Literal["softmax", "sigmoid"]

_DILATIONS = (1, 2, 3)  # receptive fields 3, 5 and 7
_DROPOUT = 0.1
_FEED_FORWARD_RATIO = 2
_DEEP = 4  # number of the enhanced stage


def shallow_width(channels: int) -> int:
    """Return the width of MPFR for the channels of S3: a quarter, within 64 … 256, a multiple of 8."""
    return _width(channels, 64, 256, 8)


def deep_width(channels: int) -> int:
    """Return the width of SDCE for the channels of S4: a quarter, within 128 … 512, a multiple of 64."""
    return _width(channels, 128, 512, 64)


def attention_heads(width: int) -> int:
    """Return the number of attention heads of SDCE: one per 64 channels, at least two."""
    return max(2, width // 64)


def _width(channels: int, least: int, most: int, step: int) -> int:
    return step * ceil(min(most, max(least, channels / 4)) / step)


@dataclass(frozen=True, slots=True)
class IcreOutput(Output):
    """Output of the baseline on the enhanced map, and of the auxiliary head on the map of MPFR."""

    shallow_pooled: Tensor
    shallow_logits: Tensor


class Icre(Baseline):
    """The baseline with ``F_enh = F_4 + Up(·)`` instead of S4's map F_4; the initial output of Up is zero.

    With both parts Up reads the output of SDCE; with only MPFR, the map of MPFR; with only SDCE, SDCE reads S3; with
    neither, the network is the baseline.

    Args:
        backbone, identities, weights: see :class:`models.baseline.Baseline`.
        mpfr: refine the tapped maps; adds an auxiliary classifier for training.
        sdce: enhance the deep map by cross-attention to the shallow one.
        taps: the stages, 1 to 4, that MPFR reads.
        mask: normalisation of the importance of its scales: ``softmax`` (over the scales at each position) or
            ``sigmoid``.
        blocks: transformer blocks in each of SDCE's two stages.
        grid: rows and columns of the learned position embeddings: the size of S4's map in training. They are
            interpolated for a map of another size.
        tap_grad_scale: factor of the gradient from MPFR to the trunk.

    Raises:
        ValueError: ``taps`` is empty or names a stage that does not exist.
    """

    training_only = ("classifier.", "auxiliary.")

    def __init__(
        self,
        backbone: str,
        identities: int,
        weights: str | Path | None = None,
        *,
        mpfr: bool = True,
        sdce: bool = True,
        taps: Sequence[int] = (1, 2, 3),
        mask: Mask = "softmax",
        blocks: int = 1,
        grid: tuple[int, int] = (18, 9),
        tap_grad_scale: float = 1.0,
    ) -> None:
        super().__init__(backbone, identities, weights)
        channels = self.trunk.stage_channels
        if not taps or not set(taps) <= set(range(1, len(channels) + 1)):
            raise ValueError(f"expected taps among the stages 1 to {len(channels)}, found {list(taps)}")
        self.taps, self.tap_grad_scale = tuple(taps), tap_grad_scale
        deep = channels[_DEEP - 1]
        width = deep_width(deep)
        self.refinement: Refinement | None = None
        self.auxiliary: _AuxiliaryHead | None = None
        self.plain: nn.Module | None = None
        self.enhancement: _Enhancement | None = None
        self.up: nn.Module | None = None
        if mpfr:
            tapped = [channels[tap - 1] for tap in self.taps]
            self.refinement = Refinement(tapped, shallow_width(channels[_DEEP - 2]), width, mask)
            self.auxiliary = _AuxiliaryHead(width, identities)
        elif sdce:
            self.plain = _conv_bn_relu(channels[_DEEP - 2], width)
        if sdce:
            self.enhancement = _Enhancement(deep, width, blocks, grid)
        if mpfr or sdce:
            self.up = nn.Sequential(nn.Conv2d(width, deep, 1, bias=False), _zero_batch_norm(deep))

    def forward(self, image: Tensor, modality: Tensor) -> Output:
        """Compute the output, see :meth:`models.baseline.Baseline.forward`; an ``IcreOutput`` with MPFR."""
        stages = self.trunk.run_stages(image, modality)
        shallow = self._shallow(stages)
        pooled = self.pool(self.trunk.post(self._enhanced(stages[-1], shallow)))
        embedding = self.neck(pooled)
        logits = self.classifier(embedding)
        if self.auxiliary is None:
            return Output(pooled, embedding, logits)
        return IcreOutput(pooled, embedding, logits, *self.auxiliary(shallow))

    def feature_map(self, image: Tensor, modality: Tensor) -> Tensor:
        """Return the feature map that is pooled: ``post`` of the enhanced map, ``[N, trunk.channels, h, w]``."""
        stages = self.trunk.run_stages(image, modality)
        out: Tensor = self.trunk.post(self._enhanced(stages[-1], self._shallow(stages)))
        return out

    def _shallow(self, stages: Sequence[Tensor]) -> Tensor | None:
        """Return the map of shallow clues, ``[N, width, h, w]`` on the grid of S4; None without MPFR and SDCE."""
        grid = _size(stages[-1])
        if self.refinement:
            tapped = [_scale_gradient(stages[tap - 1], self.tap_grad_scale) for tap in self.taps]
            refined: Tensor = self.refinement(tapped, grid)
            return refined
        return self.plain(F.adaptive_avg_pool2d(stages[_DEEP - 2], grid)) if self.plain else None

    def _enhanced(self, deep: Tensor, shallow: Tensor | None) -> Tensor:
        if shallow is None or self.up is None:
            return deep
        enhanced: Tensor = deep + self.up(self.enhancement(deep, shallow) if self.enhancement else shallow)
        return enhanced


class Refinement(nn.Module):
    """MPFR: maps of several resolutions, weighted by spatial masks and fused into one on a common grid.

        A_s = ReLU(BN(Conv1x1(pool(F_s))))        U_s = ReLU(BN(mean over dilations 1, 2, 3 of Conv3x3(A_s)))
        a_s = Conv7x7([mean over channels, max over channels of U_s])      M = softmax over s, or sigmoid, of a_s
        F_id = ReLU(BN(Conv1x1([(1 + M_s) U_s for every s])))

    Args:
        channels: channels of each tapped map.
        width: channels of A_s and U_s.
        out: channels of F_id.
        mask: see :class:`Icre`.
    """

    def __init__(self, channels: Sequence[int], width: int, out: int, mask: Mask = "softmax") -> None:
        super().__init__()
        self.align = nn.ModuleList(_conv_bn_relu(tapped, width) for tapped in channels)
        self.perceive = nn.ModuleList(_Perception(width) for _ in channels)
        # One kernel for all scales, without a bias, to which the softmax is invariant.
        self.attend = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.fuse = _conv_bn_relu(len(channels) * width, out)
        self.mask = mask

    def forward(self, maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Fuse maps ``[N, C_s, H_s, W_s]`` into F_id ``[N, out, *grid]``."""
        refined = [
            perceive(align(F.adaptive_avg_pool2d(tapped, grid)))
            for tapped, align, perceive in zip(maps, self.align, self.perceive, strict=True)
        ]
        importance = self.importance(refined)
        fused: Tensor = self.fuse(torch.cat([(1 + m) * u for m, u in zip(importance, refined, strict=True)], 1))
        return fused

    def importance(self, refined: Sequence[Tensor]) -> Tensor:
        """Return the masks M of the maps U_s: ``[scales, N, 1, h, w]``."""
        scores = torch.stack([self.attend(torch.cat([u.mean(1, True), u.amax(1, True)], 1)) for u in refined])
        return scores.softmax(0) if self.mask == "softmax" else scores.sigmoid()


class _Perception(nn.Module):
    """The mean of 3x3 convolutions with several dilations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False) for dilation in _DILATIONS
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(torch.stack([convolve(x) for convolve in self.convolutions]).mean(0)))


class _Enhancement(nn.Module):
    """SDCE: cross-attention from the deep map to the shallow one, then self-attention.

    The tokens of both maps get the same learned position embedding, row + column.
    """

    def __init__(self, deep: int, width: int, blocks: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(deep, width, 1)
        self.rows = nn.Parameter(0.02 * torch.randn(1, width, grid[0]))
        self.columns = nn.Parameter(0.02 * torch.randn(1, width, grid[1]))
        self.distil = nn.ModuleList(_Block(width, cross=True) for _ in range(blocks))
        self.enhance = nn.ModuleList(_Block(width, cross=False) for _ in range(blocks))

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Combine the deep map ``[N, C_4, h, w]`` and the shallow map ``[N, width, h, w]``: ``[N, width, h, w]``."""
        grid = _size(deep)
        position = _interpolated(self.rows, grid[0])[..., :, None] + _interpolated(self.columns, grid[1])[..., None, :]
        tokens, source = (_tokens(x + position) for x in (self.reduce(deep), shallow))
        for block in self.distil:
            tokens = block(tokens, source)
        for block in self.enhance:
            tokens = block(tokens, None)
        return tokens.transpose(1, 2).reshape(-1, tokens.shape[2], *grid)


class _Block(nn.Module):
    """Pre-norm attention and feed-forward with residual connections; ``cross``: attention to another set of tokens."""

    def __init__(self, width: int, *, cross: bool) -> None:
        super().__init__()
        heads = attention_heads(width)
        self.norm = nn.LayerNorm(width)
        self.source_norm = nn.LayerNorm(width) if cross else None
        self.attention = nn.MultiheadAttention(width, heads, _DROPOUT, bias=False, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, _FEED_FORWARD_RATIO * width),
            nn.GELU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_FEED_FORWARD_RATIO * width, width),
            nn.Dropout(_DROPOUT),
        )

    def forward(self, tokens: Tensor, source: Tensor | None) -> Tensor:
        """Transform tokens ``[N, n, width]``; ``source``: tokens that cross-attention reads keys and values from."""
        queries = self.norm(tokens)
        keys = queries if self.source_norm is None else self.source_norm(source)
        tokens = tokens + self.attention(queries, keys, keys, need_weights=False)[0]
        out: Tensor = tokens + self.feed_forward(tokens)
        return out


class _AuxiliaryHead(nn.Module):
    """Classify F_id in training, so that MPFR learns from the first step."""

    def __init__(self, channels: int, identities: int) -> None:
        super().__init__()
        self.pool = GeM()
        self.neck = BNNeck(channels)
        self.classifier = classifier(channels, identities)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled vectors ``[N, channels]`` and logits ``[N, identities]`` of F_id."""
        pooled = self.pool(x)
        return pooled, self.classifier(self.neck(pooled))


def _conv_bn_relu(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def _zero_batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.zeros_(norm.weight)
    return norm


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _interpolated(positions: Tensor, length: int) -> Tensor:
    """Interpolate positions ``[1, width, n]`` to ``length``."""
    return positions if positions.shape[2] == length else F.interpolate(positions, length, mode="linear")


def _scale_gradient(x: Tensor, scale: float) -> Tensor:
    """Return the same values with ``scale`` times the gradient."""
    return x if scale == 1 else torch.lerp(x.detach(), x, scale)
