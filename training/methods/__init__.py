"""Training methods by the name of their network: their losses, weights and options."""

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
    """Build the method of that name with its options.

    Raises:
        ValueError: the method or an option is unknown, or an option has an invalid value.
    """
    checked = read_options(name, options)
    return METHODS[name](checked)


def read_options(name: str, options: Mapping[str, Any]) -> Options:
    """Validate the options of the method of that name and fill in defaults.

    Raises:
        ValueError: the method or an option is unknown, or an option has an invalid value.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {suggestion(name, METHODS)}")
    return METHODS[name].options_type.model_validate(options)
