"""The baseline: identity classification after the neck, metric loss before the neck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat
from torch import Tensor

from models.baseline import Output
from training.data.augmentation import Stream
from training.data.dataset import Batch
from training.distributed import gather
from training.losses import CrossEntropy, Retention, TransitionContrast, WeightedTriplet
from training.losses.transition_contrast import DIRECT
from training.methods.method import Method, Options

__all__ = ["Baseline", "BaselineOptions", "Weight"]

Weight = Annotated[float, Field(ge=0)]


class BaselineOptions(Options):
    """Options of the baseline, which the methods that extend it share."""

    identity_weight: Weight = 1.0
    triplet_weight: Weight = 1.0
    contrast_weight: Weight = 0.0
    """Weight of InfoNCE between visible and infrared embeddings; 0: none, as published. It is the loss for windows of
    aligned frames, which are too many, with too few crops each, to be classified."""
    contrast_temperature: PositiveFloat = 0.1
    retention_weight: Weight = 0.0
    """Weight of the similarity between the embeddings of a visible crop by the network and by the frozen network at the
    start of the run, for classified identities; 0: none. Use it to preserve a pretrained re-identification network."""


class Baseline(Method):
    """``L_id(logits) + L_wrt(pooled) [+ w L_contrast + w L_retention]`` (AGW, with CAJ's streams by default).

    Identity and metric loss are computed over all streams together, the contrast in both directions between visible and
    infrared. A term of weight 0 is not computed.
    """

    streams: ClassVar[frozenset[Stream]] = frozenset({Stream.VISIBLE, Stream.INFRARED})
    options_type: ClassVar[type[Options]] = BaselineOptions

    def __init__(self, options: BaselineOptions) -> None:
        super().__init__(options)
        weights = {
            "id": options.identity_weight,
            "wrt": options.triplet_weight,
            "contrast": options.contrast_weight,
            "retention": options.retention_weight,
        }
        self.computed = {name for name, weight in weights.items() if weight}
        self.constant_weights = {name: weights[name] for name in self.computed if weights[name] != 1}
        self.needs_targets = "retention" in self.computed
        self.identity = CrossEntropy()
        self.triplet = WeightedTriplet()
        self.direct_contrast = TransitionContrast(options.contrast_temperature, DIRECT)
        self.retention = Retention()

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        identities, modalities = gather(batch.identities), gather(batch.modalities)
        terms = {}
        if "id" in self.computed:
            terms["id"] = self.identity(output.logits, batch.identities, batch.modalities)
        if "wrt" in self.computed:
            terms["wrt"] = self.triplet(gather(output.pooled), identities, modalities)
        if "contrast" in self.computed:
            terms["contrast"] = self.direct_contrast(gather(output.embedding), identities, gather(batch.roles))
        if self.needs_targets and batch.targets is not None:
            terms["retention"] = self.retention(output.embedding, batch.targets)
        return terms

    def weights(self, epoch: float) -> Mapping[str, float]:  # noqa: ARG002 - constant over the run
        return self.constant_weights
