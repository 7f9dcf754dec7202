"""Summary of the items that pass a filter: how many, of which modalities and cameras, from when to when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from models.card import Modality
from server.domain.timestamps import from_microseconds
from server.domain.types import Filter
from server.gallery.columns import NO_TIME, GalleryView

__all__ = ["MAX_CAMERAS", "Summary", "summarise"]

MAX_CAMERAS = 1000


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of items. ``cameras`` holds the most frequent ones, by name; times are None where no item has one."""

    items: int
    modalities: dict[Modality, int]
    cameras: dict[str, int]
    identities: int
    unlabelled: int
    captured_first: datetime | None
    captured_last: datetime | None


def summarise(view: GalleryView, where: Filter) -> Summary:
    """Summarise the items of a view that pass a filter."""
    allowed = view.allowed(where)
    identity, times = np.bincount(view.identity[allowed], minlength=1), view.captured_at[allowed]
    times = times[times != NO_TIME]
    return Summary(
        items=int(np.count_nonzero(allowed)),
        modalities={one: int(np.count_nonzero(view.modality[allowed] == one.index)) for one in Modality},
        cameras=_cameras(view, np.bincount(view.camera[allowed], minlength=1)),
        identities=int(np.count_nonzero(identity[1:])),
        unlabelled=int(identity[0]),
        captured_first=from_microseconds(int(times.min())) if len(times) else None,
        captured_last=from_microseconds(int(times.max())) if len(times) else None,
    )


def _cameras(view: GalleryView, counts: np.ndarray[tuple[int], np.dtype[np.intp]]) -> dict[str, int]:
    codes = np.flatnonzero(counts[1:]) + 1
    codes = codes[np.argsort(-counts[codes], kind="stable")][:MAX_CAMERAS]
    return dict(sorted((str(view.cameras.value(int(code))), int(counts[code])) for code in codes))
