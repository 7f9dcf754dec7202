"""Person-shaped windows out of aligned frame pairs: real cross-modal contrast where no identities exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from models.card import Modality
from training.data.folder import read_pairs
from training.data.images import Pixels
from training.data.seeding import generator_of

__all__ = ["PERSON", "Box", "Place", "Windows", "cut_windows", "places"]

Box = tuple[float, float, float, float]  # left, top, right, bottom

PERSON = 2
"""What a pixel of ``label/`` says of a person (MSRS)."""

_ATTEMPTS = 40  # per window, before a frame counts as too flat
_FORMS = {Modality.VISIBLE: "RGB", Modality.INFRARED: "L"}


@dataclass(frozen=True, slots=True)
class Windows:
    """How windows are drawn; every one is about twice as high as wide."""

    per_frame: int = 3
    """Places drawn in a frame, none for people alone; each becomes an identity."""
    people: bool = False
    """Take every person that ``label/NAME.png`` marks as a place too, before those that are drawn."""
    person_height: int = 24
    """Least height of a person's box in pixels."""
    crops: int = 3
    """Crops of a place in each modality, each shifted and scaled on its own, so that no two are aligned."""
    height: tuple[float, float] = (0.12, 0.8)
    """Range of a window's height as a share of the frame's; small ones are drawn as often as large ones."""
    aspect: float = 0.3
    """Largest relative change of a window's width."""
    margin: float = 0.0
    """What is added to the box of a person, above and below as a share of its height and at each side as twice that
    share of its width: a label ends at the outline."""
    jitter: float = 0.08
    """Largest shift, and largest change of size, of a crop as a share of the window."""
    contrast: float = 12.0
    """Least standard deviation of the grey levels, in both modalities: flat sky and road teach nothing."""
    overlap: float = 0.25
    """Largest intersection over union of two windows of a frame: more, and they would show one place."""
    size: tuple[int, int] = (192, 96)
    """Height and width of the crops written, in pixels."""

    def __post_init__(self) -> None:
        if self.per_frame < (0 if self.people else 1):
            raise ValueError(f"per_frame {self.per_frame}: expected at least 1, or 0 with people")


class Place(NamedTuple):
    """A window of a frame, the same in both modalities."""

    frame: str
    number: int
    box: Box
    person: bool
    """Its box is that of a person."""
    pictures: dict[Modality, Image.Image]
    """The whole frame, RGB and grey."""
    rng: np.random.Generator
    """For what else is drawn in this frame."""

    def crop(self, modality: Modality, box: Box, size: tuple[int, int]) -> Pixels:
        """RGB ``[H, W, 3]`` of a box, cut off at the frame's edges, at ``size`` (height, width)."""
        picture = self.pictures[modality].convert("RGB")
        left, top, right, bottom = box
        inside = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
        return np.array(picture.resize(size[::-1], Image.Resampling.BICUBIC, inside))


def places(
    frames: Path, windows: Windows, seed: int = 0, wanted: Callable[[str], bool] = lambda _name: True
) -> Iterator[Place]:
    """The places of the frames whose names are ``wanted``.

    ``frames`` holds aligned pictures of equal name in ``visible`` and ``infrared``. What is drawn follows from
    ``seed`` and a frame's name alone. A frame too flat or too small for ``per_frame`` places gives fewer.

    Raises:
        FileNotFoundError: a folder, or a label where people are asked for, is missing.
        ValueError: the folders hold different names, or a pair has two sizes.
    """
    pairs: dict[str, dict[Modality, Path]] = {}
    for record in read_pairs(frames):
        pairs.setdefault(record.identity, {})[record.modality] = record.path
    for name in sorted(filter(wanted, pairs)):
        pictures = {modality: Image.open(path).convert(_FORMS[modality]) for modality, path in pairs[name].items()}
        if len({picture.size for picture in pictures.values()}) > 1:
            raise ValueError(f"{name}: expected one size, found {[picture.size for picture in pictures.values()]}")
        rng = generator_of(name, seed)
        people = _people(frames / "label" / f"{name}.png", windows) if windows.people else []
        for number, box in enumerate([*people, *_drawn(pictures, people, windows, rng)]):
            yield Place(name, number, box, number < len(people), pictures, rng)


