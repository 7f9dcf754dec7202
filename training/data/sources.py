"""Configuration of data sets: their location, format and use in a run."""

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
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    if not groups:
        raise ValueError(f"{pattern!r} has no group: expected a regular expression with one")
    return pattern


Pattern = Annotated[str, AfterValidator(_with_group)]


class _Source(ConfigPart):
    root: Path
    """Its path, relative to the working directory."""
    name: str
    """Its name in model cards."""
    licence: str = "unknown"
    classify: bool = True
    """Whether the identity losses have a class for each of its identities. Windows of frames are too many, with too few
    crops each: they are only used by the losses between images."""
    per_batch: PositiveInt | None = None
    """Number of its identities in a batch; set it for all sources, or for none to draw from all equally."""
    images: PositiveInt | None = None
    """Images of each of its identities in a stream; none: ``batch.images``."""
    split_as: str | None = None
    """Name of another source with windows of the same frames, whose held-out groups are held out here as well."""


class _Translatable(_Source):
    former_keys: ClassVar[frozenset[str]] = frozenset({"imitate"})
    translate: Literal["channel"] | None = None
    """Translate visible images to infrared for identities without infrared images."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, fields: Any) -> Any:
        """Accept the former name of ``translate`` in existing configurations and model cards."""
        if isinstance(fields, dict) and "imitate" in fields:
            fields = {"translate": fields["imitate"], **{k: v for k, v in fields.items() if k != "imitate"}}
        return fields


class LeftOut(ConfigPart):
    """Frames to exclude from training, because the network is evaluated on real pairs that were cut from them."""

    pairs: Path | None = None
    """Folder of the pairs, ``PAIRS/{visible,infrared}/NAME``; none: the folds cover all frames."""
    pattern: Pattern = FRAME_PATTERN
    """Its first group in the name of a pair is the frame, equal to the group of a window (``group_pattern``)."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Index of the fold that is left out."""
    folds: PositiveInt = 1
    """Number of folds of the frames; 1: all frames of the pairs are left out."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"expected a fold below {self.folds}, found {self.fold}")
        if self.pairs is None and self.folds == 1:
            raise ValueError("leave_out without pairs needs at least 2 folds, or no frame would remain")
        return self

    def of(self, frames: Iterable[str]) -> frozenset[str]:
        """Return the ``frames`` that are left out."""
        if self.pairs is None:
            return frozenset(frame for frame in frames if fold_of(frame, self.folds) == self.fold)
        return frames_of_pairs(self.pairs, self.fold, self.folds, self.pattern) & frozenset(frames)


class Folder(_Translatable):
    """Crops in ``ROOT/{visible,infrared}/IDENTITY/*``, or in ``ROOT/IDENTITY/*`` if ``modality`` is given."""

    kind: Literal["folder"]
    modality: Modality | None = None
    camera_pattern: Pattern = CAMERA_PATTERN
    group_pattern: Pattern | None = None
    """Identities with the same first group of this regular expression are held out together."""
    leave_out: LeftOut | None = None
    """Groups that are neither trained nor validated on."""
    aligned: bool = False
    """Whether both modalities are aligned, as windows of aligned frames are; validation then mirrors and re-crops
    infrared images."""

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        if self.leave_out and self.group_pattern is None:
            raise ValueError("leave_out needs a group_pattern, whose first group is the frame of an identity")
        return self


class Pairs(_Source):
    """Aligned images with equal names in ``ROOT/visible`` and ``ROOT/infrared``, each name a separate identity."""

    kind: Literal["pairs"]


class Manifest(_Translatable):
    """A CSV file, ``root``, with the columns path, identity, modality and camera."""

    kind: Literal["manifest"]
    group_pattern: Pattern | None = None


class SysuMM01(_Source):
    """The training split of SYSU-MM01: 395 identities as in the literature, or 296 without the validation split."""

    kind: Literal["sysu_mm01"]
    name: str = sysu_mm01.NAME
    identities: Literal[296, 395] = 395


class RegDB(_Source):
    """The training split of one trial of RegDB."""

    kind: Literal["regdb"]
    name: str = regdb.NAME
    trial: Annotated[int, Field(ge=regdb.TRIALS[0], le=regdb.TRIALS[-1])] = 1


class LLCM(_Source):
    """The training split of LLCM."""

    kind: Literal["llcm"]
    name: str = llcm.NAME


Source = Annotated[Folder | Pairs | Manifest | SysuMM01 | RegDB | LLCM, Field(discriminator="kind")]
