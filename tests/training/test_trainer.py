"""The training loop: equality with a plain loop, resuming, validation and errors."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.nn import functional as F

import models.registry
import training.methods
from models.baseline import Output
from models.card import Modality
from models.registry import build
from tests.drawing import draw_person, write_people
from tests.training import synthetic_datasets as synthetic
from tests.training.trainer_toys import (
    SIZE,
    Classification,
    Fragile,
    Interrupted,
    Toy,
    drawn_batches,
    joined,
    run,
    toy_config,
)
from training.checkpoint import load_trained
from training.config import TrainingConfig, read_config
from training.data.augmentation import Role
from training.data.dataset import Batch
from training.evaluation.embeddings import Embeddings
from training.evaluation.exclusion import Exclusion
from training.evaluation.validation import Measure
from training.methods.baseline import Baseline as BaselineMethod
from training.trainer import NonFiniteLossError, train


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in {"toy": Classification, "fragile": Fragile, "toy-baseline": BaselineMethod}.items():
        monkeypatch.setitem(models.registry.METHODS, name, Toy)
        monkeypatch.setitem(training.methods.METHODS, name, method)
    monkeypatch.setattr(Fragile, "seen", 0)
    monkeypatch.setattr(Fragile, "fails_at", None)
    monkeypatch.setattr(Fragile, "nan_at", None)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("data") / "people", range(10), images=2, size=SIZE)


@pytest.fixture
def cache(people: Path) -> Path:
    return people.parent / "cache"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(lines)]


def same(a: Any, b: Any) -> bool:
    """Compare nested states, with tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def states_differ(one: Path, other: Path) -> list[str]:
    """Return the parts of two checkpoints that are not bit-identical."""
    a, b = (torch.load(out / "last.pt", weights_only=True) for out in (one, other))
    return [key for key in a.keys() | b.keys() if not same(a[key], b[key])]


# --- what is learnt


