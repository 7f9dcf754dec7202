"""Person-shaped windows from aligned frame pairs: real cross-modality training data without identity labels."""

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
"""Value of a person's pixels in ``label/`` (MSRS)."""

_ATTEMPTS = 40  # draws per window before a frame is considered too flat
_FORMS = {Modality.VISIBLE: "RGB", Modality.INFRARED: "L"}


@dataclass(frozen=True, slots=True)
class Windows:
    """Parameters of the windows, which are about twice as high as wide."""

    per_frame: int = 3
    """Windows drawn in a frame; 0: only people. Each becomes an identity."""
    people: bool = False
    """Also use every person that ``label/NAME.png`` marks, before the drawn windows."""
    person_height: int = 24
    """Minimum height of a person's box in pixels."""
    crops: int = 3
    """Crops of a place in each modality, each shifted and scaled separately, so that none are aligned."""
    height: tuple[float, float] = (0.12, 0.8)
    """Range of a window's height as a share of the frame height, uniform in its logarithm."""
    aspect: float = 0.3
    """Maximum relative change of a window's width."""
    margin: float = 0.0
    """Margin around a person's box: a share of its height above and below, and twice that share of its width at each
    side, since labels end at the outline."""
    jitter: float = 0.08
    """Maximum shift and change of size of a crop as a share of the window."""
    contrast: float = 12.0
    """Minimum standard deviation of the grey levels in both modalities, to exclude flat sky and road."""
    overlap: float = 0.25
    """Maximum intersection over union of two windows of a frame, so that they show different places."""
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
    """Whether its box is that of a person."""
    images: dict[Modality, Image.Image]
    """The whole frame, RGB and grey."""
    rng: np.random.Generator
    """Generator for further random choices in this frame."""

    def crop(self, modality: Modality, box: Box, size: tuple[int, int]) -> Pixels:
        """Return RGB ``[H, W, 3]`` of a box, clipped at the frame's edges, resized to ``size`` (height, width)."""
        image = self.images[modality].convert("RGB")
        left, top, right, bottom = box
        inside = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
        return np.array(image.resize(size[::-1], Image.Resampling.BICUBIC, inside))


def places(
    frames: Path, windows: Windows, seed: int = 0, include: Callable[[str], bool] = lambda _name: True
) -> Iterator[Place]:
    """Yield the places of the frames whose names ``include`` accepts.

    ``frames`` contains aligned images with equal names in ``visible`` and ``infrared``. Random choices depend only on
    ``seed`` and the frame's name. A frame that is too flat or too small for ``per_frame`` places has fewer.

    Raises:
        FileNotFoundError: a folder is missing, or with ``people`` a label.
        ValueError: the names in the folders differ, or the images of a pair differ in size.
    """
    pairs: dict[str, dict[Modality, Path]] = {}
    for record in read_pairs(frames):
        pairs.setdefault(record.identity, {})[record.modality] = record.path
    for name in sorted(filter(include, pairs)):
        images = {modality: Image.open(path).convert(_FORMS[modality]) for modality, path in pairs[name].items()}
        if len({image.size for image in images.values()}) > 1:
            raise ValueError(f"{name}: expected images of one size, found {[image.size for image in images.values()]}")
        rng = generator_of(name, seed)
        people = _people(frames / "label" / f"{name}.png", windows) if windows.people else []
        for number, box in enumerate([*people, *_drawn(images, people, windows, rng)]):
            yield Place(name, number, box, number < len(people), images, rng)


def cut_windows(
    frames: Path,
    out: Path,
    windows: Windows | None = None,
    seed: int = 0,
    include: Callable[[str], bool] = lambda _name: True,
) -> int:
    """Write ``OUT/{visible,infrared}/FRAME-PLACE/FRAME-PLACE_cC_N.png`` and return the number of places.

    C, the camera, is 1 for visible and 2 for infrared. The other arguments are those of :func:`places`.

    Raises:
        FileExistsError: ``out`` exists.
        ValueError: as for :func:`places`, or every frame is too flat.
        FileNotFoundError: as for :func:`places`.
    """
    if out.exists():
        raise FileExistsError(f"{out} already exists: choose another folder, or delete it")
    windows = windows or Windows()
    count = 0
    for place in places(frames, windows, seed, include):
        _write_crops(place, out, windows)
        count += 1
    if not count:
        raise ValueError(f"{frames}: no window in its frames has a contrast of {windows.contrast} grey levels")
    return count


def _people(label: Path, windows: Windows) -> list[Box]:
    """Return the boxes of the connected areas of people in a label that are high enough."""
    if not label.is_file():
        raise FileNotFoundError(f"{label}: missing; it marks the people of the frame")
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
    images: dict[Modality, Image.Image], taken: list[Box], windows: Windows, rng: np.random.Generator
) -> list[Box]:
    boxes: list[Box] = []
    for _ in range(_ATTEMPTS * windows.per_frame):
        if len(boxes) == windows.per_frame:
            break
        box = _draw_box(images[Modality.VISIBLE].size, windows, rng)
        flat = any(np.asarray(p.crop(box).convert("L")).std() < windows.contrast for p in images.values())
        if not flat and all(_overlap(box, other) <= windows.overlap for other in (*taken, *boxes)):
            boxes.append(box)
    return boxes


def _overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return common / (sum(areas) - common)


def _draw_box(size: tuple[int, int], windows: Windows, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a window whose jittered crops all fit into the frame (width, height)."""
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
