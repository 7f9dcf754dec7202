"""The training configuration: one frozen object, read from YAML; unknown keys are errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from training.config_base import ConfigPart, Fraction, NonNegative, kind_discriminator, suggestion
from training.data.augmentation import IMAGENET_MEAN, Augmentation, Stream
from training.data.sources import Source
from training.data.training_data import TrainingData, read_data
from training.data.translator import Translator
from training.methods import read_options
from training.optimisation import Optimiser, Schedule, Sgd, Steps
from training.translation.channel import ChannelTranslation
from training.translation.learnt import LearntTranslation
from training.translation.mixed import MixedTranslation
from training.translation.statistics import StatisticsTranslation, load_infrared_images

__all__ = [
    "CONFIGS",
    "BatchShape",
    "InputSize",
    "TrainingConfig",
    "Validation",
    "find_config",
    "read_config",
]

CONFIGS = Path(__file__).parent / "configs"
"""Folder of the packaged configurations, ``METHOD/NAME.yaml``."""

Level = Annotated[int, Field(ge=0, le=255)]


class InputSize(ConfigPart):
    """Size of the network's input and Pillow's filter for resizing to it."""

    height: PositiveInt = 288
    width: PositiveInt = 144
    resize: Literal["bilinear", "bicubic", "lanczos"] = "lanczos"


class BatchShape(ConfigPart):
    """Composition of a batch: ``identities`` x ``images`` images in each stream."""

    identities: PositiveInt = 8
    images: PositiveInt = 4
    streams: tuple[Stream, ...] = (Stream.VISIBLE, Stream.EXCHANGED, Stream.INFRARED)
    neighbours: PositiveInt = 1
    """Identities of a group (``group_pattern``) that are drawn together: windows of one frame are hard negatives."""
    per_epoch: PositiveInt | None = None
    """Batches of an epoch over all processes; none: about one pass over the modality with more images."""
    skip_single_modality: bool = False
    """Ignore identities with images of only one modality, which otherwise are an error."""


class ChannelTranslator(ConfigPart):
    """One colour channel or luma with a random gamma; needs no training."""

    kind: Literal["channel"] = "channel"

    def build(self) -> Translator:
        """Build the translator."""
        return ChannelTranslation()


class StatisticsTranslator(ConfigPart):
    """Channel translation matched to the statistics of real infrared images; needs no training."""

    kind: Literal["statistics"]
    infrared: Path
    """Folder with real infrared images of the training split, searched recursively."""
    match: Literal["moments", "amplitude"] = "moments"

    def build(self) -> Translator:
        """Build the translator."""
        return StatisticsTranslation(load_infrared_images(self.infrared), self.match)


class LearntTranslator(ConfigPart):
    """A frozen network that was trained on aligned frames."""

    kind: Literal["learnt"]
    path: Path
    """File written by ``vireid translator train``."""

    def build(self) -> Translator:
        """Build the translator."""
        return LearntTranslation(self.path)


class MixedTranslator(ConfigPart):
    """Random mixture of channels, gamma and inversion, then optionally the low frequencies of real infrared images."""

    kind: Literal["mixed"]
    gamma: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)
    inversion: Fraction = 0.3
    infrared: Path | None = None
    """Folder with real infrared images of the training split that provide low frequencies; none: no replacement."""
    exchange: Fraction = 0.3
    """Probability that the low frequencies are replaced."""

    def build(self) -> Translator:
        """Build the translator."""
        mixed = MixedTranslation(self.gamma, self.inversion)
        if self.infrared is None:
            return mixed
        return StatisticsTranslation(load_infrared_images(self.infrared), "amplitude", base=mixed, share=self.exchange)


Translation = Annotated[
    Annotated[ChannelTranslator, Tag("channel")]
    | Annotated[MixedTranslator, Tag("mixed")]
    | Annotated[StatisticsTranslator, Tag("statistics")]
    | Annotated[LearntTranslator, Tag("learnt")],
    kind_discriminator("channel"),
]
"""How visible images are translated to infrared."""


class AugmentationConfig(ConfigPart):
    """Parameters of the augmentation, see :class:`training.data.augmentation.Augmentation`."""

    pad: NonNegative = 10 / 288
    """Padding of every side as a share of the height."""
    flip: Fraction = 0.5
    cut: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    erasing: Fraction = 0.5
    erased_area: tuple[Fraction, Fraction] = (0.02, 0.4)
    fill: tuple[Level, Level, Level] = IMAGENET_MEAN
    grey: Fraction = 0.0
    visible_gain: tuple[NonNegative, NonNegative] = (1.0, 1.0)
    visible_offset: tuple[float, float] = (0.0, 0.0)
    infrared_gain: tuple[float, float] = (0.98, 1.02)
    infrared_offset: tuple[float, float] = (-18.0, 18.0)
    translator: Translation = ChannelTranslator()
    """Makes infrared images for identities without any (``translate``), in training and validation."""
    training_translator: Translation | None = None
    """Replaces ``translator`` in training; none: ``translator``."""
    transition: Translation | None = None
    """Makes the images of the transition stream t; none: ``translator``."""

    def build(self) -> Augmentation:
        """Build the augmentation with these parameters."""
        parameters = {name: getattr(self, name) for name in type(self).model_fields}
        translator = self.translator.build()
        transition = self.transition.build() if self.transition else translator
        training = self.training_translator.build() if self.training_translator else None
        translators = {"translator": translator, "training_translator": training, "transition": transition}
        return Augmentation(**parameters | translators)


class Validation(ConfigPart):
    """Identities that are held out of training for validation; never those of a test set."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the training identities that is held out; 0: none."""
    every: PositiveInt = 5
    """Epochs between two validations; the last epoch is always validated."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides which identities are held out; use one value in runs that are compared."""
    images: PositiveInt | None = None
    """Maximum number of crops of an identity in a modality; none: all."""
    select: Literal["last", "best"] = "last"
    """Epoch whose weights are released: the last one, or the one with the best validation mAP."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.select == "best" and self.share == 0:
            raise ValueError("select: best needs validation identities: set share above 0")
        return self


class TrainingConfig(ConfigPart):
    """Everything that determines the result of a run."""

    method: str = "baseline"
    options: dict[str, Any] = Field(default={}, validate_default=True)
    """Options of the method, see ``training.methods.METHOD``; missing ones get their defaults."""
    backbone: str = "resnet50"
    weights: str = "none"
    """``imagenet`` (packaged for one backbone), ``none``, or the path of a state dict."""
    start: Path | None = None
    """To start from, where both networks have a part: ``model.pt`` of a run of the same backbone on the same data, or
    the folder of an exported OSNet, as ``models/zoo/baseline``."""
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    input: InputSize = InputSize()
    batch: BatchShape = BatchShape()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimiser: Optimiser = Sgd()
    schedule: Schedule = Steps()
    epochs: PositiveInt = 81
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the network's forward and backward pass; losses are always computed in float32."""
    accumulation: PositiveInt = 1
    """Batches whose gradients are averaged into one step of the optimiser."""
    clip: PositiveFloat | None = None
    """Maximum norm of the gradient."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of the averaged weights, which are validated and released; none: no averaging."""
    validation: Validation = Validation()
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 1
    """Processes per rank that prepare batches; does not affect results."""
    checkpoint_minutes: PositiveFloat = 10.0
    """Minutes between checkpoints within an epoch; one is always written at its end. Does not affect results."""

    @field_validator("options")
    @classmethod
    def _of_the_method(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" not in info.data:  # an invalid method has its own error
            return options
        return read_options(info.data["method"], options).model_dump(mode="json")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs}: expected fewer than epochs, {self.epochs}"
            )
        shares = [source.per_batch for source in self.data if source.per_batch]
        if shares and (len(shares) < len(self.data) or sum(shares) != self.batch.identities):
            raise ValueError(
                f"per_batch: expected one for each of {len(self.data)} data sets, with the sum {self.batch.identities} "
                f"(batch.identities), found {shares}"
            )
        names = [source.name for source in self.data]
        for source in self.data:
            if source.images and not source.per_batch:
                raise ValueError(f"{source.name}: images needs per_batch, the source's share of a batch")
            if source.split_as is not None and source.split_as not in names:
                raise ValueError(f"{source.name}: split_as {source.split_as!r} is none of the data sets {names}")
        return self

    def read_data(self) -> TrainingData:
        """Read the data sets and hold the validation identities out."""
        split = self.validation
        return read_data(
            self.data, self.batch.identities, held_out=split.share, seed=split.seed, held_out_images=split.images
        )


