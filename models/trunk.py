"""The two-stream trunk: one stem per modality and shared stages, on any staged timm backbone or an OSNet.

AGW family (Ye et al., TPAMI 2021): both stems start from the same pretrained weights, all later layers are shared, and
the last stage keeps its resolution (stride 1, no dilation).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.card import Modality
from models.heads import BNNeck, GeM
from models.osnet import DIMENSION, OsNet
from models.weights import load_backbone

__all__ = ["Head", "Maps", "Trunk", "by_modality"]


@dataclass(frozen=True, slots=True)
class Maps:
    """Feature maps in the order of the input batch: ``stages`` S1…S4, and ``out`` after the ``post`` head."""

    stages: tuple[Tensor, ...]
    out: Tensor


class Head(NamedTuple):
    """Modules that convert the trunk's last map to an embedding; the trunk does not own their parameters."""

    pool: nn.Module
    """``[N, C, h, w]`` → ``[N, dimension]``."""
    neck: nn.Module
    dimension: int
    pretrained: bool
    """Whether its parameters are part of the backbone's weights."""


class Trunk(nn.Module):
    """The trunk: it normalises the images, chooses the stem by modality and runs the shared stages.

    Args:
        backbone: one of :data:`models.osnet.OSNETS`, or a timm name of the ResNet, RegNet or EfficientNet /
            MobileNetV2 families.
        weights: see :func:`models.weights.load_backbone`.

    Raises:
        ValueError: the backbone has no known division into stem, four stages and head.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, weights: str | Path | None = None) -> None:
        super().__init__()
        model, normalisation = load_backbone(backbone, weights)
        stem, stages, post = _divide(model, backbone)
        _keep_resolution(stages[-1])
        self._pretrained_head = (model.pool, model.neck) if isinstance(model, OsNet) else None
        self.backbone = backbone
        self.stems = nn.ModuleDict({modality.value: deepcopy(stem) for modality in Modality})
        self.stages = nn.ModuleList(stages)
        self.post = post
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, 3, 1, 1))
        self.stage_channels, self.channels = self._measure()

    def forward(self, image: Tensor, modality: Tensor) -> Maps:
        """Compute the maps of ``image`` uint8 RGB ``[N, H, W, 3]`` of ``modality`` int64 ``[N]``."""
        stages = self.run_stages(image, modality)
        return Maps(stages, self.post(stages[-1]))

    def take_head(self) -> Head:
        """Return the head of a person re-identification backbone, or GeM and a new batch-norm neck.

        Call this once: a pretrained head is moved, not copied.
        """
        if self._pretrained_head is None:
            return Head(GeM(), BNNeck(self.channels), self.channels, pretrained=False)
        pool, neck = self._pretrained_head
        self._pretrained_head = None
        return Head(pool, neck, DIMENSION, pretrained=True)

    def run_stages(self, image: Tensor, modality: Tensor) -> tuple[Tensor, ...]:
        """Compute only the maps S1…S4, for a network that changes S4 before ``post``; arguments as for ``forward``."""
        pixels = image.to(self.mean.dtype).permute(0, 3, 1, 2) / 255  # cast first: TensorRT cannot transpose uint8
        feature = self._stem((pixels - self.mean) / self.std, modality)
        maps = []
        for stage in self.stages:
            feature = stage(feature)
            maps.append(feature)
        return tuple(maps)

    def _stem(self, pixels: Tensor, modality: Tensor) -> Tensor:
        if not self.training:  # both stems on all rows: a static graph, at a small additional cost
            both = {m: self.stems[m.value](pixels) for m in Modality}
            infrared = (modality == Modality.INFRARED.index).view(-1, 1, 1, 1)
            return torch.where(infrared, both[Modality.INFRARED], both[Modality.VISIBLE])
        return by_modality(self.stems, pixels, modality)

    @torch.no_grad()
    def _measure(self) -> tuple[tuple[int, ...], int]:
        """Return the channels of each stage map and of ``out``, measured on a blank image."""
        was_training = self.training
        self.eval()
        maps = self(torch.zeros(1, 64, 32, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
        self.train(was_training)
        return tuple(m.shape[1] for m in maps.stages), int(maps.out.shape[1])


def by_modality(branches: nn.ModuleDict, rows: Tensor, modality: Tensor) -> Tensor:
    """Apply to each row the branch of its modality, preserving the order: ``[N, ...]`` → ``[N, ...]``.

    A branch only sees rows of its own modality, so its batch statistics are those of that modality.
    """
    places = [(modality == m.index).nonzero().squeeze(1) for m in Modality]
    parts = [branches[m.value](rows[own]) for m, own in zip(Modality, places, strict=True) if len(own)]
    return torch.cat(parts)[torch.cat(places).argsort()]


def _divide(model: nn.Module, backbone: str) -> tuple[nn.Module, list[nn.Module], nn.Module]:
    """Split a backbone into stem, four stages and 1×1 head."""
    if isinstance(model, OsNet):
        return model.stem, list(model.stages), model.post
    children = dict(model.named_children())
    if {"layer1", "layer4", "maxpool"} <= children.keys():
        stem = nn.Sequential(*(children[n] for n in ("conv1", "bn1", "act1", "maxpool")))
        return stem, [children[f"layer{i}"] for i in range(1, 5)], nn.Identity()
    if {"s1", "s4", "final_conv"} <= children.keys():
        return children["stem"], [children[f"s{i}"] for i in range(1, 5)], children["final_conv"]
    blocks = children.get("blocks")
    if {"conv_stem", "bn2"} <= children.keys() and isinstance(blocks, nn.Sequential) and len(blocks) == 7:
        stem = nn.Sequential(children["conv_stem"], children["bn1"], blocks[0])
        stages: list[nn.Module] = [blocks[1], blocks[2], blocks[3:5], blocks[5:7]]
        return stem, stages, nn.Sequential(children["conv_head"], children["bn2"])
    raise ValueError(f"backbone {backbone!r}: expected one of the families OSNet, ResNet, RegNet, EfficientNet")


def _keep_resolution(stage: nn.Module) -> None:
    """Set every stride of the stage to 1: the map keeps its size without dilation."""
    for parent in stage.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                child.stride = (1, 1)
            elif isinstance(child, nn.AvgPool2d):  # the shortcut of ResNet-D, which would only blur at stride 1
                setattr(parent, name, nn.Identity())
