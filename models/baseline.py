"""The two-stream baseline that every method extends (AGW family, without non-local blocks)."""

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
    """Output for training: ``pooled`` for metric losses, ``embedding`` (after the neck, not normalised), ``logits``."""

    pooled: Tensor
    embedding: Tensor
    logits: Tensor


class Baseline(nn.Module):
    """Trunk → pooling → neck → classifier; the pooling and neck are those of :meth:`models.trunk.Trunk.take_head`.

    Args:
        backbone: see :class:`models.trunk.Trunk`.
        identities: number of classes of the identity loss.
        weights: see :func:`models.weights.load_backbone`.
    """

    training_only: ClassVar[tuple[str, ...]] = ("classifier.",)
    """Name prefixes of the parameters that an embedding does not use."""

    has_pretrained_head: bool = False
    """Whether pooling and neck are part of the pretrained weights."""

    def __init__(self, backbone: str, identities: int, weights: str | Path | None = None) -> None:
        super().__init__()
        self.trunk = Trunk(backbone, weights)
        head = self.trunk.take_head()
        self.pool, self.neck, self.has_pretrained_head = head.pool, head.neck, head.pretrained
        self.dimension = head.dimension
        """Length of an embedding."""
        self.classifier = classifier(head.dimension, identities)

    def forward(self, image: Tensor, modality: Tensor) -> Output:
        """Compute the output for ``image`` uint8 RGB ``[N, H, W, 3]`` and ``modality`` int64 ``[N]``."""
        pooled = self.pool(self.feature_map(image, modality))
        embedding = self.neck(pooled)
        return Output(pooled, embedding, self.classifier(embedding))

    def embed(self, image: Tensor, modality: Tensor) -> Tensor:
        """Return embeddings, float32 ``[N, dimension]`` of unit length, as the exported graph computes them."""
        return F.normalize(self.neck(self.pool(self.feature_map(image, modality))), dim=1)

    def feature_map(self, image: Tensor, modality: Tensor) -> Tensor:
        """Return the feature map that is pooled: the trunk's last one, ``[N, trunk.channels, h, w]``."""
        out: Tensor = self.trunk(image, modality).out
        return out

    def inference_parameters(self) -> int:
        """Count the parameters that an embedding uses; the classifier is only for training."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith(self.training_only))

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters with pretrained initial values; they have a lower learning rate."""
        yield from self.trunk.parameters()
        if self.has_pretrained_head:
            yield from self.pool.parameters()
            yield from self.neck.parameters()

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Return the trainable parameters with random initial values."""
        known = {id(parameter) for parameter in self.pretrained_parameters()}
        return (p for p in self.parameters() if id(p) not in known and p.requires_grad)
