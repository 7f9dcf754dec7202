"""Modality-transition contrast: transition images link visible and infrared ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.augmentation import Role
from training.losses.base import Loss, require

__all__ = ["CHAIN", "DIRECT", "TransitionContrast"]

Link = tuple[Role, Role]

CHAIN: tuple[Link, ...] = ((Role.VISIBLE, Role.TRANSITION), (Role.TRANSITION, Role.INFRARED))
"""Links from visible to transition and from transition to infrared."""
DIRECT: tuple[Link, ...] = ((Role.VISIBLE, Role.INFRARED),)
"""A direct link from visible to infrared, for comparison."""


class TransitionContrast(Loss):
    """InfoNCE along the links of a chain, in both directions (MTRL's L_mtc).

        C(A, B) = -mean_{a in A} mean_{b in P(a)} log( exp(<z_a, z_b> / τ) / Σ_{b' in B} exp(<z_a, z_b'> / τ) )
        L = mean over links (A, B) of ( C(A, B) + C(B, A) ) / 2

    A and B are the rows of two roles, ``z`` the embeddings at unit length, P(a) the rows of B with a's identity.
    Takes roles instead of modalities. Anchors without a positive are ignored. C is at least ln K for K positives.
    MTRL (arXiv 2511.02685): implemented from the published description; the unpublished details are ours.

    Raises:
        ValueError: a role of the links is absent.
    """

    def __init__(self, temperature: float = 0.1, links: tuple[Link, ...] = CHAIN) -> None:
        super().__init__()
        self.temperature = temperature
        self.links = links

    def compute(self, embeddings: Tensor, identities: Tensor, modalities: Tensor) -> Tensor:
        require(modalities, *sorted({role for link in self.links for role in link}))
        unit = F.normalize(embeddings, dim=1)
        rows = {role: modalities == role for role in Role}
        sides = {role: (unit[own], identities[own]) for role, own in rows.items()}
        directed = [link for a, b in self.links for link in ((a, b), (b, a))]
        return torch.stack([self._contrast(*sides[a], *sides[b]) for a, b in directed]).mean()

    def _contrast(self, anchors: Tensor, anchor_ids: Tensor, others: Tensor, other_ids: Tensor) -> Tensor:
        log_shares = (anchors @ others.T / self.temperature).log_softmax(1)
        positive = (anchor_ids[:, None] == other_ids[None, :]).to(log_shares.dtype)
        counts = positive.sum(1)
        own = (log_shares * positive).sum(1) / counts.clamp(min=1)
        return -own.sum() / (counts > 0).sum().clamp(min=1)
