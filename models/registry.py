"""Networks by the name of their method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.baseline import Baseline
from models.emi import Emi
from models.icre import Icre
from models.mtrl import Mtrl

__all__ = ["METHODS", "build"]

METHODS: dict[str, type[Baseline]] = {"baseline": Baseline, "emi": Emi, "icre": Icre, "mtrl": Mtrl}


def build(method: str, backbone: str, identities: int, weights: str | Path | None = None, **structure: Any) -> Baseline:
    """Build the network of ``method`` on ``backbone`` for ``identities`` classes.

    ``structure``: further arguments of the network, see ``training.methods.Method.structure()``.

    Raises:
        ValueError: unknown method or backbone, or weights that do not fit.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: expected one of {sorted(METHODS)}")
    return METHODS[method](backbone, identities, weights, **structure)
