"""Losses, one a file: ``loss(embeddings, identities, modalities) -> scalar``."""

from training.losses.base import Loss
from training.losses.cross_entropy import CrossEntropy
from training.losses.triplet import Triplet
from training.losses.weighted_triplet import WeightedTriplet

__all__ = ["CrossEntropy", "Loss", "Triplet", "WeightedTriplet"]
