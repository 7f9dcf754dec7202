"""Modality-query regularisation: a visible query and its transition rank the infrared identities consistently."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from training.data.augmentation import Role
from training.losses.base import PairedLoss, require
from training.losses.centres import group_means

__all__ = ["QueryConsistency"]


class QueryConsistency(PairedLoss):
    """KL divergence between the identity rankings of a transition and of its query (MTRL's L_mqr).

        q_i^m(p) = softmax over p of <z_i^m, c_p^r> / τ,  m in {v, t}
        u_i^m(p) = softmax over p of <z_i^m, c_p^v> / τ,  m in {r, t}
        L = mean_i KL( sg[q_i^t] || q_i^v ) + mean_{i in R} KL( sg[mean_{j: y_j = y_i} u_j^t] || u_i^r )

    ``z`` are the embeddings at unit length, t_i the transition of v_i, c the centres of the batch (unit length) and
    ``p`` the identities that have one. The transition is only a teacher: it gets no gradient. A query without a teacher
    is ignored.
    MTRL (arXiv 2511.02685): implemented from the published description; the unpublished details are ours.

    Raises:
        ValueError: a role is absent.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def compute(self, embeddings: Tensor, identities: Tensor, roles: Tensor, pairs: Tensor) -> Tensor:
        require(roles, *Role)
        unit = F.normalize(embeddings, dim=1)
        means, sizes, _ = group_means(unit, identities, roles, len(Role))
        centres = {role: F.normalize(means[sizes[:, role] > 0, role], dim=1) for role in Role}
        visible, infrared, transition = (roles == role for role in Role)
        source = (pairs[visible][:, None] == pairs[transition]) & (pairs[transition] >= 0)
        same = identities[infrared][:, None] == identities[transition]
        return self._diverge(unit[visible], unit[transition], centres[Role.INFRARED], source) + self._diverge(
            unit[infrared], unit[transition], centres[Role.VISIBLE], same
        )

    def _diverge(self, queries: Tensor, teachers: Tensor, centres: Tensor, taught_by: Tensor) -> Tensor:
        """Return the mean over queries of KL(mean ranking of its teachers || its own ranking).

        ``taught_by``: bool ``[queries, teachers]``.
        """
        taught = taught_by.any(1)
        weights = taught_by[taught].to(queries.dtype)
        teaching = (teachers.detach() @ centres.detach().T / self.temperature).softmax(1)
        target = weights @ teaching / weights.sum(1, keepdim=True)
        own = (queries[taught] @ centres.T / self.temperature).log_softmax(1)
        return F.kl_div(own, target, reduction="sum") / max(len(own), 1)
