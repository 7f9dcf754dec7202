"""Heat maps of the contribution of each position to an embedding (HiResCAM, Draelos and Carin, 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["attention", "draw_heatmaps"]

Pixels = NDArray[np.uint8]
Attention = NDArray[np.float32]


def attention(network: nn.Module, image: Tensor, modality: Tensor, target: Tensor | None = None) -> Attention:
    """Compute the contribution of each position of an image to its similarity with a target.

    The similarity is the inner product of the embedding, before normalisation, and the target. The contribution of a
    position is the product of the last feature map and its gradient; since pooling is homogeneous, the contributions
    add up to the similarity, except for the constant of the neck. Negative contributions are set to 0.

    Args:
        network: has a ``pool`` over its last feature map and an output with an ``embedding``, like every network of
            ``models``. Its training mode is restored.
        image: uint8 ``[N, H, W, 3]``.
        modality: int64 ``[N]``.
        target: unit vectors ``[N, D]``; None: each image's own embedding.

    Returns float32 ``[N, H, W]`` with the maximum 1 in each image (0 everywhere without a positive contribution).
    """
    found: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        found.append(inputs[0].detach().requires_grad_())
        return found[0]

    was_training = network.training
    network.eval()
    hook = network.get_submodule("pool").register_forward_pre_hook(keep)
    try:
        with torch.enable_grad():
            embedding: Tensor = network(image, modality).embedding
            goal = F.normalize(embedding.detach(), dim=1) if target is None else target
            (gradient,) = torch.autograd.grad((embedding * goal).sum(), found[0])
    finally:
        hook.remove()
        network.train(was_training)
    share = (found[0].detach() * gradient).sum(dim=1, keepdim=True).relu()
    height, width = image.shape[1:3]
    maps = F.interpolate(share.float(), (height, width), mode="bilinear", align_corners=False)[:, 0]
    largest = maps.amax(dim=(1, 2), keepdim=True)
    result: Attention = torch.where(largest > 0, maps / largest, 0).cpu().numpy()
    return result


def draw_heatmaps(rows: Sequence[Sequence[tuple[Pixels, Attention, str]]]) -> Figure:
    """Draw a row of panels for each group, such as a modality: each image and beside it the image with its heat map.

    Raises:
        ValueError: there is nothing to draw.
    """
    widest = max((len(row) for row in rows), default=0)
    if not widest:
        raise ValueError("expected at least one image to draw, found none")
    figure = Figure(figsize=(2.3 * widest, 2.5 * len(rows)), layout="constrained")
    for row, line in zip(rows, figure.subplots(len(rows), 2 * widest, squeeze=False), strict=True):
        for axes in line:
            axes.axis("off")
        for place, (image, weight, title) in enumerate(row):
            plain, covered = line[2 * place : 2 * place + 2]
            plain.imshow(image)
            plain.set_title(title, fontsize=8)
            covered.imshow(image)
            covered.imshow(weight, cmap="inferno", vmin=0, vmax=1, alpha=0.25 + 0.5 * weight)
    return figure
