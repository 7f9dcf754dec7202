"""Field types that several resources share, with the rules that their values must meet."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, WithJsonSchema

from models.card import Modality

__all__ = [
    "UNIT_NORM_TOLERANCE",
    "Attributes",
    "CropWarning",
    "Id",
    "Label",
    "ModalityChoice",
    "Scalar",
    "Time",
    "UnitVector",
    "Upload",
]

UNIT_NORM_TOLERANCE = 1e-3
"""Maximum difference between the length of a precomputed embedding and 1."""

_BLANK_BEFORE_OFFSET = re.compile(r"^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?) (\d\d:?\d\d)$")
"""A time whose ``+`` was sent unescaped in a query string, where it means a blank."""
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:")


class ModalityChoice(StrEnum):
    """Modality of a crop; `auto` detects it from the pixels."""

    VISIBLE = "visible"
    INFRARED = "infrared"
    AUTO = "auto"

    @property
    def stated(self) -> Modality | None:
        """The modality; None for ``auto``."""
        return None if self is ModalityChoice.AUTO else Modality(self.value)


class CropWarning(StrEnum):
    """Possible quality problem of a crop that was accepted nevertheless."""

    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    BLURRED = "blurred"
    NOT_PERSON_SHAPED = "not_person_shaped"


def _check_not_dots(value: str) -> str:
    if value in (".", ".."):  # clients and proxies would remove them from a path
        raise ValueError("must not be . or ..")
    return value


def _check_rfc_3339(value: object) -> object:
    if isinstance(value, str):
        value = _BLANK_BEFORE_OFFSET.sub(r"\1+\2", value)
    if not isinstance(value, datetime) and not (isinstance(value, str) and _DATE_AND_TIME.match(value)):
        raise ValueError("must be a time, RFC 3339, such as 2026-11-21T08:30:00Z")
    return value


def _to_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the calendar") from None


def _check_unit_length(values: list[float]) -> list[float]:
    length = math.hypot(*values)
    if not abs(length - 1) <= UNIT_NORM_TOLERANCE:
        raise ValueError(f"has length {length:.4g}; a unit vector is expected")
    return values


def _check_size(attributes: Mapping[str, str | float | bool]) -> Mapping[str, str | float | bool]:
    if len(attributes) > 32:
        raise ValueError(f"has {len(attributes)} entries; at most 32 are allowed")
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


def _check_is_file(part: object) -> object:
    if not isinstance(part, bytes):
        raise ValueError("must be a file")
    return part


Id = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$", examples=["cam2-000187"]), AfterValidator(_check_not_dots)
]
Label = Annotated[str, Field(min_length=1, max_length=256), BeforeValidator(_composed)]
Time = Annotated[AwareDatetime, BeforeValidator(_check_rfc_3339), AfterValidator(_to_utc)]
Scalar = Annotated[bool, Field(strict=True)] | Annotated[int, Field(strict=True)] | float | str
Attributes = Annotated[dict[str, Scalar], AfterValidator(_check_size), BeforeValidator(_composed_texts)]
UnitVector = Annotated[
    list[float],
    Field(min_length=1, max_length=65536, description="Embedding of length 1."),
    AfterValidator(_check_unit_length),
]
Upload = Annotated[
    bytes,
    BeforeValidator(_check_is_file),
    WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"}),
]
