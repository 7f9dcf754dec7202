"""Heads that convert a feature map to vectors: generalised-mean pooling, batch-norm neck, classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BNNeck", "GeM", "classifier"]


class GeM(nn.Module):
    """Generalised-mean pooling, ``(mean of clamp(x, eps)^p)^(1/p)``: ``[N, C, H, W]`` → float32 ``[N, C]``.

    Radenović et al., TPAMI 2019; p = 3 fixed. The clamp keeps signed maps finite.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p, self.eps = p, eps

    def forward(self, x: Tensor) -> Tensor:
        return x.float().clamp(min=self.eps).pow(self.p).mean((2, 3)).pow(1 / self.p)


class BNNeck(nn.BatchNorm1d):
    """Batch norm between the metric space and the retrieval space, with its bias frozen at 0 (Luo et al., 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        nn.init.normal_(self.weight, 1.0, 0.01)
        self.bias.requires_grad_(False)


def classifier(channels: int, identities: int) -> nn.Linear:
    """Build an identity classifier without bias, its weights drawn from N(0, 0.001)."""
    layer = nn.Linear(channels, identities, bias=False)
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.001)
    return layer
