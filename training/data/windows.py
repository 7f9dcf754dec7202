"""Person-shaped windows out of aligned frame pairs: real cross-modal contrast where no identities exist."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from models.card import Modality
from training.data.folder import read_pairs
from training.data.translation import generator_of

__all__ = ["Windows", "cut_windows"]

Box = tuple[int, int, int, int]  # left, top, right, bottom

_ATTEMPTS = 40  # per window, before a frame counts as too flat


@dataclass(frozen=True, slots=True)
class Windows:
    """How windows are drawn; every one is twice as high as wide."""

    per_frame: int = 3
    """Places in a frame; each becomes an identity."""
    crops: int = 3
    """Crops of a place in each modality, each shifted and scaled on its own, so that no two are aligned."""
    height: tuple[float, float] = (0.25, 0.8)
    """Range of a window's height as a share of the frame's."""
    jitter: float = 0.08
    """Largest shift, and largest change of size, of a crop as a share of the window."""
    contrast: float = 20.0
    """Least standard deviation of the grey levels, in both modalities: flat sky and road teach nothing."""
    overlap: float = 0.25
    """Largest intersection over union of two windows of a frame: more, and they would show one place."""
    size: tuple[int, int] = (192, 96)
    """Height and width of the crops written, in pixels."""


def cut_windows(frames: Path, out: Path, windows: Windows | None = None, seed: int = 0) -> int:
    """Write ``OUT/{visible,infrared}/FRAME-PLACE/FRAME-PLACE_cC_N.png``, return the number of places.

    C, the camera, is 1 for visible and 2 for infrared. ``frames`` holds aligned pictures of equal name in
    ``visible`` and ``infrared``. What is drawn follows from ``seed`` and a frame's name alone. A frame too flat or
    too small for ``per_frame`` places gives fewer.

    Raises:
        FileNotFoundError: a folder is missing.
        FileExistsError: ``out`` is there already.
        ValueError: the folders hold different names, a pair has two sizes, or every frame is too flat.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: choose another folder, or delete it")
    windows = windows or Windows()
    pairs: dict[str, dict[Modality, Path]] = {}
    for record in read_pairs(frames):
        pairs.setdefault(record.identity, {})[record.modality] = record.path
    places = sum(_cut_frame(name, files, out, windows, seed) for name, files in sorted(pairs.items()))
    if not places:
        raise ValueError(f"{frames}: no window of {len(pairs)} frames has a contrast of {windows.contrast} grey levels")
    return places


def _cut_frame(name: str, files: dict[Modality, Path], out: Path, windows: Windows, seed: int) -> int:
    frame = {m: Image.open(path).convert("RGB" if m is Modality.VISIBLE else "L") for m, path in files.items()}
    if len({picture.size for picture in frame.values()}) > 1:
        raise ValueError(f"{name}: expected one size, found {[picture.size for picture in frame.values()]}")
    rng = generator_of(name, seed)
    places: list[Box] = []
    for _ in range(_ATTEMPTS * windows.per_frame):
        if len(places) == windows.per_frame:
            break
        box = _draw_box(frame[Modality.VISIBLE].size, windows, rng)
        flat = any(np.asarray(p.crop(box).convert("L")).std() < windows.contrast for p in frame.values())
        if not flat and all(_overlap(box, other) <= windows.overlap for other in places):
            _write_crops(f"{name}-{len(places)}", frame, box, out, windows, rng)
            places.append(box)
    return len(places)


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return common / (sum(areas) - common)


def _draw_box(size: tuple[int, int], windows: Windows, rng: np.random.Generator) -> Box:
    """A window whose jittered crops all lie inside the frame (width, height)."""
    width, height = size
    margin = 1 + 2 * windows.jitter
    tall = min(rng.uniform(*windows.height) * height, height / margin, 2 * width / margin)
    left = rng.uniform(windows.jitter * tall / 2, width - (1 + windows.jitter) * tall / 2)
    top = rng.uniform(windows.jitter * tall, height - (1 + windows.jitter) * tall)
    return round(left), round(top), round(left + tall / 2), round(top + tall)


def _write_crops(
    place: str,
    frame: dict[Modality, Image.Image],
    box: Box,
    out: Path,
    windows: Windows,
    rng: np.random.Generator,
) -> None:
    width, height = box[2] - box[0], box[3] - box[1]
    for modality, picture in frame.items():
        folder = out / modality / place
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(windows.crops):
            moved = np.array(box) + rng.uniform(-windows.jitter, windows.jitter, 4) * (width, height, width, height)
            crop = picture.convert("RGB").crop(tuple(moved.round().astype(int).tolist()))
            resized = crop.resize(windows.size[::-1], Image.Resampling.BICUBIC)
            resized.save(folder / f"{place}_c{1 + modality.index}_{number}.png")
