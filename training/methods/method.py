"""What distinguishes one way of learning from another."""

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
    """The switches of a method; the base has none."""


class Method(nn.Module, ABC):
    """The streams a method needs and the loss terms it makes of what its network puts out.

    The total loss is the sum of the terms, each times its weight at that time. A method that looks at more than
    the baseline takes its own subclass of ``Output``, and the roles and pairs of the batch.
    """

    streams: ClassVar[frozenset[Stream]]
    """Streams without which the terms make no sense; a run may draw others beside them."""

    retains: bool = False
    """Whether it needs ``Batch.targets``: embeddings of visible crops by the network at the start of the run."""

    options_type: ClassVar[type[Options]] = Options
    """What its constructor takes."""

    def __init__(self, options: Options) -> None:  # noqa: ARG002 - the subclasses' are read by them
        super().__init__()

    @abstractmethod
    def forward(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The unweighted terms by name, scalars; always the same names in the same order.

        Over several processes ``output`` and ``batch`` are this process's share: a term over pairs of rows
        gathers what it needs, a mean over rows does not.
        """

    def structure(self) -> dict[str, Any]:
        """Keyword arguments of the network's constructor that its options decide."""
        return {}

    def stems(self, batch: Batch) -> Tensor:
        """The stem each picture goes through, int64 ``[B]``: that of its modality."""
        return batch.modalities

    def weights(self, epoch: float) -> Mapping[str, float]:  # noqa: ARG002
        """Weight of each term at ``epoch`` (with its fraction); a term that is not named weighs 1."""
        return {}


def ramp(epoch: float, epochs: float) -> float:
    """Share of a weight that rises linearly from 0 over the first ``epochs``; 1 from the start with ``epochs`` 0."""
    return min(1.0, epoch / epochs) if epochs else 1.0
