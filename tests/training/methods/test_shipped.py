"""The packaged configurations of ICRE and EMI: the recipes of the baseline with another method."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config import CONFIGS, TrainingConfig, read_config

RECIPES = {"light", "zoo", "sysu_mm01", "regdb", "llcm"}


def recipes(method: str) -> dict[str, TrainingConfig]:
    paths = [path for path in Path(CONFIGS / method).glob("*.yaml") if path.stem in RECIPES]
    return {path.stem: read_config(path) for path in paths}


@pytest.mark.parametrize("method", ["emi", "icre"])
def test_a_recipe_differs_from_that_of_the_baseline_only_in_method_and_options(method: str) -> None:
    shipped, baseline = recipes(method), recipes("baseline")
    assert shipped.keys() == RECIPES
    for name, config in shipped.items():
        assert config.method == method
        own = {"method", "options"}
        assert config.model_dump(exclude=own) == baseline[name].model_dump(exclude=own), name
        assert config.options.get("contrast_weight") == baseline[name].options.get("contrast_weight")


def test_positions_of_icre_are_learnt_on_the_map_of_its_input() -> None:
    for name, config in recipes("icre").items():
        assert list(config.options["grid"]) == [config.input.height // 16, config.input.width // 16], name


def test_the_weights_of_emi_rise_at_least_over_the_warm_up() -> None:
    for name, config in recipes("emi").items():
        assert config.schedule.warmup_epochs <= config.options["ramp_epochs"] < config.epochs, name
