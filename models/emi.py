"""The network of EMI: the baseline with one additional branch for each modality in training.

"Learning enhancing modality-invariant features" (Zhang et al., IJMLC 16(1), 2025), which we call EMI: implemented from
the published description; the unpublished details are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from models.baseline import Baseline, Output
from models.card import Modality
from models.heads import BNNeck, classifier
from models.trunk import by_modality

__all__ = ["Branch", "Emi", "EmiOutput", "head_width"]

Branch = Literal["head", "last_stage"]


def head_width(channels: int) -> int:
    """Return the width of a branch head for that number of pooled channels: half of it, at most 512."""
    return min(512, channels // 2)


@dataclass(frozen=True, slots=True)
class EmiOutput(Output):
    """Output of the baseline and of the branch of each image's modality, ``[N, d]`` and ``[N, identities]``."""

    branch_pooled: Tensor
    branch_logits: Tensor


class Emi(Baseline):
    """The baseline with an independent branch for each modality, which an embedding does not use.

    Args:
        backbone, identities, weights: see :class:`models.baseline.Baseline`.
        branch: ``head``: a linear layer on the shared pooled vector; ``last_stage``: a copy of S4 and ``post`` on the
            shared S3, pooled. Both end in their own batch norm and classifier. None: no branches.
    """

    training_only = ("classifier.", "branch_")

    def __init__(
        self, backbone: str, identities: int, weights: str | Path | None = None, *, branch: Branch | None = "head"
    ) -> None:
        super().__init__(backbone, identities, weights)
        self.branch = branch
        if branch is None:
            return
        channels = self.dimension if branch == "last_stage" else head_width(self.dimension)

        def build_features() -> nn.Module:
            if branch == "last_stage":
                return nn.Sequential(deepcopy(self.trunk.stages[-1]), deepcopy(self.trunk.post), deepcopy(self.pool))
            return nn.Linear(self.dimension, channels, bias=False)

        def build_classifier() -> nn.Module:
            return nn.Sequential(BNNeck(channels), classifier(channels, identities))

        self.branch_features = nn.ModuleDict({modality.value: build_features() for modality in Modality})
        self.branch_identity = nn.ModuleDict({modality.value: build_classifier() for modality in Modality})

    def forward(self, image: Tensor, modality: Tensor) -> Output:
        """Compute the output, see :meth:`models.baseline.Baseline.forward`; an ``EmiOutput`` with branches."""
        maps = self.trunk(image, modality)
        pooled = self.pool(maps.out)
        embedding = self.neck(pooled)
        logits = self.classifier(embedding)
        if self.branch is None:
            return Output(pooled, embedding, logits)
        split = maps.stages[-2] if self.branch == "last_stage" else pooled
        own = by_modality(self.branch_features, split, modality)
        return EmiOutput(pooled, embedding, logits, own, by_modality(self.branch_identity, own, modality))

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the pretrained parameters of the trunk and of its copies in the branches."""
        yield from super().pretrained_parameters()
        if self.branch == "last_stage":
            yield from self.branch_features.parameters()
