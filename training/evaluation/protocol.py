"""Evaluation protocols: queries, gallery, exclusion and metrics, as typed, hashable objects stored in every result."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import product
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from models.card import Modality
from training.evaluation.exclusion import Exclusion
from training.evaluation.metrics import Cmc
from training.evaluation.rerank import KReciprocal

__all__ = [
    "CROSS_MODALITY",
    "Convention",
    "Dataset",
    "Direction",
    "Feature",
    "Mode",
    "Protocol",
    "ProtocolError",
    "Sampler",
    "Selection",
    "check_training",
    "custom",
    "llcm",
    "presets",
    "regdb",
    "sysu",
]

_Rules = dict[str, tuple[object, ...]]
"""Allowed values of fields."""


class ProtocolError(ValueError):
    """The evaluation does not conform to its protocol."""


class Dataset(StrEnum):
    """Data set whose rules a protocol follows."""

    SYSU = "sysu"
    REGDB = "regdb"
    LLCM = "llcm"
    CUSTOM = "custom"


class Direction(StrEnum):
    """Modality of the queries and of the gallery."""

    IR_TO_VIS = "ir_to_vis"
    VIS_TO_IR = "vis_to_ir"
    VIS_TO_VIS = "vis_to_vis"
    """Across visible cameras; without an exclusion of its camera, an image would find itself."""

    @property
    def query(self) -> Modality:
        """Modality of the queries."""
        return Modality.INFRARED if self is Direction.IR_TO_VIS else Modality.VISIBLE

    @property
    def gallery(self) -> Modality:
        """Modality of the gallery."""
        return Modality.INFRARED if self is Direction.VIS_TO_IR else Modality.VISIBLE


CROSS_MODALITY = (Direction.IR_TO_VIS, Direction.VIS_TO_IR)
"""The directions of the published protocols."""


class Mode(StrEnum):
    """Cameras of the SYSU-MM01 gallery."""

    ALL = "all"
    """1, 2, 4 and 5."""
    INDOOR = "indoor"
    """1 and 2."""


class Sampler(StrEnum):
    """How the gallery of a trial is drawn."""

    OFFICIAL_PERM = "official_perm"
    """SYSU-MM01: the first images in the trial's row of the published permutation."""
    AGW_SEED = "agw_seed"
    """SYSU-MM01: one image per identity and camera with ``random.Random(trial).choice``."""
    PER_CAMERA_SEED = "per_camera_seed"
    """LLCM: the same with the cameras of the gallery's modality."""
    FULL = "full"
    """Every image."""


class Convention(StrEnum):
    """Meaning of "visible to infrared" on LLCM; three are in use."""

    PAPER = "paper"
    """Every visible image is a query against one infrared image per identity and camera."""
    DEEN_RELEASE = "deen_release"
    """Swapped roles: the sampled infrared images are the queries against every visible image. The other direction is
    the same as with ``paper``."""
    IDKL_FULL = "idkl_full"
    """Every image of one modality is a query against every image of the other, without exclusion."""


class Feature(StrEnum):
    """Vector that is compared."""

    BN = "bn"
    """The vector after the BN neck."""
    POOLED = "pooled"
    """The vector before the BN neck."""


class Selection(StrEnum):
    """Epoch that is evaluated."""

    LAST = "last"
    VAL = "val"
    """The best on validation identities; never on the test set."""


