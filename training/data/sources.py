"""Configuration of data sets: where a data set lies, how it is read and how it takes part in a run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from models.card import Modality
from training.config_base import ConfigPart
from training.data import llcm, regdb, sysu_mm01
from training.data.folder import CAMERA_PATTERN
from training.data.frame_folds import FRAME_PATTERN, fold_of, frames_of_pairs

__all__ = ["LLCM", "Folder", "LeftOut", "Manifest", "Pairs", "RegDB", "Source", "SysuMM01"]


def _with_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if not groups:
        raise ValueError(f"{pattern!r} has no group")
    return pattern


Pattern = Annotated[str, AfterValidator(_with_group)]


class _Source(ConfigPart):
    root: Path
    """Where it lies; relative to the working directory."""
    name: str
    """How model cards call it."""
    licence: str = "unknown"
    classify: bool = True
    """Whether the identity losses have a class for each of its identities. Windows of frames are too many for that, and
    each too seldom seen: they take part in the losses between pictures alone."""
    per_batch: PositiveInt | None = None
    """How many of a batch's identities are of this source; given for all sources or for none, who then share alike."""
    images: PositiveInt | None = None
    """Pictures of each of these identities in a stream; none: ``batch.images``."""
    split_as: str | None = None
    """Name of the source whose groups are kept out here too: that of windows cut from the same frames as these."""


class _Translatable(_Source):
    former_keys: ClassVar[frozenset[str]] = frozenset({"imitate"})
    translate: Literal["channel"] | None = None
    """Make infrared images, out of the visible ones, for identities that have none."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, fields: Any) -> Any:
        """Accept the former name of ``translate``, which configurations and model cards in use contain."""
        if isinstance(fields, dict) and "imitate" in fields:
            fields = {"translate": fields["imitate"], **{k: v for k, v in fields.items() if k != "imitate"}}
        return fields


class LeftOut(ConfigPart):
    """Frames that take no part, because real pairs cut from them are what the network is judged on."""

    pairs: Path | None = None
    """Folder of the pairs, ``PAIRS/{visible,infrared}/NAME``; none: every frame may be left out, pairs or not."""
    pattern: Pattern = FRAME_PATTERN
    """Its first group in a pair's name is the frame, the same word as a window's group (``group_pattern``)."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which of the ``folds`` that the frames are divided into is left out."""
    folds: PositiveInt = 1
    """1: all frames of the pairs are left out."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"expected a fold below {self.folds}, found {self.fold}")
        if self.pairs is None and self.folds == 1:
            raise ValueError("leave_out without pairs needs at least 2 folds, or no frame would be left")
        return self

    def of(self, frames: Iterable[str]) -> frozenset[str]:
        """Those of ``frames`` that are left out."""
        if self.pairs is None:
            return frozenset(frame for frame in frames if fold_of(frame, self.folds) == self.fold)
        return frames_of_pairs(self.pairs, self.fold, self.folds, self.pattern) & frozenset(frames)


class Folder(_Translatable):
    """Crops in ``ROOT/{visible,infrared}/IDENTITY/*``, or in ``ROOT/IDENTITY/*`` when ``modality`` is given."""

    kind: Literal["folder"]
    modality: Modality | None = None
    camera_pattern: Pattern = CAMERA_PATTERN
    group_pattern: Pattern | None = None
    """Identities for which this regular expression's first group is the same are kept out together or not at all."""
    leave_out: LeftOut | None = None
    """Groups that take no part at all."""
    aligned: bool = False
    """The modalities show an identity at one moment and place, as windows of aligned frames do: it is validated with
    infrared mirrored and re-cropped."""

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        if self.leave_out and self.group_pattern is None:
            raise ValueError("leave_out needs a group_pattern, whose first group is the frame of an identity")
        return self


class Pairs(_Source):
    """Aligned pictures of equal name in ``ROOT/visible`` and ``ROOT/infrared``, each an identity of its own."""

    kind: Literal["pairs"]


class Manifest(_Translatable):
    """A CSV file with the columns path, identity, modality and camera; ``root`` is the file."""

    kind: Literal["manifest"]
    group_pattern: Pattern | None = None


class SysuMM01(_Source):
    """The training part of SYSU-MM01: 395 identities as in the literature, or 296 without those of validation."""

    kind: Literal["sysu_mm01"]
    name: str = sysu_mm01.NAME
    identities: Literal[296, 395] = 395


class RegDB(_Source):
    """The training part of one trial of RegDB."""

    kind: Literal["regdb"]
    name: str = regdb.NAME
    trial: Annotated[int, Field(ge=regdb.TRIALS[0], le=regdb.TRIALS[-1])] = 1


class LLCM(_Source):
    """The training part of LLCM."""

    kind: Literal["llcm"]
    name: str = llcm.NAME


Source = Annotated[Folder | Pairs | Manifest | SysuMM01 | RegDB | LLCM, Field(discriminator="kind")]
