"""The model card: the typed contract between training, which writes it, and the server, which follows it.

It is stored in the ONNX metadata under ``vireid.card`` and beside the model as ``card.json``. This module
imports neither torch nor NumPy, so that a server can read a card without either.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "CARD_KEY",
    "KEEPS_FLOAT",
    "MAX_LOSS",
    "THRESHOLD_RATES",
    "WORDING",
    "Calibration",
    "Card",
    "DataName",
    "DataSource",
    "DepthRule",
    "Evaluation",
    "InputSpec",
    "Measure",
    "Member",
    "Modality",
    "Precision",
    "TrainingFacts",
    "Variant",
]

CARD_KEY = "vireid.card"
"""Key of the card in the ONNX metadata."""

THRESHOLD_RATES = (1e-2, 1e-3, 1e-4)
"""False match rates for which a card gives score thresholds."""

WORDING = "implemented from the published description; the unpublished details are ours"
"""Statement that accompanies every mention of MTRL, ICRE or EMI."""

MAX_LOSS = 0.005
"""Largest loss of Rank-1 and mAP with which a lower precision is chosen automatically."""

KEEPS_FLOAT = ("WeightBiasQuantization",)
"""ONNX Runtime optimizers to disable (``disabled_optimizers``): they would quantise layers that an int8 file leaves in
float."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Rate = Annotated[float, Field(ge=0, le=1)]
DataName = Annotated[str, AfterValidator(lambda name: name.replace("kept-out identities", "held-out identities"))]
"""Name of a data set; the former term in cards and results of earlier versions is replaced."""


class Modality(StrEnum):
    """Kind of light in which a crop was recorded. ``index`` is the value of the graph's ``modality`` input."""

    VISIBLE = "visible"
    INFRARED = "infrared"

    @property
    def index(self) -> int:  # type: ignore[override]
        """0 for visible, 1 for infrared."""
        return 0 if self is Modality.VISIBLE else 1

    @property
    def opposite(self) -> Modality:
        """The other modality."""
        return Modality.INFRARED if self is Modality.VISIBLE else Modality.VISIBLE


class Precision(StrEnum):
    """Number format that a model computes in: that of an exported graph, or ``bf16``, in which the fp32 one is run."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DepthRule(_Part):
    """How grey images deeper than 8 bits (16-bit, floating point) are mapped to 8 bits before they are resized.

    The mapping is linear. The range of the frame, or if it is unknown the ``low`` and ``high`` percentiles of the
    crop's finite pixels, become 0 and 255; 8-bit images are not changed. ``tests/vectors/deep_infrared.py`` is the
    exact specification.
    """

    name: Literal["percentile-stretch"] = "percentile-stretch"
    version: Literal[1] = 1
    low: float = Field(default=1.0, ge=0, lt=100)
    """Percent of the pixels."""
    high: float = Field(default=99.0, gt=0, le=100)
    """Percent of the pixels."""


class InputSpec(_Part):
    """How a decoded image is converted to a row of the graph's ``image`` input: uint8 RGB, resized."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    resize: Literal["bilinear", "bicubic", "lanczos"]
    """Pillow's filter of that name."""
    depth: DepthRule = DepthRule()
    """Rule for images deeper than 8 bits; older cards that do not record it use the default."""


class Variant(_Part):
    """One way to run the model: an exported file, in its precision (bf16: the fp32 file)."""

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    sha256: Sha256
    weights: Literal["float32", "float16"] = "float32"
    """How the file stores large matrices and kernels; it computes as its precision says."""
    rank1_change: float | None = None
    """Rank-1 minus that of fp32, a fraction over all queries of held-out identities; None if not measured."""
    map_change: float | None = None
    """mAP minus that of fp32, measured in the same way."""
    cosine: float | None = None
    """Mean cosine between the embeddings of this file and of fp32 of the same crops."""
    in_float: tuple[str, ...] = ()
    """Layers that an int8 file leaves in float because quantising them costs accuracy."""

    @property
    def loss(self) -> float:
        """The larger of the losses in Rank-1 and in mAP, as a fraction; infinite if not measured."""
        if self.rank1_change is None or self.map_change is None:
            return math.inf
        return -min(self.rank1_change, self.map_change)

    @property
    def accepted(self) -> bool:
        """Whether it may replace fp32 by default: its loss was measured and is small."""
        return self.loss <= MAX_LOSS


class DataSource(_Part):
    """A data set that the model was trained on."""

    name: str
    licence: str
    identities: int | None = None
    visible: int = Field(ge=0)
    infrared: int = Field(ge=0)
    remark: str = ""


class TrainingFacts(_Part):
    """How the weights were trained, in enough detail to repeat the run."""

    data: tuple[DataSource, ...]
    command: str
    commit: str
    config: dict[str, object]
    seed: int
    epochs: int
    machine: str


class Member(_Part):
    """A network inside a fused one."""

    name: str
    method: str
    backbone: str
    fingerprint: Sha256
    weight: float = Field(gt=0)
    """Factor of its embedding before the embeddings are concatenated."""
    training: TrainingFacts


class Measure(_Part):
    """A metric over trials: every trial, their mean and their standard deviation (ddof = 1; None for one trial)."""

    mean: float
    std: float | None
    trials: tuple[float, ...]


class Evaluation(_Part):
    """A protocol and the metrics measured under it."""

    protocol_id: str
    protocol: dict[str, object]
    data: DataName
    counts: dict[str, int]
    metrics: dict[str, Measure]
    """``rank1``, ``rank5``, ``map``, ``minp``, ``chance_rank1``, … as fractions."""
    command: str


