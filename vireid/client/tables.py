"""Answers as flat rows and as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from vireid.schemas.search import SearchAnswer

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["to_pandas", "to_rows"]


def to_rows(entries: SearchAnswer | Iterable[BaseModel]) -> list[dict[str, Any]]:
    """Return one flat dictionary for each hit of a search, or for each item, job, receipt or other entry.

    Members of nested objects get the names of both, such as ``item.id`` and ``item.attributes.site``.
    """
    if isinstance(entries, SearchAnswer):
        entries = entries.hits
    return [_flat(entry.model_dump()) for entry in entries]


def to_pandas(entries: SearchAnswer | Iterable[BaseModel]) -> pd.DataFrame:
    """Return the rows of :func:`to_rows` as a table; requires pandas.

    Raises:
        ModuleNotFoundError: pandas is not installed.
    """
    import pandas as pd

    return pd.DataFrame(to_rows(entries))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in values.items():
        row |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return row
