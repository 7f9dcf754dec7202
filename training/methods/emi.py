"""EMI: a separate branch enhances each modality, and the distributions of both are matched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from models.baseline import Output
from models.emi import Branch, EmiOutput
from training.data.dataset import Batch
from training.distributed import gather
from training.losses import (
    ClassConditionalConsistency,
    CrossEntropy,
    DistributionConsistency,
    HeteroCentre,
    Loss,
    Triplet,
    WithinModality,
)
from training.losses.distribution_consistency import Divergence
from training.methods.baseline import Baseline, BaselineOptions, Weight
from training.methods.method import Options, ramp

__all__ = ["Consistency", "Emi", "EmiOptions"]

Consistency = Divergence | Literal["class_conditional", "hetero_centre"]


class EmiOptions(BaselineOptions):
    """Options of EMI."""

    branch: Branch = "head"
    """Where the branches of the modalities start, see :class:`models.emi.Emi`."""
    intra_weight: Weight = 0.5
    fdc_weight: Weight = 1.0
    ramp_epochs: Weight = 10
    """Epochs over which both weights rise from 0."""
    consistency: Consistency = "w2"
    """Loss that matches the modalities: one of three divergences of marginal distributions, the first of these with a
    mean per identity, or for comparison the hetero-centre loss of embeddings at unit length."""
    eps: PositiveFloat = 1e-2
    """Added to the variances of symkl."""
    transfer_weight: Weight = 0.1
    """Weight of the similarity of the pooled vector and that of its branch, with ``branch: last_stage``."""


class Emi(Baseline):
    """``L_id + L_wrt + 0.5 L_intra`` (both branches) ``+ w L_fdc`` of the embeddings after the neck.

    Identity and triplet loss have the same relative weights within the branches as outside. A term of weight 0 is not
    computed. "Learning enhancing modality-invariant features" (IJMLC 16(1), 2025): implemented from the published
    description; the unpublished details are ours.
    """

    options_type: ClassVar[type[Options]] = EmiOptions

    def __init__(self, options: EmiOptions) -> None:
        super().__init__(options)
        self.options = options
        self.intra_identity = WithinModality(CrossEntropy())
        self.intra_triplet = WithinModality(Triplet())
        self.consistency = _consistency(options)

    def structure(self) -> dict[str, Any]:
        return {"branch": self.options.branch if self.options.intra_weight else None}

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        terms = super().forward(output, batch)
        labels = batch.identities, batch.modalities
        gathered = [gather(tensor) for tensor in labels]
        if isinstance(output, EmiOutput):
            terms["intra_id"] = self.intra_identity(output.branch_logits, *labels)
            terms["intra_triplet"] = self.intra_triplet(gather(output.branch_pooled), *gathered)
            if self.options.branch == "last_stage" and self.options.transfer_weight:
                terms["transfer"] = 1 - F.cosine_similarity(output.branch_pooled.detach(), output.pooled).mean()
        if self.options.fdc_weight:
            embedding = gather(output.embedding)
            if self.options.consistency == "hetero_centre":
                embedding = F.normalize(embedding, dim=1)
            terms["fdc"] = self.consistency(embedding, *gathered)
        return terms

    def weights(self, epoch: float) -> Mapping[str, float]:
        options = self.options
        risen = ramp(epoch, options.ramp_epochs)
        intra = risen * options.intra_weight
        return {
            **super().weights(epoch),
            "intra_id": intra * options.identity_weight,
            "intra_triplet": intra * options.triplet_weight,
            "transfer": intra * options.transfer_weight,
            "fdc": risen * options.fdc_weight,
        }


def _consistency(options: EmiOptions) -> Loss:
    if options.consistency == "hetero_centre":
        return HeteroCentre()
    if options.consistency == "class_conditional":
        return ClassConditionalConsistency()
    return DistributionConsistency(options.consistency, options.eps)
