"""Distribution consistency of EMI: both modalities are matched as Gaussians."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from training.data.augmentation import Role
from training.losses.base import Loss, require

__all__ = ["LEAST_VARIANCE", "DistributionConsistency", "Divergence"]

Divergence = Literal["w2", "symkl", "moments"]

LEAST_VARIANCE = 1e-6  # the root has no finite gradient at 0


class DistributionConsistency(Loss):
    """Divergence of the visible and the infrared rows as Gaussians of diagonal covariance (L_fdc).

    With mean μ and biased variance σ² of each modality m and channel k, ``sd = sqrt(σ² + 1e-6)``, mean over channels of

        w2:       (μ_V - μ_R)² + (sd_V - sd_R)²                  squared 2-Wasserstein distance
        symkl:    ((s_V + q) / s_R + (s_R + q) / s_V - 2) / 4    mean of both Kullback-Leibler divergences,
                                                                 s = σ² + eps, q = (μ_V - μ_R)²
        moments:  |μ_V - μ_R| + |sd_V - sd_R|

    Gradients flow to both sides. Identities are not used.
    EMI (IJMLC 16(1), 2025): implemented from the published description; the unpublished details are ours.

    Args:
        divergence: which of the three.
        eps: prevents channels with almost no variance from dominating symkl.

    Raises:
        ValueError: unknown divergence; a modality is absent.
    """

    def __init__(self, divergence: Divergence = "w2", eps: float = 1e-2) -> None:
        super().__init__()
        if divergence not in get_args(Divergence):
            raise ValueError(f"unknown divergence {divergence!r}: expected one of {', '.join(get_args(Divergence))}")
        self.divergence, self.eps = divergence, eps

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:  # noqa: ARG002
        require(modalities, Role.VISIBLE, Role.INFRARED)
        visible, infrared = embeddings[modalities == Role.VISIBLE], embeddings[modalities == Role.INFRARED]
        shift = visible.mean(0) - infrared.mean(0)
        variances = visible.var(0, correction=0), infrared.var(0, correction=0)
        if self.divergence == "symkl":
            s_v, s_r = (variance + self.eps for variance in variances)
            return (((s_v + shift.square()) / s_r + (s_r + shift.square()) / s_v - 2) / 4).mean()
        sd_v, sd_r = ((variance + LEAST_VARIANCE).sqrt() for variance in variances)
        if self.divergence == "w2":
            return (shift.square() + (sd_v - sd_r).square()).mean()
        return (shift.abs() + (sd_v - sd_r).abs()).mean()
