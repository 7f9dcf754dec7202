"""Validated fields of a new item, for requests, manifests and files of vectors."""

from __future__ import annotations

import math
import re
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from models.card import Modality
from server.domain.types import CropWarning, Item, Scalar, Vectors

__all__ = [
    "UNIT_NORM_TOLERANCE",
    "Attributes",
    "Id",
    "ItemFields",
    "JsonScalar",
    "Label",
    "ModalityChoice",
    "NewFields",
    "Time",
    "UnitVector",
    "VectorFields",
    "VectorMetadata",
    "Wire",
    "content_of",
    "unit_vector",
]

UNIT_NORM_TOLERANCE = 1e-3
"""Largest difference between the length of a vector and 1."""

_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:")


def _not_dots(value: str) -> str:
    if value in (".", ".."):  # clients and proxies would take them out of a path
        raise ValueError("must not be . or ..")
    return value


def _rfc_3339(value: object) -> object:
    if not isinstance(value, datetime) and not (isinstance(value, str) and _DATE_AND_TIME.match(value)):
        raise ValueError("must be a time, RFC 3339, such as 2026-11-21T08:30:00Z")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the calendar") from None


def _of_unit_length(values: list[float]) -> list[float]:
    length = math.hypot(*values)
    if not abs(length - 1) <= UNIT_NORM_TOLERANCE:
        raise ValueError(f"has length {length:.4g}; a unit vector is expected")
    return values


def _small(attributes: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    if len(attributes) > 32:
        raise ValueError(f"has {len(attributes)} entries; at most 32 are taken")
    if any(len(key) > 64 or (isinstance(value, str) and len(value) > 256) for key, value in attributes.items()):
        raise ValueError("has a name longer than 64 or a text longer than 256 characters")
    return attributes


def _composed(value: object) -> object:
    """Return text in NFC, and anything else as it is: two programs may write one name composed or decomposed."""
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def _composed_texts(attributes: object) -> object:
    if not isinstance(attributes, Mapping):
        return attributes
    return {_composed(key): _composed(value) for key, value in attributes.items()}


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$", examples=["cam2-000187"]), AfterValidator(_not_dots)]
Label = Annotated[str, Field(min_length=1, max_length=256), BeforeValidator(_composed)]
Time = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_in_utc)]
JsonScalar = Annotated[bool, Field(strict=True)] | Annotated[int, Field(strict=True)] | float | str
Attributes = Annotated[dict[str, JsonScalar], AfterValidator(_small), BeforeValidator(_composed_texts)]
UnitVector = Annotated[
    list[float], Field(min_length=1, max_length=65536, description="Of length 1."), AfterValidator(_of_unit_length)
]


class Wire(BaseModel):
    """Base of everything that is sent or received."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class ModalityChoice(StrEnum):
    """What kind of light made a crop; `auto` decides from the pixels."""

    VISIBLE = "visible"
    INFRARED = "infrared"
    AUTO = "auto"

    @property
    def stated(self) -> Modality | None:
        """The modality; None for ``auto``."""
        return None if self is ModalityChoice.AUTO else Modality(self.value)


class NewFields(Wire):
    """Fields of a new item. An existing id replaces the item."""

    id: Id | None = Field(None, description="Generated when left out.")
    identity: Label | None = None
    camera: Label | None = None
    captured_at: Time | None = None
    attributes: Attributes = Field(default={})

    def item(
        self, modality: Modality, *, content: str | None = None, warnings: frozenset[CropWarning] = frozenset()
    ) -> Item:
        """Return the item, with a generated id if none is given."""
        id_ = self.id or uuid.uuid4().hex
        return Item(id_, modality, self.identity, self.camera, self.captured_at, self.attributes, warnings, content)


class ItemFields(NewFields):
    """An item to add, with its image."""

    modality: ModalityChoice


class VectorMetadata(NewFields):
    """Fields of a new item whose embedding is given separately."""

    modality: Modality


class VectorFields(VectorMetadata):
    """Fields of a new item with its embedding."""

    vector: UnitVector


def unit_vector(values: Sequence[float] | Vectors) -> Vectors:
    """float32 ``[D]`` brought to unit length; ``values`` are near it already, as rounding on the wire leaves them."""
    vector = np.asarray(values, np.float64)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def content_of(vector: Vectors) -> str:
    """Return the SHA-256 (hex) of a vector as little-endian float32."""
    return sha256(vector.astype("<f4").tobytes()).hexdigest()
