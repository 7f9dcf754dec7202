"""Options of a method: validation in the configuration, storage with the network, and rebuilding it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import models.registry
import training.methods
from tests.drawing import write_people
from tests.training.trainer_toys import SIZE, Classification, Toy, run, toy_config
from training.checkpoint import load_trained
from training.methods import Options, build_method, read_options
from training.methods.method import ramp


class WideOptions(Options):
    width: int = 3
    gain: float = 1.0


class Wide(Classification):
    """Classification by a toy network with a part as wide as its options say."""

    options_type: ClassVar[type[Options]] = WideOptions

    def __init__(self, options: WideOptions) -> None:
        super().__init__(options)
        self.options = options

    def structure(self) -> dict[str, Any]:
        return {"width": self.options.width}


class WideToy(Toy):
    def __init__(self, backbone: str, identities: int, weights: str | Path | None = None, *, width: int) -> None:
        super().__init__(backbone, identities, weights)
        self.part = nn.Parameter(torch.zeros(width))


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.registry.METHODS, "wide", WideToy)
    monkeypatch.setitem(training.methods.METHODS, "wide", Wide)


def test_a_run_and_its_file_build_the_network_of_the_options(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", range(3), images=1, size=SIZE)
    config = toy_config(people, method="wide", options={"width": 5}, epochs=1, schedule={"warmup_epochs": 0})
    trained = load_trained(run(config, tmp_path / "run", cache=tmp_path / "cache"))
    assert trained.network.get_parameter("part").shape == (5,)
    assert trained.config.options == {"width": 5, "gain": 1.0}
    with pytest.raises(ValueError, match=r"options\.width: 5 before, 6 now"):
        run(config.model_copy(update={"options": {"width": 6, "gain": 1.0}}), tmp_path / "run", resume=True)


def test_default_options_are_stored() -> None:
    assert toy_config(Path("x"), method="wide").options == {"width": 3, "gain": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 3}, r"unknown key 'widht', did you mean 'width'\? expected one of gain, width"),
        ({"width": "broad"}, "width"),
        ({"gain": float("nan")}, "gain"),
    ],
)
def test_unknown_options_and_invalid_values_are_configuration_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy_config(Path("x"), method="wide", options=options)


def test_the_error_for_an_unknown_option_lists_those_of_the_method() -> None:
    with pytest.raises(ValueError, match=r"unknown key 'depth': expected one of contrast_temperature"):
        read_options("baseline", {"depth": 3})


def test_the_error_for_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'nothing': expected one of baseline"):
        build_method("nothing", {})


def test_a_ramp_rises_over_its_epochs() -> None:
    assert [ramp(epoch, 4) for epoch in (0, 1, 2.5, 4, 9)] == [0, 0.25, 0.625, 1, 1]
    assert ramp(0, 0) == 1
