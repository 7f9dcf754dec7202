"""Where a network looks: the share of each place in the embedding (HiResCAM, Draelos and Carin, 2020)."""

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
    """How much each place of an image adds to its likeness with a target.

    The likeness is the inner product of the embedding, before normalisation, with the target. A place counts with
    the product of the last feature map and its gradient there; since pooling is homogeneous, these products add up
    to the likeness but for the neck's constant. What speaks against the target is cut off.

    Args:
        network: has a ``pool`` over its last feature map and an output with an ``embedding``, as every network of
            ``models`` has. Its mode is the caller's again afterwards.
        image: uint8 ``[N, H, W, 3]``.
        modality: int64 ``[N]``.
        target: unit vectors ``[N, D]`` to be like; None: each image's own direction.

    Returns float32 ``[N, H, W]``, the largest value of each image 1 (all 0 where nothing speaks for the target).
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
    """One line a group (for instance a modality): each image, its title, and beside it the image under its attention.

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
