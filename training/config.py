"""The training configuration: one frozen object, read from YAML, with unknown keys as errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from models.card import Modality
from training.data import llcm, regdb, sysu_mm01
from training.data.augmentation import IMAGENET_MEAN, Augmentation, Stream
from training.data.folder import CAMERA_PATTERN
from training.data.folds import FRAME_PATTERN, frames_of_pairs
from training.data.statistics import StatisticsTranslation, infrared_pictures
from training.data.translation import ChannelTranslation, Translator
from training.methods import read_options
from training.translator.translation import LearntTranslation

__all__ = [
    "CONFIGS",
    "AdamW",
    "Augmentation",
    "BatchShape",
    "Cosine",
    "InputSize",
    "Sgd",
    "Source",
    "Steps",
    "TrainingConfig",
    "Validation",
    "find_config",
    "read_config",
]

CONFIGS = Path(__file__).parent / "configs"
"""Configurations that come with the package, ``METHOD/NAME.yaml``."""

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Level = Annotated[int, Field(ge=0, le=255)]


def _with_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if not groups:
        raise ValueError(f"{pattern!r} has no group")
    return pattern


Pattern = Annotated[str, AfterValidator(_with_group)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _kind(default: str) -> Discriminator:
    """Choose the class by ``kind``, which may be left out for the default one."""

    def of(part: object) -> str | None:
        return part.get("kind", default) if isinstance(part, dict) else getattr(part, "kind", None)

    return Discriminator(of)


class _Source(_Part):
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


class LeftOut(_Part):
    """Frames that take no part, because real pairs cut from them are what the network is judged on."""

    pairs: Path
    """Folder of the pairs, ``PAIRS/{visible,infrared}/NAME``."""
    pattern: Pattern = FRAME_PATTERN
    """Its first group in a pair's name is the frame, the same word as a window's group (``group_pattern``)."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which of the ``folds`` that the pairs' frames are divided into is left out."""
    folds: PositiveInt = 1
    """1: all frames of the pairs are left out."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"expected a fold below {self.folds}, found {self.fold}")
        return self

    def frames(self) -> frozenset[str]:
        """The frames left out."""
        return frames_of_pairs(self.pairs, self.fold, self.folds, self.pattern)


class Folder(_Source):
    """Crops in ``ROOT/{visible,infrared}/IDENTITY/*``, or in ``ROOT/IDENTITY/*`` when ``modality`` is given."""

    kind: Literal["folder"]
    modality: Modality | None = None
    camera_pattern: Pattern = CAMERA_PATTERN
    imitate: Literal["channel"] | None = None
    """Make infrared pictures for identities that have none, out of their visible ones."""
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


class Manifest(_Source):
    """A CSV file with the columns path, identity, modality and camera; ``root`` is the file."""

    kind: Literal["manifest"]
    imitate: Literal["channel"] | None = None
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


class InputSize(_Part):
    """Size of the network's input and Pillow's filter that makes it."""

    height: PositiveInt = 288
    width: PositiveInt = 144
    resize: Literal["bilinear", "bicubic", "lanczos"] = "lanczos"


class BatchShape(_Part):
    """One step sees ``identities`` x ``images`` pictures in each stream."""

    identities: PositiveInt = 8
    images: PositiveInt = 4
    streams: tuple[Stream, ...] = (Stream.VISIBLE, Stream.EXCHANGED, Stream.INFRARED)
    neighbours: PositiveInt = 1
    """Identities of a group (``group_pattern``) drawn together: windows of one frame are hard to tell apart."""
    per_epoch: PositiveInt | None = None
    """Batches of an epoch over all processes; none: as many as show the modality with more pictures about once."""
    skip_single_modality: bool = False
    """Leave identities seen in one modality only out, instead of refusing them."""


class ChannelTranslator(_Part):
    """One colour channel or luma with a drawn gamma: no training needed."""

    kind: Literal["channel"] = "channel"

    def build(self) -> Translator:
        """The translator itself."""
        return ChannelTranslation()


class StatisticsTranslator(_Part):
    """As channel, then the statistics of real infrared pictures: no training needed either."""

    kind: Literal["statistics"]
    infrared: Path
    """Folder with real infrared pictures of the training part, anywhere below it."""
    match: Literal["moments", "amplitude"] = "moments"

    def build(self) -> Translator:
        """The translator itself."""
        return StatisticsTranslation(infrared_pictures(self.infrared), self.match)


class LearntTranslator(_Part):
    """A network that learnt it on aligned frames, frozen."""

    kind: Literal["learnt"]
    path: Path
    """What ``vireid translator train`` wrote."""

    def build(self) -> Translator:
        """The translator itself."""
        return LearntTranslation(self.path)


Translation = Annotated[
    Annotated[ChannelTranslator, Tag("channel")]
    | Annotated[StatisticsTranslator, Tag("statistics")]
    | Annotated[LearntTranslator, Tag("learnt")],
    _kind("channel"),
]
"""How infrared pictures are made of visible ones."""


class Augmenting(_Part):
    """What is drawn for a training picture; :class:`training.data.augmentation.Augmentation` says how."""

    pad: NotNegative = 10 / 288
    """Padding of every side as a share of the height."""
    flip: Share = 0.5
    cut: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    erasing: Share = 0.5
    erased_area: tuple[Share, Share] = (0.02, 0.4)
    fill: tuple[Level, Level, Level] = IMAGENET_MEAN
    infrared_gain: tuple[float, float] = (0.98, 1.02)
    infrared_offset: tuple[float, float] = (-18.0, 18.0)
    translator: Translation = ChannelTranslator()
    """Makes the infrared pictures of identities that have none (``imitate``), in training and validation."""
    transition: Translation | None = None
    """Makes the transition stream t; as ``translator`` where none is given."""

    def build(self) -> Augmentation:
        """The augmentation with these parameters."""
        parameters = {name: getattr(self, name) for name in type(self).model_fields}
        translator = self.translator.build()
        transition = self.transition.build() if self.transition else translator
        return Augmentation(**parameters | {"translator": translator, "transition": transition})


class Sgd(_Part):
    """Nesterov SGD, the ResNet-50 default of the field."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    pretrained_factor: PositiveFloat = 0.1
    """Learning rate of stems and stages relative to that of the new modules."""
    weight_decay: NotNegative = 5e-4
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9


class AdamW(_Part):
    """AdamW, for the small backbones."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 3.5e-4
    pretrained_factor: PositiveFloat = 0.5
    weight_decay: NotNegative = 1e-4


class Steps(_Part):
    """Rise over the first epochs, then fall by ``gamma`` at each milestone; constant within an epoch."""

    kind: Literal["steps"] = "steps"
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    milestones: tuple[PositiveInt, ...] = (20, 50)
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, found {self.milestones}")
        return self


class Cosine(_Part):
    """Rise linearly over the first epochs, then fall as half a cosine to ``floor`` of the peak; set every step."""

    kind: Literal["cosine"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 3
    floor: Share = 0.01


class Validation(_Part):
    """Identities kept out of training to judge it by; never those of a test set."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training identities that is kept out; 0 for none."""
    every: PositiveInt = 5
    """Epochs between two validations; the last epoch is always validated."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides which identities; the same over runs that are to be compared."""
    select: Literal["last", "best"] = "last"
    """Whose weights are released: those of the last epoch, or those with the best validation mAP."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.select == "best" and self.share == 0:
            raise ValueError("select: best needs validation identities: set share above 0")
        return self


class TrainingConfig(_Part):
    """Everything that decides the outcome of a run."""

    method: str = "baseline"
    options: Annotated[dict[str, Any], Field(validate_default=True)] = {}
    """Switches of the method, ``training.methods.METHOD``; those not given are filled in."""
    backbone: str = "resnet50"
    weights: str = "none"
    """``imagenet`` (those packaged for the backbone), ``none``, or the path of a state dict."""
    start: Path | None = None
    """``model.pt`` of a run of the same backbone on the same data to start from, where both networks have a part."""
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    input: InputSize = InputSize()
    batch: BatchShape = BatchShape()
    augmentation: Augmenting = Augmenting()
    optimiser: Annotated[Annotated[Sgd, Tag("sgd")] | Annotated[AdamW, Tag("adamw")], _kind("sgd")] = Sgd()
    schedule: Annotated[Annotated[Steps, Tag("steps")] | Annotated[Cosine, Tag("cosine")], _kind("steps")] = Steps()
    epochs: PositiveInt = 81
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the network's forward and backward pass; losses are always computed in float32."""
    accumulation: PositiveInt = 1
    """Batches whose gradients are averaged into one step of the optimiser."""
    clip: PositiveFloat | None = None
    """Largest norm of the whole gradient."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of the averaged weights, which are then the ones validated and released."""
    validation: Validation = Validation()
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 1
    """Processes that prepare batches, per rank; changes no result."""
    checkpoint_minutes: PositiveFloat = 10.0
    """Time between two checkpoints inside an epoch; the end of an epoch always writes one. Changes no result."""

    @field_validator("options")
    @classmethod
    def _of_the_method(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" not in info.data:  # not valid itself, which is reported
            return options
        return read_options(info.data["method"], options).model_dump(mode="json")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(f"{self.schedule.warmup_epochs} warm-up epochs leave none of {self.epochs}")
        shares = [source.per_batch for source in self.data if source.per_batch]
        if shares and (len(shares) < len(self.data) or sum(shares) != self.batch.identities):
            raise ValueError(
                f"per_batch: expected one for each of {len(self.data)} data sets, {self.batch.identities} "
                f"(batch.identities) in all, found {shares}"
            )
        names = [source.name for source in self.data]
        for source in self.data:
            if source.images and not source.per_batch:
                raise ValueError(f"{source.name}: images needs per_batch, its share of a batch")
            if source.split_as is not None and source.split_as not in names:
                raise ValueError(f"{source.name}: split_as {source.split_as!r} is none of the data sets {names}")
        return self


def find_config(name: str) -> Path:
    """The file of that name, or else ``METHOD/NAME`` of those in the package if there is one."""
    given, packaged = Path(name), CONFIGS / f"{name}.yaml"
    return packaged if packaged.is_file() and not given.is_file() else given


def read_config(path: Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a YAML file and lay ``overrides`` over it.

    With ``extends: METHOD/NAME`` (or a file) it says only what differs from that configuration: mappings are merged,
    key by key, a mapping of indices changes those entries of a list, anything else takes its place. An override is
    ``key=value``: the key dotted (``optimiser.learning_rate``, ``data.0.root``), the value YAML (``false``, ``null``,
    ``[20, 50]``, ``{kind: cosine}``).

    Raises:
        OSError: the file cannot be read.
        ValueError: not YAML, an override without ``=``, an index outside its list, an unknown key or a bad value;
            the message names it.
    """
    tree = _read(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ValueError(f"override {override!r}: expected key=value")
        _set(tree, key.split("."), _parse(value, override), override)
    return TrainingConfig.model_validate(tree)


def _read(path: Path) -> dict[str, Any]:
    tree = _parse(path.read_text("utf-8"), str(path))
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected a mapping of keys to values, found {type(tree).__name__}")
    base = tree.pop("extends", None)
    return tree if base is None else dict(_merged(_read(find_config(base)), tree, str(path)))


def _merged(base: Any, changes: Any, where: str) -> Any:
    if isinstance(base, dict) and isinstance(changes, dict):
        return base | changes | {key: _merged(base[key], changes[key], where) for key in base.keys() & changes.keys()}
    if isinstance(base, list) and isinstance(changes, dict):
        if unknown := changes.keys() - set(range(len(base))):
            raise ValueError(f"{where}: expected indices below {len(base)}, found {sorted(map(str, unknown))}")
        return [_merged(part, changes[index], where) if index in changes else part for index, part in enumerate(base)]
    return changes


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML: {error}") from error


def _set(tree: Any, keys: Sequence[str], value: Any, override: str) -> None:
    """Put ``value`` where the dotted key says, in place."""
    node = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdecimal() or int(key) >= len(node):
                raise ValueError(f"override {override!r}: expected an index below {len(node)}, found {key!r}")
            place: Any = int(key)
        elif isinstance(node, dict):
            place = key
            if not last:
                node.setdefault(key, {})
        else:
            raise ValueError(f"override {override!r}: {'.'.join(keys[:depth])} is a value and has no parts")
        if last:
            node[place] = value
        else:
            node = node[place]
