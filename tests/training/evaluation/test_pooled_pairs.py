"""Evaluation of pairs by several networks, each on its left-out frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.card import Modality
from tests.drawing import draw_person
from tests.training.trainer_toys import run, toy_config
from training.data.frame_folds import fold_of
from training.data.sources import Pairs
from training.evaluation.evaluator import evaluate_model, evaluation_set
from training.evaluation.model_loader import LoadedModel, load_model
from training.evaluation.pooled_pairs import evaluate_pooled
from training.evaluation.result import read_results
from vireid.cli import app

FRAMES = [f"f{n}" for n in range(12)]
FOLDS = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A window and two pairs of each frame."""
    root = tmp_path_factory.mktemp("pooled")
    for modality in Modality:
        (root / "pairs" / modality).mkdir(parents=True)
        for number, frame in enumerate(FRAMES):
            folder = root / "windows" / modality / f"{frame}-0"
            folder.mkdir(parents=True)
            Image.fromarray(draw_person(number, modality, size=(48, 24))).save(folder / "x_c1.png")
            for place in range(2):
                image = draw_person(2 * number + place, modality, size=(48, 24))
                Image.fromarray(image).save(root / "pairs" / modality / f"{frame}_{place}.png")
    return root


@pytest.fixture(scope="module")
def train(root: Path) -> Callable[[int, int], Path]:
    def fold(number: int, folds: int) -> Path:
        leave_out = {"pairs": root / "pairs", "fold": number, "folds": folds}
        windows = {"kind": "folder", "root": root / "windows", "name": "w", "group_pattern": r"(.+)-\d+"}
        config = toy_config(
            root,
            data=[windows | {"leave_out": leave_out}],
            method="baseline",
            backbone="test_resnet",
            input={"height": 48, "width": 24},
            schedule={"kind": "cosine", "warmup_epochs": 0},
            batch={"identities": 2, "images": 1},
            epochs=1,
            seed=number,
        )
        out = root / f"run-{number}-{folds}"
        if not out.exists():
            run(config, out, cache=root / "cache")
        return out

    return fold


@pytest.fixture(scope="module")
def models(train: Callable[[int, int], Path]) -> list[LoadedModel]:
    return [load_model(train(number, FOLDS)) for number in range(FOLDS)]


@pytest.fixture(scope="module")
def pairs(root: Path) -> Pairs:
    return Pairs(kind="pairs", root=root / "pairs", name="drawn pairs")


def reciprocal_ranks(models: list[LoadedModel], pairs: Pairs, query: Modality, own_fold: bool) -> list[float]:
    """Of each pair, by loops."""
    records = evaluation_set(pairs).records
    images = np.stack([np.array(Image.open(r.path).convert("RGB")) for r in records])
    modalities = np.array([r.modality.index for r in records])
    vectors = [model.embed(images, modalities) for model in models]
    folds = [fold_of(r.identity.split("_")[0], FOLDS) for r in records]
    found = []
    for row, record in enumerate(records):
        if record.modality is query:
            own = vectors[folds[row]]
            similarity = {
                other.identity: float(own[column] @ own[row])
                for column, other in enumerate(records)
                if other.modality is not query and (not own_fold or folds[column] == folds[row])
            }
            found.append(1 / sum(value >= similarity[record.identity] for value in similarity.values()))
    return found


def test_every_pair_is_ranked_by_the_network_that_left_out_its_frame(
    root: Path, models: list[LoadedModel], pairs: Pairs
) -> None:
    results = evaluate_pooled(models, pairs, "toys", root / "cache", "test")
    assert len(results) == 4
    for result in results:
        own_fold = result.data.name.endswith("own fold")
        expected = reciprocal_ranks(models, pairs, result.protocol.direction.query, own_fold)
        assert result.metrics["map"].mean == pytest.approx(np.mean(expected), abs=1e-6)
        assert result.metrics["rank1"].mean == pytest.approx(np.mean([r == 1 for r in expected]))
        sizes = [2 * sum(fold_of(other, FOLDS) == fold_of(f, FOLDS) for other in FRAMES) for f in FRAMES]
        chance = np.mean([1 / size for size in sizes]) if own_fold else 1 / 24
        assert result.metrics["chance_rank1"].mean == pytest.approx(chance)
        assert result.counts[0].queries == 24
        assert result.model.checkpoints == tuple(c for s in models for c in s.info.checkpoints)
    assert {r.data.name for r in results} == {
        "drawn pairs, 2 folds of frames, all pairs",
        "drawn pairs, 2 folds of frames, own fold",
    }


def test_pooling_a_single_network_equals_its_evaluation(root: Path, pairs: Pairs, models: list[LoadedModel]) -> None:
    source = (
        models[0]
        .config.data[0]
        .model_copy(
            update={"leave_out": models[0].config.data[0].leave_out.model_copy(update={"fold": 0, "folds": 1})}  # type: ignore[union-attr]
        )
    )
    model = replace(models[0], config=models[0].config.model_copy(update={"data": (source,)}))
    pooled = evaluate_pooled([model], pairs, "toy", root / "cache", "test", misaligned=True)
    single = evaluate_model(model, evaluation_set(pairs, misaligned=True), root / "cache", "test")
    assert [r.data for r in pooled] == [r.data for r in single]
    for one, other in zip(pooled, single, strict=True):
        assert {k: m.mean for k, m in one.metrics.items()} == pytest.approx(
            {k: m.mean for k, m in other.metrics.items()}
        )


def test_a_frame_that_no_network_or_several_left_out_is_rejected(
    root: Path, models: list[LoadedModel], pairs: Pairs
) -> None:
    for wrong, count in ((models[:1], "0 of 1"), ([*models, models[0]], "2 of 3")):
        with pytest.raises(ValueError, match=f"was left out by {count} networks: expected exactly one"):
            evaluate_pooled(wrong, pairs, "toys", root / "cache", "test")


def test_the_command_prints_a_table_and_writes_the_results(
    root: Path, train: Callable[[int, int], Path], tmp_path: Path
) -> None:
    runs = [str(train(number, FOLDS)) for number in range(FOLDS)]
    words = ["pool", *runs, "--pairs", str(root / "pairs"), "--name", "toys", "--out", str(tmp_path / "results")]
    done = CliRunner().invoke(app, [*words, "--misaligned", "--cache", str(root / "cache")])
    assert done.exit_code == 0, done.output
    assert "pairs, mirrored and re-cropped, 2 folds of frames, own fold" in done.output
    results = read_results(tmp_path / "results")
    assert len(results) == 4
    assert {result.model.name for result in results} == {"toys"}