class Protocol(BaseModel):
    """A protocol. Create it with :func:`sysu`, :func:`regdb`, :func:`llcm` or :func:`custom`.

    Equal protocols have equal ids and hashes. A field that does not apply to the data set is None.

    Raises:
        pydantic.ValidationError: an unknown field or an invalid combination; the message names it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Dataset
    direction: Direction
    mode: Mode | None = None
    shots: Literal[1, 10] | None = None
    """Gallery images per identity and camera; None: all."""
    trials: tuple[int, ...] = Field(min_length=1)
    """SYSU-MM01 and LLCM: 0…9 (SYSU row t is the official trial t + 1); RegDB: 1…10."""
    gallery_sampler: Sampler
    convention: Convention | None = None
    exclusion: Exclusion
    cmc: Cmc
    max_rank: int = Field(default=20, ge=1)
    feature: Feature = Feature.BN
    flip: StrictBool = False
    """Average the vectors of an image and of its mirror image."""
    rerank: KReciprocal | None = None
    train_ids: int | None = None
    """SYSU-MM01: number of training identities, 296 or 395. RegDB: the split; None: several, with a model for each."""
    selection: Selection = Selection.LAST

    @model_validator(mode="after")
    def _possible(self) -> Self:
        possible = _trials(self.dataset, self.convention)
        if list(self.trials) != sorted(set(self.trials)) or not set(self.trials) <= set(possible):
            raise ValueError(
                f"{self.dataset.value}: trials must rise within {possible[0]}…{possible[-1]}, found {self.trials}"
            )
        rules = {
            Dataset.SYSU: self._sysu_rules,
            Dataset.REGDB: self._regdb_rules,
            Dataset.LLCM: self._llcm_rules,
            Dataset.CUSTOM: self._custom_rules,
        }
        for field, allowed in rules[self.dataset]().items():
            if getattr(self, field) not in allowed:
                options = " or ".join(repr(option) for option in allowed)
                raise ValueError(f"{self.dataset.value}: {field} must be {options}, found {getattr(self, field)!r}")
        return self

    def _sysu_rules(self) -> _Rules:
        multi_shot = self.shots == 10  # not defined for agw_seed
        return {
            "direction": (Direction.IR_TO_VIS,),
            "mode": tuple(Mode),
            "shots": (1, 10),
            "gallery_sampler": (Sampler.OFFICIAL_PERM,) if multi_shot else (Sampler.OFFICIAL_PERM, Sampler.AGW_SEED),
            "convention": (None,),
            "exclusion": (Exclusion.CAM3_CAM2,),
            "cmc": (Cmc.DISTINCT,),
            "train_ids": (296,) if self.selection is Selection.VAL else (296, 395),
        }

    def _regdb_rules(self) -> _Rules:
        return {
            **_UNSAMPLED,
            "direction": CROSS_MODALITY,
            "convention": (None,),
            "exclusion": (Exclusion.NONE,),
            "cmc": tuple(Cmc),
            "train_ids": (self.trials[0] if len(self.trials) == 1 else None,),
        }

    def _llcm_rules(self) -> _Rules:
        common: _Rules = {
            "direction": CROSS_MODALITY,
            "mode": (None,),
            "convention": tuple(Convention),
            "cmc": (Cmc.DISTINCT,),
            "train_ids": (None,),
        }
        if self.convention is Convention.IDKL_FULL:
            return {**common, **_UNSAMPLED, "exclusion": (Exclusion.NONE,)}
        return {
            **common,
            "shots": (1,),
            "gallery_sampler": (Sampler.PER_CAMERA_SEED,),
            "exclusion": (Exclusion.SAME_ID_SAME_CAM,),
        }

    def _custom_rules(self) -> _Rules:
        exclusions = (Exclusion.NONE, Exclusion.SAME_ID_SAME_CAM)
        return {
            **_UNSAMPLED,
            "convention": (None,),
            "exclusion": exclusions if self.direction in CROSS_MODALITY else exclusions[1:],
            "train_ids": (None,),
        }

    def changed(self, **changes: object) -> Self:
        """Return a validated copy with some fields changed."""
        return self.model_validate(self.model_dump() | changes)

    @property
    def swapped(self) -> bool:
        """Whether the queries have the gallery's modality (LLCM ``deen_release``, visible to infrared)."""
        return self.convention is Convention.DEEN_RELEASE and self.direction is Direction.VIS_TO_IR

    @property
    def id(self) -> str:
        """Short readable name, for instance ``sysu-all-1shot-official_perm``, with a suffix for each unusual field."""
        return "-".join((*self._usual_parts(), *self._unusual_parts()))

    def _usual_parts(self) -> Iterator[str]:
        yield self.dataset.value
        match self.dataset:
            case Dataset.SYSU:
                yield f"{self.mode}-{self.shots}shot-{self.gallery_sampler}"
            case Dataset.REGDB:
                yield self.direction
            case Dataset.LLCM:
                yield f"{self.direction}-{self.convention}"
            case Dataset.CUSTOM:
                yield f"{self.direction}-{self.exclusion}"

    def _unusual_parts(self) -> Iterator[str]:
        if self.trials != _trials(self.dataset, self.convention):
            yield "trial" + "+".join(map(str, self.trials))
        if self.cmc is not (Cmc.IMAGE if self.dataset is Dataset.REGDB else Cmc.DISTINCT):
            yield f"{self.cmc}_cmc"
        if self.max_rank != 20:
            yield f"top{self.max_rank}"
        if self.feature is not Feature.BN:
            yield self.feature
        if self.flip:
            yield "flip"
        if self.rerank is not None:
            yield self.rerank.id
        if self.dataset is Dataset.SYSU and self.train_ids != 395:
            yield f"train{self.train_ids}"
        if self.selection is not Selection.LAST:
            yield self.selection


