"""Several networks as one: their embeddings concatenated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.baseline import Baseline

__all__ = ["Fused"]


class Fused(nn.Module):
    """The weighted embeddings of several networks, concatenated and normalised to unit length.

    The cosine of two fused vectors is the mean of the networks' cosines, weighted by the squares of the weights.

    Args:
        networks: at least two, with the same input size.
        weights: one for each network, above 0.

    Raises:
        ValueError: fewer than two networks, or weights that are not positive or not one for each.
    """

    weights: Tensor

    def __init__(self, networks: Sequence[Baseline], weights: Sequence[float]) -> None:
        super().__init__()
        if len(networks) < 2 or len(weights) != len(networks) or not all(0 < w < float("inf") for w in weights):
            raise ValueError(
                f"expected at least two networks and a weight above 0 for each, found {len(networks)} networks and "
                f"weights {[*weights]}"
            )
        self.networks: Sequence[Baseline] = nn.ModuleList(networks)  # type: ignore[assignment]
        self.register_buffer("weights", torch.tensor([*weights], dtype=torch.float32))

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return sum(network.dimension for network in self.networks)

    @property
    def training_only(self) -> tuple[str, ...]:
        """See :attr:`models.baseline.Baseline.training_only`."""
        return tuple(f"networks.{i}.{prefix}" for i, n in enumerate(self.networks) for prefix in n.training_only)

    def embed(self, image: Tensor, modality: Tensor) -> Tensor:
        """Return embeddings, float32 ``[N, dimension]`` of unit length; arguments as for a single network."""
        parts = [w * network.embed(image, modality) for w, network in zip(self.weights, self.networks, strict=True)]
        return F.normalize(torch.cat(parts, 1), dim=1)

    def inference_parameters(self) -> int:
        """Count the parameters that an embedding uses."""
        return sum(network.inference_parameters() for network in self.networks)
