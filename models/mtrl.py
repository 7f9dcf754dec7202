"""The network of MTRL: what it learns from transition pictures, it keeps in the baseline's own parameters."""

from __future__ import annotations

from models.baseline import Baseline

__all__ = ["Mtrl"]


class Mtrl(Baseline):
    """The baseline, unchanged: transition pictures pass through its stems in training, nothing is added at inference.

    Modality-Transition Representation Learning (arXiv 2511.02685): implemented from the published description; the
    unpublished details are ours.
    """