def find_config(name: str) -> Path:
    """Return the file of that name, else the packaged configuration ``METHOD/NAME``.

    Raises:
        FileNotFoundError: neither exists; the message lists the packaged ones.
    """
    given, packaged = Path(name), CONFIGS / f"{name}.yaml"
    if given.is_file():
        return given
    if packaged.is_file():
        return packaged
    known = [path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")]
    raise FileNotFoundError(f"no configuration {suggestion(name, known)}, or a YAML file")


def read_config(path: Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a YAML file and apply ``overrides``.

    With ``extends: METHOD/NAME`` (or a file) it only contains the differences from that configuration: mappings are
    merged by key, a mapping of indices changes those entries of a list, any other value replaces the old one. An
    override is ``key=value`` with a dotted key (``optimiser.learning_rate``, ``data.0.root``) and a YAML value
    (``false``, ``null``, ``[20, 50]``, ``{kind: cosine}``).

    Raises:
        OSError: the file cannot be read.
        ValueError: invalid YAML, an override without ``=``, an index out of range, an unknown key or an invalid value;
            the message says which.
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
    """Set the value at a dotted key in place."""
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
            raise ValueError(f"override {override!r}: {'.'.join(keys[:depth])} is a single value and has no keys")
        if last:
            node[place] = value
        else:
            node = node[place]
