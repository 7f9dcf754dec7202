"""Augmentation of training crops, in one stream for each use of a crop."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np

from models.card import Modality
from training.data.images import Pixels, Shares, cut_sides
from training.data.translator import Translator, require_translator

__all__ = ["IMAGENET_MEAN", "Augmentation", "Geometry", "Role", "Stream"]

IMAGENET_MEAN = (124, 116, 104)
"""Mean colour of the pre-training images: nearly zero after the network's normalisation."""


class Role(IntEnum):
    """Role of an image in a loss; the values of ``Batch.roles``."""

    VISIBLE = 0
    INFRARED = 1
    TRANSITION = 2


class Stream(StrEnum):
    """A variant of the augmentation."""

    VISIBLE = "visible"
    """v: the visible image in its own colours."""
    EXCHANGED = "exchanged"
    """v': one of R, G, B repeated in all three channels (CAJ)."""
    INFRARED = "infrared"
    """r: the infrared image with a random gain and offset."""
    TRANSITION = "transition"
    """t: v translated to infrared, with v's crop and flip."""

    @property
    def role(self) -> Role:
        """Role of its images in a loss."""
        return Role.VISIBLE if self is Stream.EXCHANGED else Role[self.name]

    @property
    def stem(self) -> Modality:
        """Stem of its images; t looks like infrared and uses the infrared stem."""
        return Modality.VISIBLE if self.role is Role.VISIBLE else Modality.INFRARED


@dataclass(frozen=True, slots=True)
class Geometry:
    """Random geometry: crop of the padded image, in pixels from its upper left corner, flip, and shares cut off."""

    top: int
    left: int
    flip: bool
    cut: Shares | None = None


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Augmentation of uint8 RGB ``[H, W, 3]`` in every stream; the source image is not modified.

    Order: pad with black, crop back to ``[H, W]``, flip, cut and resize back, colours of the stream, erasing. Erasing
    is last, so an erased region has the mean colour in every stream. Source: CAJ, ICCV 2021. Its "adaptive grey" only
    changes gain and offset of a grey image; this change is drawn here directly.
    """

    pad: float = 10 / 288
    """Padding of every side as a share of the height (10 pixels at 288 × 144)."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    cut: float = 0.0
    """Maximum share of the height or width that is cut from each side before the image is resized back. Position and
    scale then differ between views as between the crops of two cameras."""
    erasing: float = 0.5
    """Probability of random erasing."""
    erased_area: tuple[float, float] = (0.02, 0.4)
    """Range of the erased area as a share of the image."""
    erased_aspect: tuple[float, float] = (0.3, 3.3)
    """Range of height / width of the erased rectangle."""
    fill: tuple[int, int, int] = IMAGENET_MEAN
    """Colour of erased regions."""
    grey: float = 0.0
    """Probability that an image of stream v gets one of R, G, B repeated in all three channels."""
    visible_gain: tuple[float, float] = (1.0, 1.0)
    """Range of the gain about mid-grey in the streams v and v'."""
    visible_offset: tuple[float, float] = (0.0, 0.0)
    """Range of the offset in grey levels in the streams v and v'."""
    infrared_gain: tuple[float, float] = (0.98, 1.02)
    """Range of the gain about mid-grey in stream r."""
    infrared_offset: tuple[float, float] = (-18.0, 18.0)
    """Range of the offset in grey levels in stream r."""
    translator: Translator | None = None
    """Makes the infrared images of translated records in validation."""
    training_translator: Translator | None = None
    """Makes them in training; None: ``translator``."""
    transition: Translator | None = None
    """Makes the images of stream t."""

    def draw_geometry(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        """Draw a random geometry for an image of shape ``[H, W, 3]``."""
        margin = self._margin(shape)
        top, left = (int(v) for v in rng.integers(0, 2 * margin + 1, 2))
        flip = bool(rng.random() < self.flip)
        if not self.cut:
            return Geometry(top, left, flip)
        above, below, before, after = (float(share) for share in rng.uniform(0, self.cut, 4))
        return Geometry(top, left, flip, (above, below, before, after))

    def view(self, image: Pixels, stream: Stream, geometry: Geometry, rng: np.random.Generator) -> Pixels:
        """Return the augmented ``image`` for a stream, as a new array of the same shape."""
        if stream is Stream.TRANSITION:  # first, because a learnt translation of the whole image is cached
            image = require_translator(self.transition)(image, rng)
        moved = self._crop_and_flip(image, geometry)
        if stream is Stream.EXCHANGED or (stream is Stream.VISIBLE and self.grey and rng.random() < self.grey):
            moved = np.repeat(moved[..., [rng.integers(3)]], 3, axis=2)
        if stream is Stream.INFRARED:
            moved = _change_gain(moved, self.infrared_gain, self.infrared_offset, rng)
        elif stream.role is Role.VISIBLE and (self.visible_gain, self.visible_offset) != ((1, 1), (0, 0)):
            moved = _change_gain(moved, self.visible_gain, self.visible_offset, rng)
        self._erase(moved, rng)
        return moved

    def _margin(self, shape: tuple[int, ...]) -> int:
        return round(self.pad * shape[0])

    def _crop_and_flip(self, image: Pixels, geometry: Geometry) -> Pixels:
        height, width = image.shape[:2]
        margin = self._margin(image.shape)
        padded = np.zeros((height + 2 * margin, width + 2 * margin, 3), np.uint8)
        padded[margin : margin + height, margin : margin + width] = image
        cut = padded[geometry.top : geometry.top + height, geometry.left : geometry.left + width]
        moved = cut[:, ::-1] if geometry.flip else cut
        return cut_sides(moved, geometry.cut) if geometry.cut else moved.copy()

    def _erase(self, image: Pixels, rng: np.random.Generator) -> None:
        """Fill a random rectangle; a shape that does not fit is drawn again, at most 100 times."""
        if rng.random() >= self.erasing:
            return
        height, width = image.shape[:2]
        for _ in range(100):
            area = rng.uniform(*self.erased_area) * height * width
            aspect = rng.uniform(*self.erased_aspect)
            rows, columns = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < rows < height and 0 < columns < width:
                top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
                image[top : top + rows, left : left + columns] = self.fill
                return


def _change_gain(
    image: Pixels, gains: tuple[float, float], offsets: tuple[float, float], rng: np.random.Generator
) -> Pixels:
    gain, offset = rng.uniform(*gains), rng.uniform(*offsets)
    levels: Pixels = np.rint((np.arange(256) - 127.5) * gain + 127.5 + offset).clip(0, 255).astype(np.uint8)
    changed: Pixels = levels[image]
    return changed
