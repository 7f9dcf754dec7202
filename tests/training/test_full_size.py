"""The full-size configurations, over drawn miniatures of the benchmarks: some steps, judged, exported, by command."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.card import Card
from tests.drawing import draw_person
from training.data import miniature
from training.evaluation.result import Result
from vireid.learning import app

SHORT = ["epochs=1", "schedule.warmup_epochs=0", "weights=none", "workers=0", "batch.identities=2"]
SMALL = {
    "sysu_mm01": ({"train": 2, "validation": 1, "test": 2}, "batch.images=16"),
    "regdb": ({"people": 4}, "batch.images=2"),
    "llcm": ({"train": 2, "test": 2}, "batch.images=2"),
}
"""People drawn, and as many images in a batch as make few of them."""

PROTOCOLS = {
    "sysu_mm01": {"sysu-all-1shot-official_perm", "sysu-indoor-1shot-official_perm"},
    "regdb": {"regdb-ir_to_vis-trial1", "regdb-vis_to_ir-trial1"},
    "llcm": {"llcm-ir_to_vis-paper", "llcm-vis_to_ir-paper"},
}


def vireid(*words: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_full_size_configuration_trains_and_evaluates_and_the_network_exports(tmp_path: Path, name: str) -> None:
    data, run, cache = tmp_path / name, tmp_path / "run", str(tmp_path / "cache")
    people, batch = SMALL[name]
    getattr(miniature, f"write_{name}")(data, draw_person, **people)
    overrides = [word for override in (f"data.0.root={data}", batch, *SHORT) for word in ("--set", override)]
    vireid("train", f"baseline/{name}", "--out", str(run), "--cache", cache, *overrides)
    vireid("evaluate", str(run), "--on", f"{name}:{data}", "--cache", cache)
    results = [Result.read(path) for path in (run / "results").glob("*.json")]
    assert {result.protocol_id for result in results} == PROTOCOLS[name]
    assert {(r.model.backbone, r.preprocessing.height, r.preprocessing.width) for r in results} == {
        ("resnet50", 288, 144)
    }
    if name != "regdb":  # the graph is the same for all three
        return
    vireid("export", str(run), "--name", "full", "--out", str(tmp_path / "zoo" / "full"))
    card = Card.read(tmp_path / "zoo" / "full" / "card.json")
    assert (card.backbone, card.dimension, card.input.height, card.input.width) == ("resnet50", 2048, 288, 144)
    assert {evaluation.protocol_id for evaluation in card.evaluations} == PROTOCOLS[name]
