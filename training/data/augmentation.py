"""What a crop goes through on its way into a training batch, one stream for each use of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np

from models.card import Modality
from training.data.images import Pixels, Shares, cut_sides
from training.data.translator import Translator, require_translator

__all__ = ["IMAGENET_MEAN", "Augmentation", "Geometry", "Role", "Stream"]

IMAGENET_MEAN = (124, 116, 104)
"""The mean colour of the pre-training pictures: nearly zero after the network's own normalisation."""


class Role(IntEnum):
    """Part a picture plays in a loss; the values of ``Batch.roles``."""

    VISIBLE = 0
    INFRARED = 1
    TRANSITION = 2


class Stream(StrEnum):
    """A way through the augmentation."""

    VISIBLE = "visible"
    """v: as it is."""
    EXCHANGED = "exchanged"
    """v': one of R, G, B in all three channels (CAJ)."""
    INFRARED = "infrared"
    """r: a change of gain and offset."""
    TRANSITION = "transition"
    """t: the translated infrared of v, with v's crop and flip."""

    @property
    def role(self) -> Role:
        """Part its pictures play in a loss."""
        return Role.VISIBLE if self is Stream.EXCHANGED else Role[self.name]

    @property
    def stem(self) -> Modality:
        """The stem its pictures go through; t is made to look like infrared and takes the infrared one."""
        return Modality.VISIBLE if self.role is Role.VISIBLE else Modality.INFRARED


@dataclass(frozen=True, slots=True)
class Geometry:
    """A crop out of the padded picture, in pixels from its upper left corner, a flip, and what is then cut off."""

    top: int
    left: int
    flip: bool
    cut: Shares | None = None


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Parameters of every stream. All works on uint8 RGB ``[H, W, 3]`` and leaves its source untouched.

    Order: pad with black, crop back to ``[H, W]``, flip, cut and resize back, colours of the stream, erasing. Erasing
    is last, so an erased place has the mean colour in every stream. Source: CAJ, ICCV 2021. On a grey picture its
    "adaptive grey" comes down to a small change of gain and offset; that change is drawn here directly.
    """

    pad: float = 10 / 288
    """Padding of every side as a share of the height (10 pixels at 288 × 144)."""
    flip: float = 0.5
    """Probability."""
    cut: float = 0.0
    """Largest share of the height or width that is cut from each side before the picture is resized back: views that
    share neither place nor scale, as the crops of two cameras."""
    erasing: float = 0.5
    """Probability."""
    erased_area: tuple[float, float] = (0.02, 0.4)
    """Range of the erased share of the picture."""
    erased_aspect: tuple[float, float] = (0.3, 3.3)
    """Range of height / width of the erased rectangle."""
    fill: tuple[int, int, int] = IMAGENET_MEAN
    """Colour of erased places."""
    grey: float = 0.0
    """Probability that an image of the stream v shows one of R, G, B in all three channels."""
    visible_gain: tuple[float, float] = (1.0, 1.0)
    """Range of the factor about mid-grey in the streams v and v'."""
    visible_offset: tuple[float, float] = (0.0, 0.0)
    """Range of the added levels in the streams v and v'."""
    infrared_gain: tuple[float, float] = (0.98, 1.02)
    """Range of the factor about mid-grey in the stream r."""
    infrared_offset: tuple[float, float] = (-18.0, 18.0)
    """Range of the added grey levels in the stream r."""
    translator: Translator | None = None
    """Makes the infrared image of a translated record for validation."""
    training_translator: Translator | None = None
    """Makes it for training; None: ``translator`` does."""
    transition: Translator | None = None
    """Makes t from v."""

    def draw_geometry(self, shape: tuple[int, ...], rng: np.random.Generator) -> Geometry:
        """Draw a crop, a flip and what is cut off for a picture of shape ``[H, W, 3]``."""
        margin = self._margin(shape)
        top, left = (int(v) for v in rng.integers(0, 2 * margin + 1, 2))
        flip = bool(rng.random() < self.flip)
        if not self.cut:
            return Geometry(top, left, flip)
        over, under, before, behind = (float(share) for share in rng.uniform(0, self.cut, 4))
        return Geometry(top, left, flip, (over, under, before, behind))

    def view(self, image: Pixels, stream: Stream, geometry: Geometry, rng: np.random.Generator) -> Pixels:
        """The stream's picture of ``image``, as a new array of the same shape."""
        if stream is Stream.TRANSITION:  # before it is moved: a learnt translation of the whole picture is cached
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
        """Fill a random rectangle; a shape that does not fit is drawn again, 100 times at most."""
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
    regained: Pixels = levels[image]
    return regained
