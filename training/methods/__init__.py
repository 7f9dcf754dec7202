"""Which losses and weights make a method, by the name of its network."""

from __future__ import annotations

from training.methods.baseline import Baseline
from training.methods.method import Method

__all__ = ["METHODS", "Method", "build_method"]

METHODS: dict[str, type[Method]] = {"baseline": Baseline}


def build_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: expected one of {sorted(METHODS)}")
    return METHODS[name]()
