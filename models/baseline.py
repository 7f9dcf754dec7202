"""The two-stream baseline that every method grows from (AGW family, without non-local blocks)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from models.heads import classifier
from models.trunk import Trunk

__all__ = ["Baseline", "Output"]


@dataclass(frozen=True, slots=True)
class Output:
    """``pooled`` feeds metric losses, ``embedding`` (after the neck, not normalised) the classifier and retrieval."""

    pooled: Tensor
    embedding: Tensor
    logits: Tensor


class Baseline(nn.Module):
    """Trunk → pooling → neck → classifier; the pooling and neck are those of :meth:`models.trunk.Trunk.take_head`.

    Args:
        backbone: see :class:`models.trunk.Trunk`.
        identities: classes of the identity loss.
        weights: see :func:`models.weights.load_backbone`.
    """

    training_only: ClassVar[tuple[str, ...]] = ("classifier.",)
    """What the names of parameters begin with that take no part in an embedding."""

    has_pretrained_head: bool = False
    """The parameters of pooling and neck come with the backbone's weights."""

    def __init__(self, backbone: str, identities: int, weights: str | Path | None = None) -> None:
        super().__init__()
        self.trunk = Trunk(backbone, weights)
        head = self.trunk.take_head()
        self.pool, self.neck, self.has_pretrained_head = head.pool, head.neck, head.pretrained
        self.dimension = head.dimension
        """Length of an embedding."""
        self.classifier = classifier(head.dimension, identities)

    def forward(self, image: Tensor, modality: Tensor) -> Output:
        """``image`` uint8 RGB ``[N, H, W, 3]``, ``modality`` int64 ``[N]``; the modalities may be mixed at will."""
        pooled = self.pool(self.feature_map(image, modality))
        embedding = self.neck(pooled)
        return Output(pooled, embedding, self.classifier(embedding))

    def embed(self, image: Tensor, modality: Tensor) -> Tensor:
        """Retrieval vectors, float32 ``[N, dimension]`` of unit length: what the exported graph computes."""
        return F.normalize(self.neck(self.pool(self.feature_map(image, modality))), dim=1)

    def feature_map(self, image: Tensor, modality: Tensor) -> Tensor:
        """What is pooled: the trunk's last map, ``[N, trunk.channels, h, w]``."""
        out: Tensor = self.trunk(image, modality).out
        return out

    def inference_parameters(self) -> int:
        """How many numbers an embedding takes: the classifier is for training alone."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith(self.training_only))

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Those that start from the backbone's weights and learn more slowly."""
        yield from self.trunk.parameters()
        if self.has_pretrained_head:
            yield from self.pool.parameters()
            yield from self.neck.parameters()

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Everything that starts from nothing."""
        known = {id(parameter) for parameter in self.pretrained_parameters()}
        return (p for p in self.parameters() if id(p) not in known and p.requires_grad)