def learnt_by_hand(config: TrainingConfig, cache: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights and averaged weights after a plain loop, with an accumulation group as one large batch."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = Toy(config.backbone, 10)
    groups = [list(network.trunk.parameters()), list(network.classifier.parameters())]
    optimiser = torch.optim.SGD(
        [{"params": g} for g in groups], lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=False
    )
    average = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch, steps in enumerate(drawn_batches(config, cache)):
        factor = [1.0, 1.0, 0.1][epoch]
        for group, rate in zip(optimiser.param_groups, (0.01, 0.1), strict=True):
            group["lr"] = rate * factor
        for start in range(0, len(steps), config.accumulation):
            batch = joined([batch for ranks in steps[start : start + config.accumulation] for batch in ranks])
            optimiser.zero_grad()
            F.cross_entropy(network(batch.images, batch.modalities).logits, batch.identities).backward()
            if config.clip:
                norm = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
                for p in network.parameters():
                    assert p.grad is not None
                    p.grad *= min(1.0, config.clip / float(norm))
            optimiser.step()
            for name, value in network.state_dict().items():
                first = epoch == 0 and start == 0
                decay = 0.0 if first else config.ema or 0.0
                average[name] = decay * average[name] + (1 - decay) * value
    return network.state_dict(), average


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulation": 2}, {"accumulation": 3}, {"clip": 0.1}, {"ema": 0.8}, {"epochs": 3, "ema": 0.5}],
    ids=str,
)
def test_the_trainer_equals_a_plain_loop(people: Path, cache: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = toy_config(people, **changes)
    plain, average = learnt_by_hand(config, cache)
    trained = load_trained(run(config, tmp_path / "out", cache=cache))
    expected = average if config.ema else plain
    for name, value in trained.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    assert trained.epoch == config.epochs
    assert trained.config == config


def test_the_baseline_learns_to_find_drawn_people(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", range(8), images=4, size=(48, 24))
    config = toy_config(
        people,
        method="baseline",
        backbone="test_resnet",
        weights="none",
        batch={"identities": 4, "images": 2, "streams": ["visible", "infrared"]},
        optimiser={"kind": "adamw", "learning_rate": 1e-2, "pretrained_factor": 1.0},
        schedule={"kind": "cosine", "warmup_epochs": 1},
        input={"height": 48, "width": 24},
        augmentation={"erasing": 0.0, "flip": 0.0, "pad": 0.0},
        epochs=7,
    )
    run(config, tmp_path / "out")
    loss = [float(row["loss"]) for row in rows(tmp_path / "out" / "training.csv")]
    assert loss[-1] < 0.5 * loss[0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_finite_and_near_full_precision(
    people: Path, cache: Path, tmp_path: Path, precision: str
) -> None:
    full, mixed = (
        load_trained(run(toy_config(people, method="toy-baseline", precision=p), tmp_path / p, cache=cache))
        for p in ("fp32", precision)
    )
    for name, value in mixed.network.state_dict().items():
        torch.testing.assert_close(value, full.network.state_dict()[name], rtol=0.1, atol=0.02)
    assert all(np.isfinite(float(row["loss"])) for row in rows(tmp_path / precision / "training.csv"))


def test_the_number_of_workers_does_not_affect_the_result(people: Path, cache: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        run(toy_config(people, workers=workers), tmp_path / str(workers), cache=cache)
    assert states_differ(tmp_path / "0", tmp_path / "2") == ["config"]


def test_the_global_generators_are_restored(people: Path, cache: Path, tmp_path: Path) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    run(toy_config(people, backbone="toy-dropout"), tmp_path / "out", cache=cache)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert same([*numpy_state][:1], [*np.random.get_state()][:1])
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])  # type: ignore[index]


def test_a_method_without_its_streams_is_rejected(people: Path, cache: Path, tmp_path: Path) -> None:
    config = toy_config(people, batch={"streams": ["exchanged", "infrared"]})
    with pytest.raises(ValueError, match=r"toy needs the streams .*visible"):
        run(config, tmp_path / "out", cache=cache)


# --- going on


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9, "precision": "fp16", "accumulation": 2, "optimiser": {"kind": "adamw"}}],
    ids=["plain", "everything"],
)
@pytest.mark.parametrize("interrupted_at", [4, 7, 8, 18], ids=["inside", "last", "first", "epoch 3"])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    people: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    interrupted_at: int,
) -> None:
    values: dict[str, Any] = {"epochs": 3, "validation": {"share": 0.3, "every": 2}, "checkpoint_minutes": 1e-9}
    config = toy_config(people, method="fragile", backbone="toy-dropout", **values | changes)
    run(config, tmp_path / "whole", cache=cache)
    Fragile.seen = 0
    monkeypatch.setattr(Fragile, "fails_at", interrupted_at)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "parts", cache=cache)
    run(config, tmp_path / "parts", resume=True, cache=cache)

    assert states_differ(tmp_path / "whole", tmp_path / "parts") == []
    for name in ("training.csv", "validation.csv"):
        assert rows(tmp_path / "whole" / name) == rows(tmp_path / "parts" / name)
    whole, parts = (load_trained(tmp_path / name / "model.pt") for name in ("whole", "parts"))
    assert same(whole.network.state_dict(), parts.network.state_dict())


def test_two_epochs_equal_one_epoch_and_a_resumed_one(
    people: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(people, method="fragile", backbone="toy-dropout")
    run(config, tmp_path / "whole", cache=cache)
    batches = len(drawn_batches(config, cache)[0])
    Fragile.seen = 0
    monkeypatch.setattr(Fragile, "fails_at", batches + 1)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "parts", cache=cache)
    assert [row["epoch"] for row in rows(tmp_path / "parts" / "training.csv")] == ["1"]
    monkeypatch.setattr(Fragile, "fails_at", None)
    run(config, tmp_path / "parts", resume=True, cache=cache)
    assert Fragile.seen == 2 * batches + 1, "the first epoch was trained again"
    assert states_differ(tmp_path / "whole", tmp_path / "parts") == []
    assert rows(tmp_path / "whole" / "training.csv") == rows(tmp_path / "parts" / "training.csv")


