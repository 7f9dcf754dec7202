"""Identity-clues-guided loss of ICRE."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.augmentation import Role
from training.losses.base import Loss, require
from training.losses.centres import group_means
from training.losses.pairs import distances_between, lengths

__all__ = ["IdentityClues"]


class IdentityClues(Loss):
    """Pull rows to their identity's centre in the other modality, and the two centres to each other (L_icg).

        c_p^m = mean of f over identity p, modality m       s_p^m = mean over that group of d(f_i, c_p^m)
        L1 = mean_i max(0, d(f_i, c_{y_i}^{other}) - min_{q ≠ y_i, m'} d(f_i, c_q^{m'}) + margin)
        L2 = 1/P Σ_p max(0, d(c_p^v, c_p^r) - (s_p^v + s_p^r) / 2)
        L = L1 + L2

    ``f`` are the embeddings at unit length, ``d`` the Euclidean distance; centres are those of the batch, not
    normalised, and gradients flow through them. L1 ignores a row without a centre of the other modality or without
    another identity, L2 an identity with one modality; a part without rows is zero.
    ICRE (arXiv 2512.04522): implemented from the published description; the unpublished details are ours.

    Args:
        margin: rho_1, a difference of distances of at most 2.

    Raises:
        ValueError: a modality is absent.
    """

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        self.margin = margin

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        require(modalities, Role.VISIBLE, Role.INFRARED)
        rows = F.normalize(embeddings, dim=1)
        centres, sizes, person = group_means(rows, identities, modalities, 2)
        present = sizes > 0

        other = 1 - modalities
        to_other = lengths(rows - centres[person, other])
        to_all = distances_between(rows, centres.flatten(0, 1)).view(len(rows), *present.shape)
        people = torch.arange(len(centres), device=rows.device)
        foreign = present & (person[:, None] != people)[..., None]
        usable = present[person, other] & foreign.flatten(1).any(1)
        nearest = to_all.masked_fill(~foreign, 2.0).flatten(1).amin(1)  # 2 is the largest possible distance
        pulled = (to_other - nearest + self.margin).relu()[usable]

        spread, _, _ = group_means(lengths(rows - centres[person, modalities])[:, None], identities, modalities, 2)
        gap = lengths(centres[:, Role.VISIBLE] - centres[:, Role.INFRARED])
        beyond = (gap - spread.squeeze(2).mean(1)).relu()[present.all(1)]
        return _mean_or_zero(pulled) + _mean_or_zero(beyond)


def _mean_or_zero(values: Tensor) -> Tensor:
    return values.sum() / max(len(values), 1)
