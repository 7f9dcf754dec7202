"""What a crop goes through on its way into a training batch, one stream for each use of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np

from models.card import Modality
from training.data.images import Pixels, Shares, cut_sides
from training.data.translation import ChannelTranslation, Translator

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
    """t: the imitated infrared of v, with v's crop and flip."""

    @property
    def role(self) -> Role:
        """Part its pictures play in a loss."""
        return Role.VISIBLE if self is Stream.EXCHANGED else Role[self.name]

    @property
    def stem(self) -> Modality:
        """The stem its pictures go through; t imitates infrared and takes the infrared one."""
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
    infrared_gain: tuple[float, float] = (0.98, 1.02)
    """Range of the factor about mid-grey in the stream r."""
    infrared_offset: tuple[float, float] = (-18.0, 18.0)
    """Range of the added grey levels in the stream r."""
    translator: Translator = field(default_factory=ChannelTranslation)
    """Makes the infrared picture of an imitated record."""
    transition: Translator = field(default_factory=ChannelTranslation)
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
            image = self.transition(image, rng)
        moved = self._moved(image, geometry)
        if stream is Stream.EXCHANGED:
            moved = np.repeat(moved[..., [rng.integers(3)]], 3, axis=2)
        elif stream is Stream.INFRARED:
            moved = self._regained(moved, rng)
        self._erase(moved, rng)
        return moved

    def _margin(self, shape: tuple[int, ...]) -> int:
        return round(self.pad * shape[0])

    def _moved(self, image: Pixels, geometry: Geometry) -> Pixels:
        height, width = image.shape[:2]
        margin = self._margin(image.shape)
        padded = np.zeros((height + 2 * margin, width + 2 * margin, 3), np.uint8)
        padded[margin : margin + height, margin : margin + width] = image
        cut = padded[geometry.top : geometry.top + height, geometry.left : geometry.left + width]
        moved = cut[:, ::-1] if geometry.flip else cut
        return cut_sides(moved, geometry.cut) if geometry.cut else moved.copy()

    def _regained(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        gain, offset = rng.uniform(*self.infrared_gain), rng.uniform(*self.infrared_offset)
        levels: Pixels = np.rint((np.arange(256) - 127.5) * gain + 127.5 + offset).clip(0, 255).astype(np.uint8)
        regained: Pixels = levels[image]
        return regained

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
