"""Losses, one per file: ``loss(embeddings, identities, modalities) -> scalar``.

The losses of MTRL take roles instead of modalities.
"""

from training.losses.base import Loss, PairedLoss
from training.losses.centre_alignment import CentreAlignment
from training.losses.class_conditional import ClassConditionalConsistency
from training.losses.cross_entropy import CrossEntropy
from training.losses.distillation import Distillation
from training.losses.distribution_consistency import DistributionConsistency
from training.losses.hetero_centre import HeteroCentre
from training.losses.identity_clues import IdentityClues
from training.losses.query_consistency import QueryConsistency
from training.losses.retention import Retention
from training.losses.transition_contrast import TransitionContrast
from training.losses.transition_margin import TransitionMargin
from training.losses.triplet import Triplet
from training.losses.weighted_triplet import WeightedTriplet
from training.losses.within_modality import WithinModality

__all__ = [
    "CentreAlignment",
    "ClassConditionalConsistency",
    "CrossEntropy",
    "Distillation",
    "DistributionConsistency",
    "HeteroCentre",
    "IdentityClues",
    "Loss",
    "PairedLoss",
    "QueryConsistency",
    "Retention",
    "TransitionContrast",
    "TransitionMargin",
    "Triplet",
    "WeightedTriplet",
    "WithinModality",
]
