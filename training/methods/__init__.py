"""Which losses and weights make a method, by the name of its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.config_base import suggestion
from training.methods.baseline import Baseline
from training.methods.emi import Emi
from training.methods.icre import Icre
from training.methods.method import Method, Options
from training.methods.mtrl import Mtrl

__all__ = ["METHODS", "Method", "Options", "build_method", "read_options"]

METHODS: dict[str, type[Method]] = {"baseline": Baseline, "emi": Emi, "icre": Icre, "mtrl": Mtrl}


def build_method(name: str, options: Mapping[str, Any]) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none, or an option is unknown or has a bad value.
    """
    checked = read_options(name, options)
    return METHODS[name](checked)


def read_options(name: str, options: Mapping[str, Any]) -> Options:
    """The options of the method of that name, those not given at their defaults.

    Raises:
        ValueError: there is no such method, or an option is unknown or has a bad value.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {suggestion(name, METHODS)}")
    return METHODS[name].options_type.model_validate(options)