def test_rows_written_after_the_last_checkpoint_do_not_appear_twice(people: Path, cache: Path, tmp_path: Path) -> None:
    config = toy_config(people, validation={"share": 0.3, "every": 1})

    calls = iter(range(10))  # three directions after epoch 0, three after epoch 1, then

    def fails_after_epoch_two(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> Mapping[str, float]:
        if next(calls) == 6:
            raise Interrupted
        return {"map": 0.5}

    with pytest.raises(Interrupted):
        run(config, tmp_path / "out", cache=cache, measure=fails_after_epoch_two)
    assert [row["epoch"] for row in rows(tmp_path / "out" / "training.csv")] == ["1", "2"]
    run(config, tmp_path / "out", resume=True, cache=cache, measure=lambda *_: {"map": 0.5})
    assert [row["epoch"] for row in rows(tmp_path / "out" / "training.csv")] == ["1", "2"]
    assert [row["epoch"] for row in rows(tmp_path / "out" / "validation.csv")] == ["0", "1", "2"]


def test_a_finished_run_can_be_resumed_without_effect(people: Path, cache: Path, tmp_path: Path) -> None:
    config = toy_config(people)
    result = run(config, tmp_path / "out", cache=cache)
    before = result.read_bytes()
    assert run(config, tmp_path / "out", resume=True, cache=cache) == result
    assert result.read_bytes() == before


def test_resume_starts_a_new_run(people: Path, cache: Path, tmp_path: Path) -> None:
    assert run(toy_config(people), tmp_path / "out", resume=True, cache=cache).is_file()


def test_a_run_is_not_overwritten(people: Path, cache: Path, tmp_path: Path) -> None:
    run(toy_config(people), tmp_path / "out", cache=cache)
    with pytest.raises(FileExistsError, match="contains a run"):
        run(toy_config(people), tmp_path / "out", cache=cache)


def test_resume_with_another_configuration_is_an_error_that_names_the_keys(
    people: Path, cache: Path, tmp_path: Path
) -> None:
    run(toy_config(people), tmp_path / "out", cache=cache)
    other = toy_config(people, epochs=5, clip=1.0, workers=1, optimiser={"learning_rate": 0.2})
    with pytest.raises(ValueError, match="cannot be resumed") as refusal:
        run(other, tmp_path / "out", resume=True, cache=cache)
    named = re.findall(r"([a-z_.]+): \S+ before", str(refusal.value))
    assert named == ["clip", "epochs", "optimiser.learning_rate"]


def test_resume_with_other_data_is_an_error(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", range(4), images=2, size=SIZE)
    run(toy_config(people), tmp_path / "out")
    next(people.rglob("*.png")).unlink()
    with pytest.raises(ValueError, match="files of the data sets differ"):
        run(toy_config(people), tmp_path / "out", resume=True)


# --- stopping


def test_a_non_finite_loss_stops_the_run_and_names_the_batch(
    people: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(people, method="fragile")
    steps = drawn_batches(config, cache)
    monkeypatch.setattr(Fragile, "nan_at", len(steps[0]) + 3)
    with pytest.raises(NonFiniteLossError, match=r"epoch 2, step 3: .*'wrt': nan") as stop:
        run(config, tmp_path / "out", cache=cache)
    assert Fragile.seen == len(steps[0]) + 3
    assert (stop.value.epoch, stop.value.step) == (2, 3)
    identities = {f"{identity:04d}" for identity in steps[1][2][0].identities.tolist()}
    assert {file.parent.name for file in stop.value.files} == identities
    assert len(stop.value.files) == 4
    assert str(stop.value.files[0]) in str(stop.value)


# --- evaluation


def test_validation_identities_are_not_trained_on(people: Path, cache: Path, tmp_path: Path) -> None:
    seen: set[str] = set()

    def note(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> Mapping[str, float]:
        seen.update(query.identities.tolist(), gallery.identities.tolist())
        assert {len(set(side.modalities.tolist())) for side in (query, gallery)} == {1}
        assert exclusion is Exclusion.SAME_ID_SAME_CAM
        return {"map": 0.5}

    config = toy_config(people, validation={"share": 0.3})
    trained = load_trained(run(config, tmp_path / "out", cache=cache, measure=note))
    assert seen == set(trained.held_out)
    assert not seen & trained.labels.keys()
    assert sorted(seen | trained.labels.keys()) == [f"{i:04d}" for i in range(10)]
    assert trained.network.classifier.out_features == len(trained.labels)


@pytest.mark.parametrize(("select", "epoch"), [("best", 2), ("last", 4)])
def test_the_released_network_is_the_one_selected(
    people: Path, cache: Path, tmp_path: Path, select: str, epoch: int
) -> None:
    scores = iter([0.0, 0.0, 0.0, 0.2, 0.2, 0.2, 0.6, 0.7, 0.8, 0.6, 0.7, 0.8, 0.1, 0.1, 0.1])

    def measure(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> Mapping[str, float]:
        return {"map": next(scores)}

    config = toy_config(people, epochs=4, validation={"share": 0.3, "every": 1, "select": select})
    trained = load_trained(run(config, tmp_path / "out", cache=cache, measure=measure))
    assert trained.epoch == epoch
    directions = ("visible_to_infrared", "infrared_to_visible", "visible_to_visible")
    expected = (0.6, 0.7, 0.8) if epoch == 2 else (0.1, 0.1, 0.1)
    assert trained.metrics == {f"drawn/{d}/map": v for d, v in zip(directions, expected, strict=True)}
    assert [row["epoch"] for row in rows(tmp_path / "out" / "validation.csv")] == ["0", "1", "2", "3", "4"]


def test_a_validation_share_without_identities_is_rejected(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", range(3), images=1, size=SIZE)
    with pytest.raises(ValueError, match=r"raise validation\.share"):
        run(toy_config(people, validation={"share": 0.01}), tmp_path / "out")


# --- several data sets


def test_equal_names_in_two_data_sets_are_two_people(people: Path, cache: Path, tmp_path: Path) -> None:
    other = write_people(tmp_path / "other", range(3), images=2, size=SIZE)
    data = [{"kind": "folder", "root": root, "name": name} for root, name in ((people, "a"), (other, "b"))]
    trained = load_trained(run(toy_config(people, data=data), tmp_path / "out", cache=cache))
    assert len(trained.labels) == 13
    assert {"a/0001", "b/0001"} <= trained.labels.keys()
    assert [(s.name, s.identities, s.visible, s.infrared) for s in trained.sources] == [
        ("a", 10, 20, 20),
        ("b", 3, 6, 6),
    ]
    with pytest.raises(ValueError, match="different names"):
        run(toy_config(people, data=[data[0], data[0]]), tmp_path / "again", cache=cache)


def test_a_data_set_without_classification_has_no_classes(people: Path, cache: Path, tmp_path: Path) -> None:
    other = write_people(tmp_path / "other", range(3), images=2, size=SIZE)
    data = [
        {"kind": "folder", "root": other, "name": "a", "classify": False},
        {"kind": "folder", "root": people, "name": "b"},
    ]
    trained = load_trained(run(toy_config(people, data=data), tmp_path / "out", cache=cache))
    assert trained.network.classifier.out_features == 10
    assert sorted(trained.labels.values()) == list(range(13))
    assert {name for name, label in trained.labels.items() if label >= 10} == {"a/0000", "a/0001", "a/0002"}
    with pytest.raises(ValueError, match="no data set is classified"):
        toy_config(people, data=data[:1]).read_data()


def test_a_run_starts_from_the_weights_of_another_run(people: Path, cache: Path, tmp_path: Path) -> None:
    first = run(toy_config(people), tmp_path / "first", cache=cache)
    still = toy_config(people, method="toy-baseline", start=first, optimiser={"learning_rate": 1e-12})
    assert same(
        {k: v.round(decimals=5) for k, v in load_trained(first).network.state_dict().items()},
        {
            k: v.round(decimals=5)
            for k, v in load_trained(run(still, tmp_path / "second", cache=cache)).network.state_dict().items()
        },
    )
    fewer = [{"kind": "folder", "root": people, "name": "fewer"}]
    other = toy_config(people, start=first, data=fewer, validation={"share": 0.3})
    with pytest.raises(ValueError, match=r"does not fit: classifier\.(weight|bias) is \[10"):
        run(other, tmp_path / "third", cache=cache)
    with pytest.raises(FileNotFoundError):
        run(toy_config(people, start=tmp_path / "none.pt"), tmp_path / "fourth", cache=cache)


def test_visible_people_are_trained_on_with_translated_infrared(people: Path, cache: Path, tmp_path: Path) -> None:
    source = {"kind": "folder", "root": people / "visible", "name": "v", "modality": "visible"}
    with pytest.raises(ValueError, match="have only one modality"):
        run(toy_config(people, data=[source]), tmp_path / "refused", cache=cache)
    config = toy_config(people, data=[source | {"translate": "channel"}], validation={"share": 0.3})
    trained = load_trained(run(config, tmp_path / "out", cache=cache))
    assert (trained.sources[0].visible, trained.sources[0].infrared) == (20, 0)
    assert "20 infrared images translated" in trained.sources[0].remark
    assert {name.rsplit("/", 1)[1] for name in trained.metrics} >= {"rank1", "map", "minp", "chance_rank1"}


def test_an_image_is_not_matched_with_its_own_translation(people: Path, cache: Path, tmp_path: Path) -> None:
    rules = set()

    def note(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> Mapping[str, float]:
        rules.add(exclusion)
        return {"map": 0.5}

    source = {"kind": "folder", "root": people / "visible", "name": "v", "modality": "visible", "translate": "channel"}
    run(toy_config(people, data=[source], validation={"share": 0.3}), tmp_path / "out", cache=cache, measure=note)
    assert rules == {Exclusion.SAME_ID_SAME_CAM}


def test_aligned_pairs_are_validated_misaligned(tmp_path: Path) -> None:
    for identity in range(6):
        for modality in Modality:
            file = tmp_path / "pairs" / modality / f"{identity}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_person(identity, modality, size=SIZE)).save(file)
    people = write_people(tmp_path / "people", range(6), images=1, size=SIZE)
    data = [
        {"kind": "pairs", "root": tmp_path / "pairs", "name": "pairs"},
        {"kind": "folder", "root": people, "name": "people"},
    ]
    held_out = toy_config(people, data=data, validation={"share": 0.5}).read_data().held_out
    assert [(part.name, part.misaligned) for part in held_out] == [("pairs", True), ("people", False)]


def benchmark_config(name: str, root: Path, *overrides: str) -> TrainingConfig:
    """The packaged configuration over a drawn synthetic, one epoch long."""
    getattr(synthetic, f"write_{name}")(root, draw_person)
    short = ["epochs=1", "schedule.warmup_epochs=0", "weights=none", "workers=0"]
    file = Path(training.__file__).parent / "configs" / "baseline" / f"{name}.yaml"
    return read_config(file, [f"data.0.root={root}", *short, *overrides])


@pytest.mark.parametrize(("name", "people"), [("sysu_mm01", 6), ("regdb", 3), ("llcm", 4)])
def test_the_configuration_of_a_benchmark_trains_on_a_synthetic_one(tmp_path: Path, name: str, people: int) -> None:
    small = ["backbone=test_resnet", "input={height: 48, width: 24}", "batch={identities: 2, images: 8}"]
    trained = load_trained(run(benchmark_config(name, tmp_path / name, *small), tmp_path / "out"))
    assert len(trained.labels) == people
    assert trained.sources[0].infrared > 0


def test_groups_of_identities_stay_on_one_side_of_the_split(cache: Path, tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", range(24), images=1, size=SIZE)
    source = {"kind": "folder", "root": people, "name": "g", "group_pattern": r"(..)\d$"}
    config = toy_config(people, data=[source], validation={"share": 0.4, "seed": 5})
    trained = load_trained(run(config, tmp_path / "out", cache=cache))
    kept, learnt = ({name[:3] for name in names} for names in (trained.held_out, trained.labels))
    assert kept
    assert learnt
    assert not kept & learnt


# --- telling


@pytest.fixture
def screen() -> Iterator[io.StringIO]:
    with io.StringIO() as text:
        yield text


def test_without_a_terminal_every_epoch_prints_a_plain_line(
    people: Path, cache: Path, tmp_path: Path, screen: io.StringIO
) -> None:
    train(toy_config(people), tmp_path / "out", cache=cache, console=Console(file=screen))
    lines = [line for line in screen.getvalue().splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    assert re.fullmatch(r"epoch 2/2  10/10  loss \d+\.\d+  id \d+\.\d+  lr 0\.1  \d+ images/s", lines[1]), lines[1]


def test_on_a_terminal_the_bar_shows_loss_and_speed(
    people: Path, cache: Path, tmp_path: Path, screen: io.StringIO
) -> None:
    console = Console(file=screen, force_terminal=True, width=160)
    train(toy_config(people), tmp_path / "out", cache=cache, console=console)
    assert re.search(r"epoch 1/2 .*10/10.* loss \d+\.\d+ .*images/s", screen.getvalue())


def test_the_logs_contain_terms_learning_rate_and_speed_of_every_epoch(
    people: Path, cache: Path, tmp_path: Path
) -> None:
    run(toy_config(people, method="toy-baseline", epochs=3), tmp_path / "out", cache=cache)
    with (tmp_path / "out" / "training.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [*found[0]] == ["epoch", "loss", "id", "wrt", "learning_rate", "images_per_second"]
    assert [float(row["learning_rate"]) for row in found] == pytest.approx([0.1, 0.1, 0.01])
    assert all(float(row["loss"]) == pytest.approx(float(row["id"]) + float(row["wrt"])) for row in found)
    assert list((tmp_path / "out" / "tensorboard").iterdir())


def falling(scores: list[float]) -> Measure:
    left = iter(scores)

    def measure(query: Embeddings, gallery: Embeddings, exclusion: Exclusion) -> Mapping[str, float]:
        return {"map": next(left)}

    return measure


@pytest.mark.parametrize(
    ("scores", "warned"), [([0.5, 0.5, 0.5, 0.3, 0.4, 0.6], True), ([0.5, 0.5, 0.5, 0.6, 0.5, 0.5], False)]
)
def test_a_run_that_is_worse_than_its_initial_weights_warns(
    people: Path, cache: Path, tmp_path: Path, scores: list[float], warned: bool
) -> None:
    screen = io.StringIO()
    config = toy_config(people, validation={"share": 0.3, "every": 2})
    train(config, tmp_path / "out", cache=cache, measure=falling(scores), console=Console(file=screen, width=500))
    assert ("is worse than its initial weights" in screen.getvalue()) is warned


def test_a_method_with_targets_gets_the_embeddings_of_the_initial_network(
    people: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []

    class Retaining(Classification):
        needs_targets = True

        def forward(self, output: Output, batch: Batch) -> dict[str, torch.Tensor]:
            seen.append(batch)
            return super().forward(output, batch)

    monkeypatch.setitem(training.methods.METHODS, "toy", Retaining)
    config = toy_config(people)
    run(config, tmp_path / "out", cache=cache)
    torch.manual_seed(config.seed)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        start = build("toy", "toy", 10).eval()
    assert len(seen) > 2
    for batch in (seen[0], seen[-1]):
        assert batch.targets is not None
        visible = batch.roles == Role.VISIBLE
        with torch.no_grad():
            expected = start.embed(batch.images[visible], batch.modalities[visible])
        torch.testing.assert_close(batch.targets[visible], expected)
        assert not batch.targets[~visible].any()
