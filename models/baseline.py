"""The two-stream baseline that every method grows from (AGW family, without non-local blocks)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from models.heads import BNNeck, GeM, classifier
from models.trunk import Trunk

__all__ = ["Baseline", "Output"]


@dataclass(frozen=True, slots=True)
class Output:
    """``pooled`` feeds metric losses, ``embedding`` (after the neck, not normalised) the classifier and retrieval."""

    pooled: Tensor
    embedding: Tensor
    logits: Tensor


class Baseline(nn.Module):
    """Trunk → GeM → BN neck → classifier.

    Args:
        backbone: see :class:`models.trunk.Trunk`.
        identities: classes of the identity loss.
        weights: see :func:`models.weights.load_backbone`.
    """

    training_only: ClassVar[tuple[str, ...]] = ("classifier.",)
    """What the names of parameters begin with that take no part in an embedding."""

    def __init__(self, backbone: str, identities: int, weights: str | Path | None = None) -> None:
        super().__init__()
        self.trunk = Trunk(backbone, weights)
        self.pool = GeM()
        self.neck = BNNeck(self.trunk.channels)
        self.classifier = classifier(self.trunk.channels, identities)

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.trunk.channels

    def forward(self, image: Tensor, modality: Tensor) -> Output:
        """``image`` uint8 RGB ``[N, H, W, 3]``, ``modality`` int64 ``[N]``; the modalities may be mixed at will."""
        pooled = self.pool(self.feature_map(image, modality))
        embedding = self.neck(pooled)
        return Output(pooled, embedding, self.classifier(embedding))

    def embed(self, image: Tensor, modality: Tensor) -> Tensor:
        """Retrieval vectors, float32 ``[N, dimension]`` of unit length: what the exported graph computes."""
        return F.normalize(self.neck(self.pool(self.feature_map(image, modality))), dim=1)

    def feature_map(self, image: Tensor, modality: Tensor) -> Tensor:
        """What is pooled: the trunk's last map, ``[N, dimension, h, w]``."""
        out: Tensor = self.trunk(image, modality).out
        return out

    def inference_parameters(self) -> int:
        """How many numbers an embedding takes: the classifier is for training alone."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith(self.training_only))

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Stems and stages, which start from the backbone's weights and learn more slowly."""
        return self.trunk.parameters()

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Everything that starts from nothing."""
        known = {id(parameter) for parameter in self.pretrained_parameters()}
        return (p for p in self.parameters() if id(p) not in known and p.requires_grad)
