"""Group means of a batch, for the losses that compare centres instead of rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["group_means"]


def group_means(rows: Tensor, identities: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the mean of the rows of each identity in each of ``count`` groups (modalities or roles).

    Args:
        rows: ``[B, D]`` floating.
        identities: int64 ``[B]``.
        groups: int64 ``[B]``, values 0 … count - 1.
        count: number of groups.

    Returns:
        means ``[P, count, D]``, identities ascending, zero for a group without rows; the number of rows of each group,
        int64 ``[P, count]``; and the index 0 … P - 1 of each row's identity, int64 ``[B]``.
    """
    people, person = identities.unique(return_inverse=True)
    group = person * count + groups
    member = torch.arange(len(people) * count, device=rows.device)[:, None] == group[None, :]
    sizes = member.sum(1)
    means = (member.to(rows.dtype) @ rows) / sizes.clamp(min=1)[:, None]
    return means.view(len(people), count, -1), sizes.view(-1, count), person
