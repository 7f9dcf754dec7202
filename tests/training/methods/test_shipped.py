"""The packaged configurations of ICRE and EMI: the recipes of the baseline with another method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.drawing import write_people
from tests.training.trainer_toys import run
from training.checkpoint import load_trained
from training.config import CONFIGS, TrainingConfig, find_config, read_config

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


@pytest.mark.parametrize("method", ["emi", "icre", "mtrl"])
def test_a_method_over_the_person_network_goes_on_from_the_baseline(method: str) -> None:
    config, baseline = (read_config(find_config(name)) for name in (f"{method}/osnet", "baseline/osnet_continued"))
    own = {"method", "options", "start", "batch"}
    assert config.model_dump(exclude=own) == baseline.model_dump(exclude=own)
    assert config.start == Path("models/zoo/baseline")
    for name in ("contrast_weight", "contrast_temperature", "retention_weight"):
        assert config.options[name] == baseline.options[name]
    assert config.batch.model_dump(exclude={"streams"}) == baseline.batch.model_dump(exclude={"streams"})


@pytest.mark.parametrize("method", ["emi", "icre", "mtrl"])
def test_a_method_over_the_person_network_takes_a_step(method: str, tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", range(4), images=2, size=(64, 32))
    data = json.dumps([{"kind": "folder", "root": str(people), "name": "drawn"}])
    changes = [f"data={data}", "backbone=osnet_x0_5", "weights=none", "start=null", "epochs=1", "validation={share: 0}"]
    changes += ["input={height: 64, width: 32}", "augmentation.training_translator={kind: mixed}", "workers=0"]
    changes += ["batch.identities=2", "batch.neighbours=1", "batch.per_epoch=1", "schedule.warmup_epochs=0"]
    trained = load_trained(run(read_config(find_config(f"{method}/osnet"), changes), tmp_path / "run"))
    assert (trained.config.method, trained.epoch) == (method, 1)
    assert all(parameter.isfinite().all() for parameter in trained.network.parameters())
