"""The baseline: identity classification after the neck, metric loss before it."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from models.baseline import Output
from training.data.augmentation import Stream
from training.data.dataset import Batch
from training.distributed import gather
from training.losses import CrossEntropy, WeightedTriplet
from training.methods.method import Method

__all__ = ["Baseline"]


class Baseline(Method):
    """``L_id(logits) + L_wrt(pooled)`` over all streams together (AGW, with CAJ's streams by default)."""

    streams: ClassVar[frozenset[Stream]] = frozenset({Stream.VISIBLE, Stream.INFRARED})

    def __init__(self) -> None:
        super().__init__()
        self.identity = CrossEntropy()
        self.triplet = WeightedTriplet()

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        identities, modalities = batch.identities, batch.modalities
        return {
            "id": self.identity(output.logits, identities, modalities),
            "wrt": self.triplet(gather(output.pooled), gather(identities), gather(modalities)),
        }
