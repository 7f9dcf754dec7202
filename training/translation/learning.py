"""Learn the translator on windows of aligned frames, and compare it with the translations that need no learning."""

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
    """Everything that decides a translator."""

    frames: tuple[Path, ...]
    """Folders with aligned frames, see :func:`training.data.person_crops.places`."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the frames that it is compared on and does not learn from."""
    without: frozenset[str] = frozenset()
    """Frames that take no part in anything: those of the pairs a network is judged on."""
    per_frame: PositiveInt = 12
    """Windows drawn in a frame, beside its people where the folder has a ``label``."""
    size: tuple[PositiveInt, PositiveInt] = (128, 64)
    """Height and width of a window's picture."""
    steps: PositiveInt = 300
    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3
    seed: Annotated[int, Field(ge=0)] = 0

    def trains_on(self, frame: str) -> bool:
        """Whether a frame is one that the translator learns from."""
        return frame not in self.without and position(frame, self.seed) >= self.held_out

    def evaluates_on(self, frame: str) -> bool:
        """Whether a frame is one that the translator is compared on."""
        return frame not in self.without and position(frame, self.seed) < self.held_out


@dataclass(frozen=True, slots=True)
class Quality:
    """Likeness of translated windows to their true infrared pictures, means over windows."""

    psnr: float
    """dB."""
    ssim: float
    windows: int


def train_translator(config: TranslatorConfig, out: Path, console: Console | None = None) -> None:
    """Train a translator and write it to the file ``out``, for :func:`network.load_network`.

    Aligned windows are flipped at random, the visible picture's gamma and gain drawn; the infrared one is stretched,
    since a thermal camera's levels follow from its gain and not from what it sees. Half of a batch shows people where
    frames come with labels. Everything random follows from the seed; the caller's generators are left as they were.

    Raises:
        FileExistsError: ``out`` is there already.
        OSError: frames cannot be read.
        ValueError: the frames do not fit together, or none is left to learn from.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: choose another file, or delete it")
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
            image = _tensor([_retoned(window.visible, rng) for window in drawn])
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
    """How near each translator comes to the true infrared picture on the windows of the held-out frames.

    Both are stretched to their own percentiles first: what counts is what a picture shows, not a camera's gain.

    Raises:
        ValueError: no frame was held out.
    """
    windows = _read(config, config.evaluates_on)
    true = _grey([window.infrared for window in windows])
    found = {}
    for name, translator in translators.items():
        images = [translate_by_name(window.visible, window.name, translator) for window in windows]
        made = _grey([stretch(image[..., 0]) for image in images])
        quality = psnr(made, true).mean().item(), ssim(made, true).mean().item()
        found[name] = Quality(*quality, windows=len(windows))
    return found


@dataclass(frozen=True, slots=True)
class _Window:
    name: str
    person: bool
    visible: Pixels
    infrared: Pixels
    """Grey ``[H, W]``, stretched."""


def _read(config: TranslatorConfig, wanted: Callable[[str], bool]) -> list[_Window]:
    """The aligned windows of the frames wanted."""
    found = []
    for frames in config.frames:
        windows = Windows(per_frame=config.per_frame, people=(frames / "label").is_dir(), jitter=0)
        for place in places(frames, windows, config.seed, wanted):
            visible, infrared = (place.crop(modality, place.box, config.size) for modality in Modality)
            name = f"{place.frame}-{place.number}"
            found.append(_Window(name, place.person, visible, stretch(infrared[..., 0])))
    if not found:
        raise ValueError(f"no window in the frames of {', '.join(map(str, config.frames))} that may be used")
    return found


def _flipped(window: _Window, flip: bool) -> _Window:
    if not flip:
        return window
    return replace(window, visible=window.visible[:, ::-1], infrared=window.infrared[:, ::-1])


def _retoned(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Another exposure: cameras differ more than the frames at hand show."""
    levels = (np.arange(256) / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.2)
    table: Pixels = np.rint(levels.clip(0, 1) * 255).astype(np.uint8)
    retoned: Pixels = table[image]
    return retoned


def _tensor(images: Sequence[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(images))


def _grey(images: Sequence[Pixels]) -> Tensor:
    """uint8 ``[H, W]`` each → ``[N, 1, H, W]`` in [0, 1]."""
    return _tensor(images).unsqueeze(1).float() / 255
