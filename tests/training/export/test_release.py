"""Several runs released as one model, from the command line to the server that loads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import models.registry
import training.export.onnx
import training.methods
from models.card import WORDING, Card, Precision
from server.embedding.session import OnnxEmbedder
from tests.drawing import write_people
from tests.training.trainer_toys import SIZE, Classification, Toy, run, toy_config
from training.checkpoint import fingerprint, load_trained
from training.export.onnx import random_crops
from vireid.cli import app

KINDS: dict[str, dict[str, Any]] = {
    "one": {"method": "emi-toy"},
    "other": {"method": "icre-toy", "seed": 4},
    "other-data": {"method": "emi-toy", "root": "others"},
    "other-input": {"method": "emi-toy", "input": {"height": 48, "width": 24}},
    "other-people": {"method": "emi-toy", "validation": {"share": 0.5, "seed": 2}},
}


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("emi-toy", "icre-toy"):
            patch.setitem(models.registry.METHODS, name, Toy)
            patch.setitem(training.methods.METHODS, name, Classification)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train two methods on the same people, and incompatible runs."""
    root = tmp_path_factory.mktemp("runs")
    for name, people in {"people": range(8), "others": range(6)}.items():
        write_people(root / name, people, images=2, size=SIZE)
    for name, changes in KINDS.items():
        defaults = {"batch": {"identities": 2, "images": 2}, "validation": {"share": 0.5, "seed": 1}}
        changes = defaults | changes
        run(toy_config(root / changes.pop("root", "people"), **changes), root / name, cache=root / "cache")
    return {name: root / name for name in KINDS}


def vireid(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_a_fused_model_is_exported_evaluated_and_served(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cache = tmp_path / "zoo" / "fused", runs["one"].parent / "cache"
    words = ("export", "--fuse", runs["one"], runs["other"], "--weight", "1", "--weight", "2")
    vireid(*words, "--name", "fused", "--out", out)
    members = [load_trained(runs[name] / "model.pt").network for name in ("one", "other")]

    card = Card.read(out / "card.json")
    assert (card.method, card.backbone, card.wording) == ("emi-toy+icre-toy", "toy", WORDING)
    assert card.dimension == sum(member.dimension for member in members)
    assert [(m.name, m.method, m.weight) for m in card.members] == [("one", "emi-toy", 1), ("other", "icre-toy", 2)]
    assert [m.fingerprint for m in card.members] == [fingerprint(member) for member in members]
    assert card.fingerprint not in {m.fingerprint for m in card.members}
    assert len(card.training.data) == 1

    images, modalities = random_crops(4, *SIZE), np.arange(4) % 2
    served = OnnxEmbedder(out, device="cpu", threads=1).embed(images, modalities)
    with torch.inference_mode():
        one, other = (m.embed(torch.from_numpy(images), torch.from_numpy(modalities)).numpy() for m in members)
    np.testing.assert_allclose(served, np.concatenate([one, 2 * other], 1) / np.sqrt(5), atol=1e-4)

    vireid("evaluate", out, "--cache", cache)  # the graph, on the held-out people of both members
    monkeypatch.setattr(training.export.onnx, "HALVED_FROM", 1)  # the toy network has no large weights
    vireid(*words, "--name", "fused", "--out", out, "--half-weights")
    again = Card.read(out / "card.json")
    assert [e.protocol["direction"] for e in again.evaluations] == ["ir_to_vis", "vis_to_ir", "vis_to_vis"]
    assert len(again.calibrations) == 4
    assert again.fingerprint == card.fingerprint
    assert again.precisions[Precision.FP32].weights == "float16"
    halved = OnnxEmbedder(out, device="cpu", threads=1).embed(images, modalities)
    assert (served * halved).sum(1).min() > 0.9999
    assert not np.array_equal(served, halved)


@pytest.mark.parametrize(
    ("second", "message"),
    [("other-data", "training data"), ("other-people", "held-out identities"), ("other-input", "in their input")],
)
def test_runs_with_different_data_are_not_fused(
    runs: dict[str, Path], tmp_path: Path, second: str, message: str
) -> None:
    said = vireid("export", "--fuse", runs["one"], runs[second], "--name", "f", "--out", tmp_path / "f", code=2)
    assert message in said
    assert not (tmp_path / "f").exists()


def test_inconsistent_arguments_are_rejected(runs: dict[str, Path], tmp_path: Path) -> None:
    end = ("--name", "f", "--out", tmp_path / "f")
    assert "needs --fuse" in vireid("export", runs["one"], runs["other"], *end, code=2)
    assert "at least two" in vireid("export", "--fuse", runs["one"], *end, code=2)
    one_weight = ("--weight", "1")
    assert "weight above 0 for each" in vireid(
        "export", "--fuse", runs["one"], runs["other"], *one_weight, *end, code=2
    )


def test_a_graph_that_fails_the_parity_check_is_reported_and_not_released(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.export.onnx, "MIN_COSINE", 1.1)
    said = vireid("export", runs["one"], "--name", "f", "--out", tmp_path / "f", code=1)
    assert "parity check failed" in said
    assert "error" not in said.replace("max_error", "")
    assert not (tmp_path / "f").exists()