def cut_windows(
    frames: Path,
    out: Path,
    windows: Windows | None = None,
    seed: int = 0,
    wanted: Callable[[str], bool] = lambda _name: True,
) -> int:
    """Write ``OUT/{visible,infrared}/FRAME-PLACE/FRAME-PLACE_cC_N.png``, return the number of places.

    C, the camera, is 1 for visible and 2 for infrared. The arguments are those of :func:`places`.

    Raises:
        FileExistsError: ``out`` is there already.
        ValueError: as for :func:`places`, or every frame is too flat.
        FileNotFoundError: as for :func:`places`.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: choose another folder, or delete it")
    windows = windows or Windows()
    count = 0
    for place in places(frames, windows, seed, wanted):
        _write_crops(place, out, windows)
        count += 1
    if not count:
        raise ValueError(f"{frames}: no window of its frames has a contrast of {windows.contrast} grey levels")
    return count


def _people(label: Path, windows: Windows) -> list[Box]:
    """Boxes of the connected areas that a label marks as person and that are high enough."""
    if not label.is_file():
        raise FileNotFoundError(f"{label}: missing; it tells where people are")
    areas, _ = ndimage.label(np.asarray(Image.open(label)) == PERSON)
    boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in ndimage.find_objects(areas)]
    sizes = [(right - left, bottom - top) for left, top, right, bottom in boxes]
    across, down = 2 * windows.margin, windows.margin
    return [
        (left - across * width, top - down * height, right + across * width, bottom + down * height)
        for (left, top, right, bottom), (width, height) in zip(boxes, sizes, strict=True)
        if height >= windows.person_height and 8 * width >= height
    ]


def _drawn(
    pictures: dict[Modality, Image.Image], taken: list[Box], windows: Windows, rng: np.random.Generator
) -> list[Box]:
    boxes: list[Box] = []
    for _ in range(_ATTEMPTS * windows.per_frame):
        if len(boxes) == windows.per_frame:
            break
        box = _draw_box(pictures[Modality.VISIBLE].size, windows, rng)
        flat = any(np.asarray(p.crop(box).convert("L")).std() < windows.contrast for p in pictures.values())
        if not flat and all(_overlap(box, other) <= windows.overlap for other in (*taken, *boxes)):
            boxes.append(box)
    return boxes


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return common / (sum(areas) - common)


def _draw_box(size: tuple[int, int], windows: Windows, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A window whose jittered crops all lie inside the frame (width, height)."""
    width, height = size
    margin = 1 + 2 * windows.jitter
    shape = rng.uniform(1 - windows.aspect, 1 + windows.aspect) / 2
    tall = float(np.exp(rng.uniform(*np.log(windows.height)))) * height
    tall = min(tall, height / margin, width / (shape * margin))
    wide = shape * tall
    left = rng.uniform(windows.jitter * wide, width - (1 + windows.jitter) * wide)
    top = rng.uniform(windows.jitter * tall, height - (1 + windows.jitter) * tall)
    return round(left), round(top), round(left + wide), round(top + tall)


def _write_crops(place: Place, out: Path, windows: Windows) -> None:
    name = f"{place.frame}-{place.number}"
    left, top, right, bottom = place.box
    for modality in Modality:
        folder = out / modality / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(windows.crops):
            shift = place.rng.uniform(-windows.jitter, windows.jitter, 4) * ([right - left, bottom - top] * 2)
            moved = [float(edge) for edge in np.array(place.box) + shift]
            crop = place.crop(modality, (moved[0], moved[1], moved[2], moved[3]), windows.size)
            Image.fromarray(crop).save(folder / f"{name}_c{1 + modality.index}_{number}.png")
