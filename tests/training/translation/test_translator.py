"""The learnt translator: training, excluded frames, caching and loss."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from models.card import Modality
from training.data.images import Pixels
from training.translation.channel import ChannelTranslation
from training.translation.comparison import QUALITIES, TranslatorComparison
from training.translation.learning import TranslatorConfig, compare_translators, train_translator
from training.translation.learnt import LearntTranslation
from training.translation.loss import translation_loss
from training.translation.network import Parts, TranslationNetwork, load_network
from training.translation.quality import psnr, ssim
from training.translation.smoothing import SIGMA, detail, smooth
from vireid.cli import app


def write_frames(root: Path, count: int = 12) -> Path:
    """Write coloured blocks; infrared is the blue channel on a level that decreases from left to right."""
    for number in range(count):
        rng = np.random.default_rng(number)
        visible = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        infrared = (visible[..., 2] * np.linspace(1, 0.5, visible.shape[1])).astype(np.uint8)
        for modality, image in zip(Modality, (visible, infrared), strict=True):
            (root / modality).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / modality / f"{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames"))


SMALL = {"size": (32, 16), "per_frame": 4, "batch": 4, "held_out": 0.3, "without": {"03", "07"}}


@pytest.fixture(scope="module")
def learnt(frames: Path) -> Path:
    config = TranslatorConfig.model_validate({"frames": [frames], "steps": 40, "learning_rate": 1e-2, **SMALL})
    train_translator(config, frames / "translator.pt", Console(file=io.StringIO()))
    return frames / "translator.pt"


def test_the_learnt_translator_is_closer_to_unseen_infrared_than_untrained_ones(frames: Path, learnt: Path) -> None:
    config = TranslatorConfig.model_validate(load_network(learnt)[1])
    found = compare_translators(
        config, {"channel": ChannelTranslation(), "learnt": LearntTranslation(learnt, gamma=(1, 1))}
    )
    assert found["learnt"].psnr > found["channel"].psnr + 3
    assert found["learnt"].ssim > found["channel"].ssim
    held_out = [f"{n:02d}" for n in range(12) if config.evaluates_on(f"{n:02d}")]
    assert 0 < found["learnt"].windows <= 4 * len(held_out)


def test_a_frame_is_for_training_or_for_comparison_or_excluded() -> None:
    config = TranslatorConfig.model_validate({"frames": [], **SMALL})
    names = [f"{n:02d}" for n in range(200)]
    assert not any(config.trains_on(n) or config.evaluates_on(n) for n in ("03", "07"))
    assert all(config.trains_on(n) != config.evaluates_on(n) for n in names if n not in ("03", "07"))
    assert 40 < sum(map(config.evaluates_on, names)) < 80


def test_the_same_seed_gives_the_same_weights_and_restores_the_generator(frames: Path, tmp_path: Path) -> None:
    config = TranslatorConfig.model_validate({"frames": [frames], "steps": 2, **SMALL})
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    for name in ("one", "other"):
        train_translator(config, tmp_path / name, Console(file=io.StringIO()))
    assert torch.rand(1) == expected
    one, other = (load_network(tmp_path / name)[0].state_dict() for name in ("one", "other"))
    assert all((one[key] == other[key]).all() for key in one)
    with pytest.raises(FileExistsError, match="already exists"):
        train_translator(config, tmp_path / "one")


@pytest.mark.parametrize("size", [(16, 16), (37, 21)])
def test_images_of_every_size_are_translated_independently_of_their_batch(size: tuple[int, int]) -> None:
    network = TranslationNetwork()
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8))
    made = network(batch)
    assert made.shape == (3, 1, *size)
    assert ((made >= 0) & (made <= 1)).all()
    assert torch.allclose(network(batch[1:2]), made[1:2], atol=1e-5)


@pytest.fixture
def image() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)


def test_a_translation_is_computed_once_for_all_workers(learnt: Path, image: Pixels, tmp_path: Path) -> None:
    one = LearntTranslation(learnt, cache=tmp_path)
    made = one(image, np.random.default_rng(1))
    assert made.shape == image.shape
    assert (made == made[..., :1]).all()
    files = list(tmp_path.rglob("*.png"))
    assert len(files) == 1
    Image.fromarray(np.full((32, 16), 255, np.uint8)).save(files[0])  # the next reader gets the cached image
    other = pickle.loads(pickle.dumps(LearntTranslation(learnt, cache=tmp_path)))  # as a worker gets it
    assert (other(image, np.random.default_rng(1)) == 255).all()
    assert (other(image[:, ::-1], np.random.default_rng(1)) != 255).any()


def test_the_learnt_translator_draws_only_the_gamma(learnt: Path, image: Pixels, tmp_path: Path) -> None:
    plain = LearntTranslation(learnt, gamma=(1, 1), cache=tmp_path)(image, np.random.default_rng(0))
    with torch.inference_mode():
        expected = (load_network(learnt)[0](torch.from_numpy(image)[None])[0, 0].numpy() * 255).round()
    low, high = np.percentile(expected, (2, 98), method="inverted_cdf")
    assert abs(plain[..., 0] - (255 * (expected - low) / (high - low)).clip(0, 255)).max() <= 0.51
    drawn = [LearntTranslation(learnt, cache=tmp_path)(image, np.random.default_rng(n)) for n in range(5)]
    for n, image in enumerate(drawn):
        gamma = np.random.default_rng(n).uniform(0.7, 1.4)
        assert abs(image[..., 0] - (plain[..., 0] / 255) ** gamma * 255).max() <= 0.51


def test_another_translator_has_another_cache(learnt: Path, frames: Path, image: Pixels, tmp_path: Path) -> None:
    config = TranslatorConfig.model_validate({"frames": [frames], "steps": 1, **SMALL})
    train_translator(config, tmp_path / "other.pt", Console(file=io.StringIO()))
    for file in (learnt, tmp_path / "other.pt"):
        LearntTranslation(file, cache=tmp_path / "cache")(image, np.random.default_rng(0))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_another_file_is_rejected(tmp_path: Path) -> None:
    torch.save({"network": {}}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="not a translator"):
        LearntTranslation(tmp_path / "model.pt")
    torch.save({"translator": {}, "network": {}}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match="earlier version; train it again"):
        LearntTranslation(tmp_path / "old.pt")
    with pytest.raises(FileNotFoundError):
        LearntTranslation(tmp_path / "none.pt")


def test_a_translation_keeps_the_detail_of_the_image_and_adds_none() -> None:
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(60, 200, (32, 16, 1)), np.ones((4, 4, 3))).astype(np.uint8)
    texture[:64] = 128  # no visible detail
    network = TranslationNetwork().eval()
    torch.nn.init.normal_(network.last.weight, std=0.05)
    with torch.inference_mode():
        level, made = (part[0, 0].numpy() for part in network.parts(torch.from_numpy(texture)[None]))
    assert abs(made[:24]).max() < 0.01
    assert np.corrcoef(made[80:].ravel(), texture[80:, :, 0].ravel())[0, 1] > 0.5
    assert abs(level - smooth(torch.from_numpy(level)).numpy()).max() < 0.1


def test_smoothing_equals_loops() -> None:
    x = np.random.default_rng(0).random((7, 5))
    smoothed = np.empty_like(x)
    for i, j in np.ndindex(7, 5):
        weights = np.array(
            [[np.exp(-((a - i) ** 2 + (b - j) ** 2) / (2 * SIGMA**2)) for b in range(5)] for a in range(7)]
        )
        smoothed[i, j] = (weights * x).sum() / weights.sum()
    assert smooth(torch.from_numpy(x)).numpy() == pytest.approx(smoothed)
    high, deviation = detail(torch.from_numpy(x))
    assert high.numpy() == pytest.approx(x - smoothed)
    assert deviation.numpy() == pytest.approx(smooth(high.square()).sqrt().numpy(), rel=1e-3)


def test_the_loss_is_lowest_for_real_detail_and_highest_for_a_blur() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 64, 32, 3), dtype=np.uint8))
    true = 0.25 + image[..., :1].permute(0, 3, 1, 2) / 512
    high, _ = detail(true)
    losses = [translation_loss(Parts(smooth(true), gain * high), image, true).item() for gain in (1, 2, 0.5, 0, -1)]
    assert losses[0] == min(losses)
    assert losses[0] == pytest.approx(0, abs=0.02)
    assert losses[3] == max(losses)  # a blur is the worst
    assert losses[0] < losses[4]
    shifted = translation_loss(Parts(smooth(true) + 0.1, high), image, true).item()
    assert shifted == pytest.approx(losses[0] + 0.1)


def test_regions_without_visible_detail_have_little_weight() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 128, 32, 3), dtype=np.uint8)
    image[:, :64] = 10
    true = torch.full((1, 1, 128, 32), 0.5)
    flat = torch.zeros_like(true)
    costs = []
    for half in (slice(0, 32), slice(96, 128)):
        level = true.clone()
        level[:, :, half] = 1
        costs.append(translation_loss(Parts(level, flat), torch.from_numpy(image), true).item())
    base = translation_loss(Parts(true, flat), torch.from_numpy(image), true).item()
    assert costs[1] - base > 5 * (costs[0] - base)


def test_psnr_and_ssim_equal_loops() -> None:
    rng = np.random.default_rng(0)
    true = rng.random((2, 1, 14, 13))
    made = (true + rng.normal(0, 0.2, true.shape)).clip(0, 1)
    tensors = torch.from_numpy(made), torch.from_numpy(true)
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    for i in range(2):
        assert psnr(*tensors)[i] == pytest.approx(10 * np.log10(1 / ((made[i] - true[i]) ** 2).mean()))
        places = []
        for y in range(4):
            for x in range(3):
                a, b = made[i, 0, y : y + 11, x : x + 11], true[i, 0, y : y + 11, x : x + 11]
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                alike = (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
                places.append(alike / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
        assert ssim(*tensors)[i] == pytest.approx(np.mean(places))
    assert ssim(tensors[1], tensors[1]) == pytest.approx([1, 1])


def test_the_commands_train_and_compare(frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "translator.pt"
    done = CliRunner().invoke(
        app, ["translator", "train", str(frames), "--out", str(out), "--steps", "1", "--held-out", "0.3"]
    )
    assert done.exit_code == 0, done.output
    infrared = ["--infrared", str(frames / "infrared")]
    done = CliRunner().invoke(app, ["translator", "compare", str(out), *infrared, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    kept = TranslatorComparison.read(tmp_path / QUALITIES)
    assert kept.learning.steps == 1
    assert all(f"{quality.psnr:.2f}" in done.output for quality in kept.qualities.values())
    image = tmp_path / "people.png"
    shown = CliRunner().invoke(app, ["translator", "show", str(out), *infrared, "--people", "2", "--out", str(image)])
    assert shown.exit_code == 0, shown.output
    assert np.asarray(Image.open(image).convert("L")).std() > 5
    assert all(name in done.output for name in ("channel", "statistics, moments", "statistics, amplitude", "learnt"))
    done = CliRunner().invoke(app, ["translator", "compare", str(frames / "visible" / "00.png")])
    assert done.exit_code == 2


def test_a_comparison_without_frames_is_an_error(frames: Path) -> None:
    config = TranslatorConfig.model_validate({"frames": [frames], **SMALL, "held_out": 0})
    with pytest.raises(ValueError, match="no window in the frames"):
        compare_translators(config, {})
