"""Interface of a training method: its streams, loss terms and weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from models.baseline import Output
from training.config_base import ConfigPart
from training.data.augmentation import Stream
from training.data.dataset import Batch

__all__ = ["Method", "Options", "ramp"]


class Options(ConfigPart):
    """Options of a method; the base class has none."""


class Method(nn.Module, ABC):
    """The streams that a method needs and the loss terms that it computes from the output of its network.

    The total loss is the weighted sum of the terms. A method that needs more than the baseline uses its own subclass of
    ``Output`` and the roles and pairs of the batch.
    """

    streams: ClassVar[frozenset[Stream]]
    """Streams that the terms require; a run may draw further ones."""

    needs_targets: bool = False
    """Whether it needs ``Batch.targets``: embeddings of visible crops by the network at the start of the run."""

    options_type: ClassVar[type[Options]] = Options
    """Type of the constructor's argument."""

    def __init__(self, options: Options) -> None:  # noqa: ARG002 - subclasses read it
        super().__init__()

    @abstractmethod
    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Compute the unweighted terms, scalars by name; always the same names in the same order.

        With several processes, ``output`` and ``batch`` are the share of this process: a term over pairs of rows
        gathers the rows it needs, a mean over rows does not.
        """

    def structure(self) -> dict[str, Any]:
        """Return the keyword arguments of the network's constructor that depend on the options."""
        return {}

    def stems(self, batch: Batch) -> Tensor:
        """Return the stem of each image, int64 ``[B]``: that of its modality."""
        return batch.modalities

    def weights(self, epoch: float) -> Mapping[str, float]:  # noqa: ARG002
        """Return the weights of the terms at the fractional ``epoch``; a term without one has weight 1."""
        return {}


def ramp(epoch: float, epochs: float) -> float:
    """Return a factor that rises linearly from 0 to 1 over the first ``epochs``; always 1 if ``epochs`` is 0."""
    return min(1.0, epoch / epochs) if epochs else 1.0
