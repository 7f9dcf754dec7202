"""Distribution consistency of EMI with a mean for each identity."""

from __future__ import annotations

from torch import Tensor

from training.data.augmentation import Role
from training.losses.base import Loss, require
from training.losses.centres import group_means
from training.losses.distribution_consistency import LEAST_VARIANCE

__all__ = ["ClassConditionalConsistency"]


class ClassConditionalConsistency(Loss):
    """The 2-Wasserstein form of ``DistributionConsistency`` with a mean per identity and one residual variance.

        s_m,k² = mean over the rows of modality m of (g_i,k - μ_{y_i,k}^m)²
        L = 1/D Σ_k [ 1/P Σ_p (μ_p,k^V - μ_p,k^R)² + (s_V,k - s_R,k)² ]

    with 1e-6 added under the root of s. The sum over p is over the identities with both modalities.
    EMI (IJMLC 16(1), 2025): implemented from the published description; the unpublished details are ours.

    Raises:
        ValueError: a modality is absent.
    """

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        require(modalities, Role.VISIBLE, Role.INFRARED)
        means, sizes, person = group_means(embeddings, identities, modalities, 2)
        shift = (means[:, Role.VISIBLE] - means[:, Role.INFRARED])[(sizes > 0).all(1)]
        residual = (embeddings - means[person, modalities]).square()
        visible, infrared = (
            (residual[modalities == role].mean(0) + LEAST_VARIANCE).sqrt() for role in (Role.VISIBLE, Role.INFRARED)
        )
        return shift.square().mean(1).sum() / max(len(shift), 1) + (visible - infrared).square().mean()
