"""Training of the translator on windows of aligned frames, and comparison with translators that need no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from rich.console import Console
from torch import Tensor

from models.card import Modality
from training.config_base import ConfigPart
from training.data.images import Pixels
from training.data.person_crops import Windows, places
from training.data.seeding import position
from training.data.translator import Translator, translate_by_name
from training.files import save_state
from training.optimisation import Cosine, learning_rate_factor
from training.run_log import show_progress
from training.translation.channel import stretch
from training.translation.loss import translation_loss
from training.translation.network import FORMAT, TranslationNetwork
from training.translation.quality import psnr, ssim

__all__ = ["Quality", "TranslatorConfig", "compare_translators", "train_translator"]


class TranslatorConfig(ConfigPart):
    """Everything that determines a translator."""

    frames: tuple[Path, ...]
    """Folders with aligned frames, see :func:`training.data.person_crops.places`."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the frames that is held out for the comparison."""
    without: frozenset[str] = frozenset()
    """Frames that are excluded entirely: those of the pairs for the evaluation of a network."""
    per_frame: PositiveInt = 12
    """Windows drawn in a frame, besides its people if the folder has a ``label``."""
    size: tuple[PositiveInt, PositiveInt] = (128, 64)
    """Height and width of a window in pixels."""
    steps: PositiveInt = 300
    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3
    seed: Annotated[int, Field(ge=0)] = 0

    def trains_on(self, frame: str) -> bool:
        """Return whether a frame is used for training."""
        return frame not in self.without and position(frame, self.seed) >= self.held_out

    def evaluates_on(self, frame: str) -> bool:
        """Return whether a frame is used for the comparison."""
        return frame not in self.without and position(frame, self.seed) < self.held_out


@dataclass(frozen=True, slots=True)
class Quality:
    """Similarity of translated windows to their real infrared images, means over windows."""

    psnr: float
    """Peak signal-to-noise ratio in dB."""
    ssim: float
    windows: int


def train_translator(config: TranslatorConfig, out: Path, console: Console | None = None) -> None:
    """Train a translator and write it to the file ``out``, for :func:`network.load_network`.

    Aligned windows are flipped at random, and the visible image gets a random gamma and gain; the infrared image is
    stretched, since the grey levels of a thermal camera depend on its gain. If the frames have labels, half of a batch
    shows people. All random numbers depend on the seed; the state of the global generators is restored.

    Raises:
        FileExistsError: ``out`` exists.
        OSError: frames cannot be read.
        ValueError: the frames are not aligned pairs, or none remains for training.
    """
    if out.exists():
        raise FileExistsError(f"{out} already exists: choose another file, or delete it")
    windows = _read(config, config.trains_on)
    people = [window for window in windows if window.person] or windows
    rng = np.random.default_rng(config.seed)
    with torch.random.fork_rng([]), show_progress(console or Console(stderr=True), "translator") as show:
        torch.manual_seed(config.seed)
        network = TranslationNetwork().train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
        schedule, total = Cosine(warmup_epochs=0), 0.0
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(schedule, step, config.steps, 1)
            drawn = [
                _flipped(pool[int(rng.integers(len(pool)))], flip=rng.random() < 0.5)
                for pool in islice(cycle((windows, people)), config.batch)
            ]
            image = _tensor([_with_random_exposure(window.visible, rng) for window in drawn])
            loss = translation_loss(network.parts(image), image, _grey([window.infrared for window in drawn]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
            show(step + 1, config.steps, f"loss {total / (step + 1):.3f}")
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = config.model_dump(mode="json")
    save_state(out, {"format": FORMAT, "translator": settings, "network": network.state_dict()})


def compare_translators(config: TranslatorConfig, translators: dict[str, Translator]) -> dict[str, Quality]:
    """Measure how similar the images of each translator are to real infrared on the windows of the held-out frames.

    Both images are first stretched to their percentiles, to remove the gain of the camera.

    Raises:
        ValueError: no frame was held out.
    """
    windows = _read(config, config.evaluates_on)
    real = _grey([window.infrared for window in windows])
    qualities = {}
    for name, translator in translators.items():
        images = [translate_by_name(window.visible, window.name, translator) for window in windows]
        translated = _grey([stretch(image[..., 0]) for image in images])
        quality = psnr(translated, real).mean().item(), ssim(translated, real).mean().item()
        qualities[name] = Quality(*quality, windows=len(windows))
    return qualities


@dataclass(frozen=True, slots=True)
class _Window:
    name: str
    person: bool
    visible: Pixels
    infrared: Pixels
    """Grey ``[H, W]``, stretched."""


def _read(config: TranslatorConfig, include: Callable[[str], bool]) -> list[_Window]:
    """Read the aligned windows of the frames that ``include`` accepts."""
    found = []
    for frames in config.frames:
        windows = Windows(per_frame=config.per_frame, people=(frames / "label").is_dir(), jitter=0)
        for place in places(frames, windows, config.seed, include):
            visible, infrared = (place.crop(modality, place.box, config.size) for modality in Modality)
            name = f"{place.frame}-{place.number}"
            found.append(_Window(name, place.person, visible, stretch(infrared[..., 0])))
    if not found:
        raise ValueError(f"no window in the frames of {', '.join(map(str, config.frames))} can be used")
    return found


def _flipped(window: _Window, flip: bool) -> _Window:
    if not flip:
        return window
    return replace(window, visible=window.visible[:, ::-1], infrared=window.infrared[:, ::-1])


def _with_random_exposure(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Change gamma and gain: exposures of other cameras vary more than those of the training frames."""
    levels = (np.arange(256) / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.2)
    table: Pixels = np.rint(levels.clip(0, 1) * 255).astype(np.uint8)
    changed: Pixels = table[image]
    return changed


def _tensor(images: Sequence[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(images))


def _grey(images: Sequence[Pixels]) -> Tensor:
    """Stack uint8 images ``[H, W]``: ``[N, 1, H, W]`` in [0, 1]."""
    return _tensor(images).unsqueeze(1).float() / 255
