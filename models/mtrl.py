"""The network of MTRL: the baseline's, with transition images as additional training inputs."""

from __future__ import annotations

from models.baseline import Baseline

__all__ = ["Mtrl"]


class Mtrl(Baseline):
    """The baseline, unchanged: transition images pass through its stems in training; inference is the same.

    Modality-Transition Representation Learning (arXiv 2511.02685): implemented from the published description; the
    unpublished details are ours.
    """
