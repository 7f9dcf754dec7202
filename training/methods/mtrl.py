"""MTRL: transition images between visible and infrared, and three losses that use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from models.baseline import Output
from models.card import Modality
from training.data.augmentation import Role, Stream
from training.data.dataset import Batch
from training.distributed import gather
from training.losses import CentreAlignment, QueryConsistency, TransitionContrast, TransitionMargin
from training.losses.transition_contrast import CHAIN, DIRECT
from training.methods.baseline import Baseline, BaselineOptions, Weight
from training.methods.method import Options, ramp

__all__ = ["Mtrl", "MtrlOptions"]


class MtrlOptions(BaselineOptions):
    """Options of MTRL. The translator from v to t is ``augmentation.transition``."""

    mtc: Literal["infonce", "margin", "direct"] = "infonce"
    """Contrast along the chain v - t - r, its distance form, or direct contrast between v and r."""
    mtc_weight: Weight = 0.5
    centre_weight: Weight = 0.5
    mqr_weight: Weight = 0.2
    ramp_epochs: Weight = 10
    """Epochs over which the three weights rise from 0."""
    temperature: PositiveFloat = 0.1
    """Temperature of the contrast."""
    query_temperature: PositiveFloat = 0.1
    """Temperature of the identity ranking."""
    margin: PositiveFloat = 0.3
    """Margin of the distance form and of the hinge between centres."""
    centre_hinge: bool = False
    """Separate the centres of different identities as well."""
    level: Literal["pooled", "embedding"] = "pooled"
    """Vectors that the three terms use: pooled ones before the neck, like the metric loss, or embeddings."""
    stem_for_t: Modality = Modality.INFRARED
    """The stem for transition images."""


class Mtrl(Baseline):
    """``L_id + L_wrt`` of v, t and r ``+ w_1 L_mtc + w_2 L_center + w_3 L_mqr``.

    Modality-Transition Representation Learning (arXiv 2511.02685): implemented from the published description; the
    unpublished details are ours.
    """

    streams: ClassVar[frozenset[Stream]] = frozenset({Stream.VISIBLE, Stream.INFRARED, Stream.TRANSITION})
    options_type: ClassVar[type[Options]] = MtrlOptions

    def __init__(self, options: MtrlOptions) -> None:
        super().__init__(options)
        self.options = options
        links = DIRECT if options.mtc == "direct" else CHAIN
        self.contrast = TransitionContrast(options.temperature, links)
        self.distance_form = TransitionMargin(options.margin)
        self.centres = CentreAlignment(options.margin if options.centre_hinge else None)
        self.queries = QueryConsistency(options.query_temperature)

    def stems(self, batch: Batch) -> Tensor:
        """Return the stem of each image's modality, and for t the one in the options."""
        return torch.where(batch.roles == Role.TRANSITION, self.options.stem_for_t.index, batch.modalities)

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        features = output.pooled if self.options.level == "pooled" else output.embedding
        rows = [gather(tensor) for tensor in (features, batch.identities, batch.roles)]
        pairs = gather(batch.pairs)
        return super().forward(output, batch) | {
            "mtc": self.distance_form(*rows, pairs) if self.options.mtc == "margin" else self.contrast(*rows),
            "centre": self.centres(*rows),
            "mqr": self.queries(*rows, pairs),
        }

    def weights(self, epoch: float) -> Mapping[str, float]:
        options, risen = self.options, ramp(epoch, self.options.ramp_epochs)
        return {
            **super().weights(epoch),
            "mtc": risen * options.mtc_weight,
            "centre": risen * options.centre_weight,
            "mqr": risen * options.mqr_weight,
        }