_UNSAMPLED: _Rules = {"mode": (None,), "shots": (None,), "gallery_sampler": (Sampler.FULL,)}


def _trials(dataset: Dataset, convention: Convention | None) -> tuple[int, ...]:
    if dataset is Dataset.REGDB:
        return tuple(range(1, 11))
    sampled = dataset is Dataset.SYSU or (dataset is Dataset.LLCM and convention is not Convention.IDKL_FULL)
    return tuple(range(10)) if sampled else (0,)


def sysu(
    mode: Mode = Mode.ALL,
    shots: Literal[1, 10] = 1,
    sampler: Sampler = Sampler.OFFICIAL_PERM,
    *,
    train_ids: Literal[296, 395] = 395,
) -> Protocol:
    """Return a protocol of SYSU-MM01: queries of cameras 3 and 6 against a sampled visible gallery; ten trials."""
    return Protocol(
        dataset=Dataset.SYSU,
        direction=Direction.IR_TO_VIS,
        mode=mode,
        shots=shots,
        trials=_trials(Dataset.SYSU, None),
        gallery_sampler=sampler,
        exclusion=Exclusion.CAM3_CAM2,
        cmc=Cmc.DISTINCT,
        train_ids=train_ids,
    )


def regdb(direction: Direction, trial: int | None = None) -> Protocol:
    """Return a protocol of RegDB: one of the ten splits with its own model; None: all ten."""
    return Protocol(
        dataset=Dataset.REGDB,
        direction=direction,
        trials=_trials(Dataset.REGDB, None) if trial is None else (trial,),
        gallery_sampler=Sampler.FULL,
        exclusion=Exclusion.NONE,
        cmc=Cmc.IMAGE,
        train_ids=trial,
    )


def llcm(direction: Direction, convention: Convention = Convention.PAPER) -> Protocol:
    """Return a protocol of LLCM in one of its three conventions."""
    full = convention is Convention.IDKL_FULL
    return Protocol(
        dataset=Dataset.LLCM,
        direction=direction,
        shots=None if full else 1,
        trials=_trials(Dataset.LLCM, convention),
        gallery_sampler=Sampler.FULL if full else Sampler.PER_CAMERA_SEED,
        convention=convention,
        exclusion=Exclusion.NONE if full else Exclusion.SAME_ID_SAME_CAM,
        cmc=Cmc.DISTINCT,
    )


def custom(direction: Direction, exclusion: Exclusion = Exclusion.NONE, cmc: Cmc = Cmc.DISTINCT) -> Protocol:
    """Return a protocol for any labelled crops: all images of a modality against all of the other, or of the same."""
    return Protocol(
        dataset=Dataset.CUSTOM,
        direction=direction,
        trials=(0,),
        gallery_sampler=Sampler.FULL,
        exclusion=exclusion,
        cmc=cmc,
    )


def presets() -> dict[str, Protocol]:
    """Return all common protocols by id."""
    protocols = [p for mode in Mode for p in (sysu(mode), sysu(mode, 10), sysu(mode, 1, Sampler.AGW_SEED))]
    protocols += [regdb(direction, trial) for direction, trial in product(CROSS_MODALITY, range(1, 11))]
    protocols += [llcm(direction, convention) for direction, convention in product(CROSS_MODALITY, Convention)]
    protocols += [
        custom(direction, exclusion)
        for direction, exclusion in product(CROSS_MODALITY, (Exclusion.NONE, Exclusion.SAME_ID_SAME_CAM))
    ]
    protocols.append(custom(Direction.VIS_TO_VIS, Exclusion.SAME_ID_SAME_CAM))
    return {protocol.id: protocol for protocol in protocols}


def check_training(protocol: Protocol, train_ids: int | None) -> None:
    """Check that a model was trained on the split that the protocol requires.

    Args:
        protocol: protocol of the evaluation.
        train_ids: training data of the checkpoint: the RegDB split, or the number of SYSU-MM01 identities.

    Raises:
        ProtocolError: the splits differ; on RegDB the model would be evaluated on identities of its training.
    """
    if protocol.train_ids == train_ids:
        return
    if protocol.dataset is Dataset.REGDB:
        raise ProtocolError(
            f"expected a model trained on RegDB split {protocol.train_ids}, found split {train_ids}: "
            "another split contains identities of its training"
        )
    raise ProtocolError(f"expected a model trained on {protocol.train_ids} identities, found {train_ids}")