class Calibration(_Part):
    """Impostor scores of one modality pair on one data set, which convert a score to a false match rate.

    ``rates`` fall and ``scores`` rise: a share ``rates[i]`` of the impostor pairs scores at least ``scores[i]``.
    """

    query: Modality
    gallery: Modality
    data: DataName
    """Name of the data set: the domain in which the rates are valid."""
    real: bool | None = None
    """Whether both modalities were recorded by cameras; False where infrared crops were translated from visible ones,
    None in cards written before this was recorded."""
    impostor_pairs: int = Field(gt=0)
    """Pairs of crops of two people; of one modality each two crops are one pair."""
    identities: int | None = Field(default=None, gt=1)
    """Number of people in the pairs; None in cards written before this was recorded."""
    rates: tuple[Rate, ...] = Field(min_length=2)
    scores: tuple[float, ...] = Field(min_length=2)
    intervals: tuple[tuple[Rate, Rate], ...] = ()
    """95 % interval of each of ``rates``, bootstrapped over people (not over pairs, which are not independent): where
    the rate among all people of this kind lies. A rate measured on as many other people lies inside about 84 times in
    100. Empty in cards written before this was recorded."""
    thresholds: dict[str, float | None]
    """Rate (``"0.01"``, ``"0.001"``, ``"0.0001"``) → smallest score with at most that rate; None: too few pairs."""

    @model_validator(mode="after")
    def _monotone(self) -> Self:
        if len(self.rates) != len(self.scores):
            raise ValueError(f"{len(self.rates)} rates for {len(self.scores)} scores")
        if any(a <= b for a, b in pairwise(self.rates)) or any(a > b for a, b in pairwise(self.scores)):
            raise ValueError("rates must fall and scores must rise")
        if self.intervals and len(self.intervals) != len(self.rates):
            raise ValueError(f"{len(self.intervals)} intervals for {len(self.rates)} rates")
        if any(low > high for low, high in self.intervals):
            raise ValueError("the lower end of an interval must not exceed its upper end")
        return self

    @property
    def smallest_rate(self) -> float:
        """The smallest rate that can be measured with this number of impostor pairs: one pair of all."""
        return 1 / self.impostor_pairs

    def false_match_rate(self, score: float) -> float:
        """Return the share of impostor pairs at or above ``score``, interpolated; never below ``smallest_rate``."""
        return self._interpolate(self.rates, score)

    def interval(self, score: float) -> tuple[float, float] | None:
        """Return the interpolated 95 % interval of the false match rate at ``score``; None if none was measured.

        No pair scored above the highest score: there the upper end is that of the smallest measured rate.
        """
        if not self.intervals:
            return None
        if score > self.scores[-1]:
            return min(self.smallest_rate, self.intervals[-1][0]), self.intervals[-1][1]
        lower, upper = zip(*self.intervals, strict=True)
        return self._interpolate(lower, score), self._interpolate(upper, score)

    def _interpolate(self, rates: Sequence[float], score: float) -> float:
        """Interpolate falling ``rates`` geometrically at ``score``."""
        floor = self.smallest_rate
        place = bisect_left(self.scores, score)
        if place == 0:
            return rates[0]
        if place == len(self.scores):
            return floor
        low, high = self.scores[place - 1 : place + 1]
        above, below = rates[place - 1 : place + 1]
        share = (score - low) / (high - low)
        rate = math.exp((1 - share) * math.log(max(above, floor)) + share * math.log(max(below, floor)))
        return max(floor, rate)  # the logarithm may round below it


class Card(_Part):
    """Everything that a reader, a server or an auditor needs to know about a model."""

    schema_version: Literal[1] = 1
    name: Name
    method: str
    backbone: str
    version: str
    wording: str = ""
    fingerprint: Sha256
    """sha256 over the trained parameters and buffers; the same for every precision of one model."""
    input: InputSpec
    dimension: int = Field(gt=0)
    parameters: int = Field(gt=0)
    modalities: tuple[Modality, ...] = (Modality.VISIBLE, Modality.INFRARED)
    precisions: dict[Precision, Variant]
    training: TrainingFacts
    """For a fused model: that of its first member, with the data of all members and the command that fused them."""
    members: tuple[Member, ...] = ()
    """The networks of a fused model; empty for any other model."""
    evaluations: tuple[Evaluation, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    intended_use: str
    limits: str

    def calibration(self, query: Modality, gallery: Modality) -> Calibration | None:
        """Return the first calibration of a modality pair on real crops, else its first one, else None."""
        found = self.calibrations_of(query, gallery)
        return next((c for c in found if c.real), found[0] if found else None)

    def calibrations_of(self, query: Modality, gallery: Modality) -> tuple[Calibration, ...]:
        """Return every calibration of a modality pair, one for each data set, in the order of the card."""
        return tuple(c for c in self.calibrations if (c.query, c.gallery) == (query, gallery))

    def embedded(self) -> Card:
        """Return the card for the ONNX metadata: without ``precisions``, since no file can hold its own hash."""
        return self.model_copy(update={"precisions": {}})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``card.json``.

        Raises:
            OSError: the file cannot be read.
            pydantic.ValidationError: it is not a card of this schema.
        """
        return cls.model_validate_json(path.read_text("utf-8"))

    def write(self, path: Path) -> None:
        """Write ``card.json``."""
        path.write_text(self.model_dump_json(indent=2) + "\n", "utf-8")
