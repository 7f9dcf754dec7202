"""Networks by the name of their method."""

from __future__ import annotations

from pathlib import Path

from models.baseline import Baseline

__all__ = ["METHODS", "build"]

METHODS: dict[str, type[Baseline]] = {"baseline": Baseline}


def build(method: str, backbone: str, identities: int, weights: str | Path | None = None) -> Baseline:
    """The network of ``method`` over ``backbone`` for ``identities`` classes.

    Raises:
        ValueError: unknown method or backbone, or weights that do not fit.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: expected one of {sorted(METHODS)}")
    return METHODS[method](backbone, identities, weights)
