"""The full-size configurations on synthetic benchmarks: a few training steps, evaluation and export by command."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.card import Card
from tests.drawing import draw_person
from tests.training import synthetic_datasets as synthetic
from training.config import CONFIGS
from training.evaluation.result import Result, read_results
from vireid.cli import app

SHORT = ["epochs=1", "schedule.warmup_epochs=0", "weights=none", "workers=0", "batch.identities=2"]
SMALL = {
    "sysu_mm01": ({"train": 2, "validation": 1, "test": 2}, "batch.images=16"),
    "regdb": ({"people": 4}, "batch.images=2"),
    "llcm": ({"train": 2, "test": 2}, "batch.images=2"),
}
"""Number of drawn people, and batch sizes that give few batches."""

LIGHTER = ["backbone=resnet18", "input.height=96", "input.width=48"]

PROTOCOLS = {
    "sysu_mm01": {"sysu-all-1shot-official_perm", "sysu-indoor-1shot-official_perm"},
    "regdb": {"regdb-ir_to_vis-trial1", "regdb-vis_to_ir-trial1"},
    "llcm": {"llcm-ir_to_vis-paper", "llcm-vis_to_ir-paper"},
}
METHODS = ("baseline", "mtrl", "icre", "emi")


def vireid(*words: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output


def train(folder: Path, method: str, name: str, *others: str) -> Path:
    """Draw the benchmark, train the configuration on it for a few steps, and evaluate the network."""
    data, run, cache = folder / name, folder / "run", str(folder / "cache")
    people, batch = SMALL[name]
    getattr(synthetic, f"write_{name}")(data, draw_person, **people)
    overrides = [f"data.0.root={data}", batch, *SHORT, *others]
    options = [word for override in overrides for word in ("--set", override)]
    vireid("train", f"{method}/{name}", "--out", str(run), "--cache", cache, *options)
    vireid("evaluate", str(run), "--on", f"{name}:{data}", "--cache", cache)
    return run


def results_of(run: Path) -> list[Result]:
    return read_results(run)


def test_every_method_has_a_configuration_for_every_benchmark() -> None:
    assert {(path.parent.name, path.stem) for path in CONFIGS.glob("*/*.yaml")} >= {
        (method, name) for method in METHODS for name in PROTOCOLS
    }


@pytest.mark.timeout(600)
def test_a_full_size_configuration_trains_and_evaluates_and_the_network_exports(tmp_path: Path) -> None:
    run = train(tmp_path, "baseline", "regdb")
    found = results_of(run)
    assert {result.protocol_id for result in found} == PROTOCOLS["regdb"]
    assert {(r.model.backbone, r.preprocessing.height, r.preprocessing.width) for r in found} == {
        ("resnet50", 288, 144)
    }
    vireid("export", str(run), "--name", "full", "--out", str(tmp_path / "zoo" / "full"))
    card = Card.read(tmp_path / "zoo" / "full" / "card.json")
    assert (card.backbone, card.dimension, card.input.height, card.input.width) == ("resnet50", 2048, 288, 144)
    assert {evaluation.protocol_id for evaluation in card.evaluations} == PROTOCOLS["regdb"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_on_a_benchmark_with_a_lighter_backbone(tmp_path: Path, method: str) -> None:
    run = train(tmp_path, method, "llcm", *LIGHTER)
    assert {result.protocol_id for result in results_of(run)} == PROTOCOLS["llcm"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
@pytest.mark.parametrize("method", METHODS)
def test_every_full_size_configuration_trains_and_evaluates(tmp_path: Path, method: str, name: str) -> None:
    found = results_of(train(tmp_path, method, name))
    assert {result.protocol_id for result in found} == PROTOCOLS[name]
    assert {(r.model.method, r.model.backbone) for r in found} == {(method, "resnet50")}
