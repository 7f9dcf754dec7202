"""ICRE: refined shallow clues enhance the deep map, guided by identity centres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from models.baseline import Output
from models.icre import IcreOutput, Mask
from training.data.dataset import Batch
from training.distributed import gather
from training.losses import CrossEntropy, Distillation, IdentityClues, Triplet
from training.methods.baseline import Baseline, BaselineOptions, Weight
from training.methods.method import Options

__all__ = ["Icre", "IcreOptions"]

Stage = Annotated[int, Field(ge=1, le=4)]


class IcreOptions(BaselineOptions):
    """Options of ICRE; the first seven define the network, see :class:`models.icre.Icre`."""

    mpfr: bool = True
    sdce: bool = True
    taps: Annotated[tuple[Stage, ...], Field(min_length=1)] = (1, 2, 3)
    mask: Mask = "softmax"
    blocks: PositiveInt = 1
    grid: tuple[PositiveInt, PositiveInt] = (18, 9)
    """Rows and columns of the last map of the training input: a sixteenth of it (18, 9 for 288x144)."""
    tap_grad_scale: Annotated[float, Field(ge=0, le=1)] = 1.0
    icg_weight: Weight = 0.5
    """lambda, the weight of L_icg."""
    icg_margin: PositiveFloat = 0.3
    """rho_1, the margin of L_icg."""
    shallow_triplet_weight: Weight = 0.0
    """Weight of a triplet loss on the pooled map of MPFR."""
    distillation_weight: Weight = 0.0
    """Weight of the divergence between the class posteriors of the enhanced map and of the map of MPFR."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.mpfr and (self.shallow_triplet_weight or self.distillation_weight):
            raise ValueError("shallow_triplet_weight and distillation_weight need mpfr")
        return self


class Icre(Baseline):
    """``L_id + L_wrt`` of the enhanced map ``+ L_id^s`` of MPFR's map ``+ lambda L_icg``; other terms are optional.

    ``L_id^s`` has the weight of ``L_id``. A term of weight 0 is not computed. Identity Clue Refinement and Enhancement
    (arXiv 2512.04522): implemented from the published description; the unpublished details are ours.
    """

    options_type: ClassVar[type[Options]] = IcreOptions

    def __init__(self, options: IcreOptions) -> None:
        super().__init__(options)
        self.options = options
        self.clues = IdentityClues(options.icg_margin)
        self.shallow_identity = CrossEntropy()
        self.shallow_triplet = Triplet()
        self.distillation = Distillation()

    def structure(self) -> dict[str, Any]:
        return self.options.model_dump(include={"mpfr", "sdce", "taps", "mask", "blocks", "grid", "tap_grad_scale"})

    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        terms = super().forward(output, batch)
        labels = batch.identities, batch.modalities
        gathered = [gather(tensor) for tensor in labels]
        if self.options.icg_weight:
            terms["icg"] = self.clues(gather(output.pooled), *gathered)
        if not isinstance(output, IcreOutput):
            return terms
        terms["shallow_id"] = self.shallow_identity(output.shallow_logits, *labels)
        if self.options.shallow_triplet_weight:
            terms["shallow_triplet"] = self.shallow_triplet(gather(output.shallow_pooled), *gathered)
        if self.options.distillation_weight:
            terms["distillation"] = self.distillation(output.logits, output.shallow_logits)
        return terms

    def weights(self, epoch: float) -> Mapping[str, float]:
        options = self.options
        return {
            **super().weights(epoch),
            "icg": options.icg_weight,
            "shallow_id": options.identity_weight,
            "shallow_triplet": options.shallow_triplet_weight,
            "distillation": options.distillation_weight,
        }
